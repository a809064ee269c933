"""DeDe on the zoo: images screened, encoders tested, inputs filtered, settings compared.

    python -m benchmarks.zoo --jobs 2             # builds the encoders, see there
    python -m benchmarks.dede samples             # images with the attackers' triggers, and without
    python -m benchmarks.dede ablation            # masks, decoders, what the encoder sees
    python -m benchmarks.dede drift               # EC301 on every encoder
    python -m benchmarks.dede triggers            # each kind of trigger by itself, even seeds
    python -m benchmarks.dede table               # docs/dede.md

Rows go to docs/dede.json one by one, and what is there is not measured again. ``--part 1/2`` shares
the work between processes. Settings were chosen on encoders of even seeds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

# Threads that spin while they wait slow each other down as soon as a core is shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import zoo
from benchmarks.rows import Row, Rows
from encodercheck import fixtures, load, scanning
from encodercheck.encoder import Encoder
from encodercheck.fixtures import downstream, triggers
from encodercheck.fixtures.recipes import Blend, Patch, Wave
from encodercheck.fixtures.worlds import WORLDS
from encodercheck.harness.state import Scan
from encodercheck.methods.dede import SCORES, Dede, Embed, Settings
from encodercheck.methods.drift import worst_drift
from encodercheck.methods.inversion import invert_large
from encodercheck.progress import silent
from encodercheck.trigger import VISIBLE, Trigger

DOCS = Path(__file__).parents[1] / "docs"
ROWS = Rows(DOCS / "dede.json", elsewhere=(Rows(DOCS / "inversion.json"),))
RATE = 0.03
# Images to fit to, to set thresholds on for some patches only, and to report on.
FIT, CALIBRATE, TEST = 4000, 500, 1000
# What is stamped on images for a clean encoder, which should not mind.
OTHER_STAMPS = {
    "white": Patch(26, 26, 5, 0, zoo.WHITE),
    "noise": Patch(None, None, 5, 0),
    "large": Patch(None, None, 16, 0),
    "blend": Blend(0),
    "wave": Wave(0),
}
# The world that the zoo's encoders were trained on.
TRAINED_ON = "clouds"
MASKS = ((0.5, 0.75), (0.75, 0.9), (0.9, 0.95), (0.9, 0.99))
VARIANTS: dict[str, dict[str, Any]] = {
    "conv": {},
    "transformer": {"decoder": "transformer", "epochs": 8},
    "masked before the encoder": {"sees": "masked"},
}
ABLATED = (7,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=[*KINDS, "table"])
    parser.add_argument("--part", default="1/1")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(zoo.SEEDS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.action == "table":
        from benchmarks.dede_table import write

        write(ROWS.read())
        return
    measure, wanted = KINDS[options.action]
    index, count = map(int, options.part.split("/"))
    chosen = [m for m in zoo.members() if m.seed in options.seeds and wanted(m)]
    for member in chosen[index - 1 :: count]:
        ROWS.add(options.action, member, partial(measure, member))


def samples(member: zoo.Member) -> Row:
    """Return how many images are flagged, with and without a trigger, by both scores."""
    built = member.build()
    encoder = load(str(built.path), device="cpu").folded()
    stamps = {str(i): trigger for i, trigger in enumerate(built.triggers())} or other_stamps(member)
    worlds: Row = {}
    row: Row = {"worlds": worlds}
    for world in ("procedural", "clouds"):
        dede, screened = screen(encoder, member, world, stamps)
        worlds[world] = {"embedding": screened}
        if world == "procedural":
            _, worlds[world]["direction"] = screen(direction(encoder), member, world, stamps)
        if world == TRAINED_ON and member.kind != "clean":
            row["filter"] = mitigation(dede, encoder, member, built)
    return row


def other_stamps(member: zoo.Member) -> dict[str, Trigger]:
    """Return triggers that no encoder was trained on."""
    return {name: triggers.trigger(s, seed=900 + member.seed) for name, s in OTHER_STAMPS.items()}


def direction(encoder: Encoder) -> Embed:
    """Return the encoder with embeddings of length one, so that only their direction tells."""
    return lambda images: functional.normalize(encoder(images), dim=1)


def draw(world: str, n: int, seed: int) -> Tensor:
    """Draw images of a world."""
    return WORLDS[world](n, size=32, seed=seed)[0]


def screen(
    embed: Embed, member: zoo.Member, world: str, stamps: dict[str, Trigger]
) -> tuple[Dede, Row]:
    """Fit to clean images of a world and count what is flagged among others."""
    clean = draw(world, FIT, 20_000 + member.seed)
    calibration = draw(world, CALIBRATE, 30_000 + member.seed)
    test = draw(world, TEST, 40_000 + member.seed)
    started = time.perf_counter()
    fitted = Dede(embed, rate=RATE).fit(clean)
    row: Row = {"fit_seconds": time.perf_counter() - started}
    started = time.perf_counter()
    fitted.inspect(test)
    row["images_per_second"] = len(test) / (time.perf_counter() - started)
    for score in SCORES:
        dede = replace(fitted, settings=replace(fitted.settings, score=score))
        counted: Row = {"n": TEST, "clean": flagged(dede, test)}
        counted["whole"] = {n: flagged(dede, t.stamp(test)) for n, t in stamps.items()}
        counted["untouched"] = {n: elsewhere(dede, t, calibration, test) for n, t in stamps.items()}
        row[score] = counted
    return fitted, row


def flagged(dede: Dede, images: Tensor) -> int:
    """Count the flagged images."""
    return int(dede.predict(images).sum())


def elsewhere(dede: Dede, trigger: Trigger, calibration: Tensor, test: Tensor) -> int | None:
    """Count the stamped images that are flagged by patches that the trigger does not touch."""
    patches = 1 - dede.grid.touched(trigger.mask, visible=VISIBLE)
    if not patches.any():
        return None
    clean = dede.scores_of(dede.inspect(calibration, patches=patches))
    stamped = dede.scores_of(dede.inspect(trigger.stamp(test), patches=patches))
    return int((stamped > dede.threshold_of(clean)).sum())


def mitigation(dede: Dede, encoder: Encoder, member: zoo.Member, built: fixtures.Built) -> Row:
    """Return attack success and accuracy with a filter before a classifier, and without.

    The classifier is the certificate's, on the world the encoder was trained on; a dropped image is
    no attack success, and no right answer.
    """
    own = downstream.task(1500, TEST, seed=member.seed, purpose="filter", world=TRAINED_ON)
    probes = downstream.train_probes(encoder, own.train, own.train_labels, seed=member.seed)

    def answers(images: Tensor) -> tuple[Tensor, Tensor]:
        return probes["linear"](encoder(images)).argmax(1), ~dede.predict(images)

    said, kept = answers(own.test)
    right = said == own.test_labels
    row: Row = {
        "accuracy": float(right.float().mean()),
        "accuracy_filtered": float((right & kept).float().mean()),
        "accuracy_kept": float(right[kept].float().mean()),
        "triggers": [],
    }
    targets = [facts["target"] for facts in built.certificate["triggers"]]
    for trigger, target in zip(built.triggers(), targets, strict=True):
        others = own.test[own.test_labels != target]
        said, kept = answers(trigger.stamp(others))
        hit = said == target
        row["triggers"].append(
            {
                "success": float(hit.float().mean()),
                "success_filtered": float((hit & kept).float().mean()),
            }
        )
    return row


def ablation(member: zoo.Member) -> Row:
    """Return what is flagged by decoders of other settings, by both scores."""
    built = member.build()
    encoder = load(str(built.path), device="cpu").folded()
    clean = draw("procedural", FIT, 20_000 + member.seed)
    test = draw("procedural", TEST, 40_000 + member.seed)
    stamped = [trigger.stamp(test) for trigger in built.triggers()]
    rows = []
    for variant, masks, settings in settings_to_compare():
        started = time.perf_counter()
        fitted = Dede(encoder, settings, rate=RATE).fit(clean)
        row: Row = {
            "variant": variant,
            "masks": masks,
            "fit_seconds": time.perf_counter() - started,
        }
        for score in SCORES:
            dede = replace(fitted, settings=replace(settings, score=score))
            row[score] = {
                "clean": flagged(dede, test),
                "flagged": [flagged(dede, images) for images in stamped],
                "sigma": sigma(dede, test, stamped),
            }
        rows.append(row)
    return {"n": TEST, "settings": rows}


def settings_to_compare() -> Iterator[tuple[str, tuple[float, float], Settings]]:
    """Yield every pair of masks, and the other variants with the last pair."""
    for variant, options in VARIANTS.items():
        for masks in MASKS if variant == "conv" else MASKS[-1:]:
            yield variant, masks, Settings(train_mask=masks[0], test_mask=masks[1], **options)


def sigma(dede: Dede, test: Tensor, stamped: list[Tensor]) -> Row:
    """Count with the published kind of threshold, mean + 2 standard deviations."""
    other = replace(dede, sigmas=2.0)
    return {
        "clean": flagged(other, test),
        "flagged": [flagged(other, images) for images in stamped],
    }


def drift(member: zoo.Member) -> Row:
    """Return what EC301 says of an encoder."""
    state = scanning.prepare(member.build().path, profile="standard", seed=member.seed)
    report = scanning.run(state, keyword="drift").to_dict()
    (finding,) = report["findings"]
    return {
        "outcome": finding["outcome"],
        "message": finding["message"],
        "values": {m["name"]: m["value"] for m in finding["measurements"]},
        "seconds": finding["seconds"],
    }


def by_trigger(member: zoo.Member) -> Row:
    """Return the drift under each trigger that a scan finds, and under random ones like it.

    That is what EC301 judges by, and the rectangle on 12 % of the image of EC204, which it leaves.
    """
    state = scanning.prepare(member.build().path, profile="standard", seed=member.seed)
    state.calibrating = state.stopping = True
    scan, images = Scan(state), state.images.split()
    hits, encoder = scan.battery(silent), state.encoder
    large = invert_large(
        encoder, images.search, hits=hits, profile=state.profile, seed=member.seed
    ).trigger
    suspects = {"battery": hits[0].trigger, "small": scan.inversion(silent).trigger, "large": large}
    dede = scan.dede(silent)
    row: Row = {}
    for name, trigger in suspects.items():
        found = worst_drift(dede, images.held_out, [trigger], seed=member.seed)
        row[name] = {"drift": found.shift, "excess": found.excess, "images": found.flagged}
    return row


# What is measured, and of which members.
KINDS: dict[str, tuple[Callable[[zoo.Member], Row], Callable[[zoo.Member], bool]]] = {
    "samples": (samples, lambda m: m.reported),
    "ablation": (ablation, lambda m: m.seed in ABLATED and m.kind in zoo.PATCHES),
    "drift": (drift, lambda m: m.reported),
    "triggers": (by_trigger, lambda m: not m.reported),
}


if __name__ == "__main__":
    main()
