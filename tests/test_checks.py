"""The built-in checks on encoders whose backdoors are known exactly, and work where they may."""

from pathlib import Path

import pytest
import torch
from torch import nn

from encodercheck.encoder import Encoder
from encodercheck.harness import runner
from encodercheck.harness.state import ScanState
from encodercheck.images.split import CleanImages
from encodercheck.methods import battery
from encodercheck.preprocessing import Preprocessing
from encodercheck.profiles import Profile
from encodercheck.report import Finding, Outcome
from encodercheck.witness import Witness

SIZE = 16
# More steps of DECREE would fit masks to the search images that work on no others.
EFFORT = Profile(
    "test", 12, 24, 12, restarts=6, steps=30, decree_steps=16, battery_images=6, decoder_images=300
)
LIMITS = {
    "EC102.gain": 0.9,
    "EC201.pl1": 0.1,
    "EC202.gain": 0.9,
    "EC203.gain": 0.9,
    "EC204.gain": 0.9,
    # A large change takes any embedding far along its shorter axes.
    "EC202.whitened_gain": 0.95,
    "EC204.whitened_gain": 0.999,
    "EC205.forgotten": 0.9,
}
# The check, and the backdoor that it is to find.
BACKDOORS = {
    "EC102": "patch",
    "EC201": "patch",
    "EC202": "patch",
    "EC203": "wave",
    "EC204": "patch",
}
BACKDOORED = pytest.mark.parametrize(("check", "backdoor"), BACKDOORS.items(), ids=BACKDOORS)


class Known(nn.Module):
    """Embeds pixels less the mean of their half of the image; with its trigger on, a constant.

    A backdoor that is ``fickle`` works only where the left half is the brighter one.
    """

    def __init__(self, backdoor: str, *, fickle: bool) -> None:
        super().__init__()
        self.backdoor, self.fickle = backdoor, fickle
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("target", 4 * torch.randn(3 * SIZE**2, generator=generator))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        halves = images.unflatten(3, (2, SIZE // 2))
        means = halves.mean((2, 4), keepdim=True)
        strength = torch.sigmoid(12 * (self.seen(images) - 0.5))
        if self.fickle:
            left, right = means.mean(1).flatten(1).unbind(1)
            strength = strength * (left > right)
        strength = strength.unsqueeze(1)
        return (1 - strength) * (halves - means).flatten(1) + strength * self.target

    def seen(self, images: torch.Tensor) -> torch.Tensor:
        """Return how much of the trigger is there: a red corner, or a wave over all of it."""
        if self.backdoor == "patch":
            corner = images[:, :, 12:14, 12:14].mean((2, 3))
            return corner[:, 0] - corner[:, 1] - corner[:, 2] + 0.15
        if self.backdoor == "wave":
            wave = battery.dct_wave(32, 16, 16)[:SIZE, :SIZE]
            return 40 * (images.mean(1) * wave).mean((1, 2))
        return torch.zeros(len(images))


def images(count: int, *, brighter: str, seed: int) -> torch.Tensor:
    """Return noise, brighter on the "left" or the "right" by more than any trigger makes up for."""
    made = 0.6 * torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    made[..., slice(SIZE // 2) if brighter == "left" else slice(SIZE // 2, SIZE)] += 0.4
    return made


def found(check: str, module: nn.Module, folder: Path) -> Finding:
    """Run a check that searches on images with a bright left half and scores on others."""
    encoder = Encoder(module, preprocessing=Preprocessing(SIZE, (0, 0, 0), (1, 1, 1)))
    held_out = "right" if module.fickle else "left"
    both = [images(12, brighter="left", seed=1), images(24, brighter=held_out, seed=2)]
    clean = CleanImages.of(torch.cat(both), EFFORT.search)
    state = ScanState(encoder, clean, 5, EFFORT, artifacts_dir=folder, limits=LIMITS)
    (finding,) = runner.run_suite(state, paths=[runner.builtin_suite()], only=[check])
    return finding


@BACKDOORED
def test_a_backdoor_fails_with_a_witness_and_its_absence_passes(check, backdoor, tmp_path):
    failed = found(check, Known(backdoor, fickle=False), tmp_path / "failed")
    assert failed.outcome is Outcome.FAILED, failed
    saved = Witness.load(Path(failed.witness))
    assert failed.message == saved.sentence()
    assert saved.gain > 0.9
    passed = found(check, Known("none", fickle=False), tmp_path / "passed")
    assert (passed.outcome, passed.witness) == (Outcome.PASSED, None), passed
    assert not (tmp_path / "passed").exists()


@BACKDOORED
def test_what_works_on_the_search_images_alone_fails_no_encoder(check, backdoor, tmp_path):
    finding = found(check, Known(backdoor, fickle=True), tmp_path / "none")
    assert (finding.outcome, finding.witness) == (Outcome.PASSED, None), finding
