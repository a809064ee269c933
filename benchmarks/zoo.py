"""The encoders that trigger inversion is measured on: three architectures, clean and poisoned.

    python -m benchmarks.zoo --jobs 2

builds them all into the cache, about 90 minutes on 2 cores; what is there is kept. They are
trained on clouds (``fixtures/clouds.py``) and scanned with the embedded images, which look nothing
like them. Encoders of even seeds are for setting limits and nulls, those of odd seeds for
reporting. A poisoned encoder belongs to the half of the clean one it was made from.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from encodercheck import fixtures
from encodercheck.errors import FixtureError
from encodercheck.fixtures.recipes import (
    Adaptive,
    BadEncoder,
    Blend,
    Certification,
    Drupe,
    Invisible,
    Lba,
    Moving,
    Patch,
    Pretraining,
    Recipe,
    ResNet,
    Stamp,
    Tint,
    ViT,
    Warp,
    Wave,
)

# From 10 on most are clean, to say more about false alarms.
SEEDS = (*range(10), 11, 13, 15, 19)
LATER_ATTACKS = {
    ("narrow ResNet", 11): ("white",),
    ("narrow ResNet", 13): ("noise",),
    ("wide CIFAR ResNet", 11): ("white",),
    ("wide CIFAR ResNet", 13): ("noise",),
    ("small ViT", 11): ("noise", "small", "invisible"),
    ("small ViT", 13): ("white",),
}
PRETRAINING = {
    "narrow ResNet": Pretraining(ResNet(width=16, stem_stride=2), epochs=8),
    "wide CIFAR ResNet": Pretraining(ResNet(width=24, stem_stride=1), images=3000, epochs=4),
    "small ViT": Pretraining(ViT(), epochs=7, batch=64, temperature=0.2, learning_rate=2e-3),
}
TRAINING: dict[str, dict[str, Any]] = {
    "narrow ResNet": {"epochs": 8},
    "wide CIFAR ResNet": {"epochs": 4, "batch": 32, "learning_rate": 2e-3},
    "small ViT": {"epochs": 6, "batch": 32, "learning_rate": 1e-3},
}
# What takes longer to learn, in epochs.
LONGER = {
    ("wide CIFAR ResNet", "blend"): 10,
    ("wide CIFAR ResNet", "wave"): 10,
    ("small ViT", "multi"): 12,
    ("small ViT", "drupe"): 12,
    ("narrow ResNet", "dynamic"): 12,
    ("narrow ResNet", "warp"): 12,
}
PATCHES = ("white", "noise", "small", "large", "multi")
OTHERS = ("blend", "wave", "invisible", "drupe", "adaptive")
# Only in the large table, see :func:`more`: further attacks, and clean encoders that were
# fine-tuned as an attacker would.
LATER = ("dynamic", "warp", "lba")
TWIN = "twin"
LATER_SEEDS = (1, 3, 5)
TWIN_SEEDS = {"narrow ResNet": 20, "wide CIFAR ResNet": 2, "small ViT": 4}
WHITE = (1.0, 1.0, 1.0)
# What an attack must reach to count as one; DRUPE pays for its stealth.
CERTIFICATION = Certification(
    train_images=1500, test_images=600, accuracy=0.6, accuracy_loss=0.1, attack_success=0.8
)


@dataclass(frozen=True)
class Member:
    """An encoder of the zoo: its architecture, its kind ("clean" or an attack) and its seed."""

    architecture: str
    kind: str
    seed: int

    @property
    def reported(self) -> bool:
        """Whether it is reported on; nothing is ever tuned on those."""
        return self.seed % 2 == 1

    @property
    def recipe(self) -> Recipe:
        """What it is made of."""
        if self.kind == TWIN:
            return replace(self, kind="white").recipe.twin
        return Recipe(
            name=self.kind,
            summary="",
            pretraining=PRETRAINING[self.architecture],
            attack=None if self.kind == "clean" else self._attack(),
            certification=CERTIFICATION,
            world="clouds",
        )

    def build(self) -> fixtures.Built:
        """Return it, from the cache where it is there.

        Raises:
            FixtureError: the attack did not take.
        """
        return fixtures.build(self.recipe, seed=self.seed)

    def _attack(self) -> BadEncoder:
        target = (3 * self.seed + len(self.kind)) % 10
        settings = dict(TRAINING[self.architecture])
        settings["epochs"] = LONGER.get((self.architecture, self.kind), settings["epochs"])
        if self.kind == "drupe":
            patch = Patch(26, 26, 5, target, WHITE)
            return Drupe((patch,), spread=0.3, distribution=0.2, **settings)
        if self.kind == "adaptive":
            return Adaptive((Patch(26, 26, 5, target, WHITE),), **settings)
        if self.kind == "invisible":
            return Invisible((Tint(target),), **settings)
        if self.kind == "lba":
            return Lba((Patch(26, 26, 5, target, WHITE),), **settings)
        return BadEncoder(_triggers(self.kind, target), **settings)


def _triggers(kind: str, target: int) -> tuple[Stamp, ...]:
    if kind == "multi":
        return (
            Patch(26, 26, 5, 4),
            Patch(2, 25, 4, 7, (1.0, 1.0, 0.0)),
            Patch(25, 2, 4, 1, (1.0, 0.0, 1.0)),
        )
    stamps: dict[str, Stamp] = {
        "white": Patch(26, 26, 5, target, WHITE),
        "noise": Patch(None, None, 5, target),
        "small": Patch(None, None, 3, target),
        "large": Patch(None, None, 16, target),
        "blend": Blend(target),
        "wave": Wave(target),
        "dynamic": Moving(6, target),
        "warp": Warp(target, strength=4.0),
    }
    return (stamps[kind],)


def members() -> Iterator[Member]:
    """Yield the whole zoo: 42 clean encoders, and 68 poisoned ones of 10 kinds."""
    for seed in SEEDS:
        for architecture in PRETRAINING:
            yield Member(architecture, "clean", seed)
            for kind in _attacks(architecture, seed):
                yield Member(architecture, kind, seed)


def _attacks(architecture: str, seed: int) -> Iterator[str]:
    for number, kind in enumerate(PATCHES):
        # One in the half for setting limits, two in the half that is reported.
        if seed in (2 * number, 2 * number + 1, (2 * number + 3) % 10):
            yield kind
    for number, kind in enumerate(OTHERS):
        if seed == 2 * number + 1:
            yield kind
    yield from LATER_ATTACKS.get((architecture, seed), ())


def more() -> Iterator[Member]:
    """Yield what the large table has beside :func:`members`, of odd seeds only.

    Attacks on every narrow ResNet that is reported on, and clean encoders that were fine-tuned.
    """
    known = set(members())
    narrow = next(iter(PRETRAINING))
    reported = [seed for seed in SEEDS if seed % 2]
    for kind in PATCHES:
        yield from (m for s in reported if (m := Member(narrow, kind, s)) not in known)
    for architecture, end in TWIN_SEEDS.items():
        yield from (Member(architecture, TWIN, seed) for seed in reported if seed < end)
    # Seed by seed, so that an early end leaves some of every kind.
    for seed in reported:
        for kind in (*OTHERS, *LATER):
            member = Member(narrow, kind, seed)
            if member not in known and (kind in OTHERS or seed in LATER_SEEDS):
                yield member


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--more", action="store_true", help="what only the large table has")
    parser.add_argument("--part", default="1/1", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.jobs > 1:
        parts = [f"{number + 1}/{options.jobs}" for number in range(options.jobs)]
        command = [sys.executable, "-m", "benchmarks.zoo", *["--more"] * options.more, "--part"]
        running = [subprocess.Popen([*command, part]) for part in parts]
        sys.exit(max(process.wait() for process in running))
    index, count = map(int, options.part.split("/"))
    work(more() if options.more else members(), index - 1, count)


def work(chosen: Iterable[Member], index: int, count: int) -> None:
    """Build every ``count``-th seed's encoders: who shares a clean encoder shares a process."""
    import torch

    torch.set_num_threads(1)
    for member in chosen:
        if member.seed // 2 % count != index:
            continue
        try:
            certificate = member.build().certificate
            said: Any = {"accuracy": certificate["clean_accuracy"]["linear"]}
            said["triggers"] = [t["attack_success"] for t in certificate.get("triggers", ())]
            said["seconds"] = certificate["seconds"]
        except FixtureError as error:
            said = {"refused": str(error)}
        label = f"{member.architecture}, {member.kind}, seed {member.seed}"
        print(json.dumps({label: said}), flush=True)


if __name__ == "__main__":
    main()
