"""What a scan works on, and what its checks share."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

from encodercheck.harness.isolation import isolated
from encodercheck.harness.listener import SILENT, CheckInfo, Listener

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from encodercheck.encoder import Encoder
    from encodercheck.images.split import CleanSplit
    from encodercheck.methods.inversion import Inversion
    from encodercheck.profiles import Profile
    from encodercheck.progress import Progress


@dataclass
class ScanState:
    """The encoder, the images and the settings of one scan.

    ``images`` are (N, 3, H, W) in [0, 1] on the CPU, the first ``profile.search`` of them to
    search on; ``image_set`` says where they come from, for the report. ``limits`` replaces the
    limits written in checks: ``{"EC201.pl1": 0.05}``.
    """

    encoder: Encoder
    images: Tensor
    seed: int
    profile: Profile
    artifacts_dir: Path | None = None
    image_set: dict[str, Any] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self.encoder.device

    @property
    def split(self) -> CleanSplit:
        """The images to search on and the held-out ones."""
        from encodercheck.images.split import CleanSplit

        return CleanSplit.of(self.images, self.profile.search)


class Scan:
    """A scan under way: its state, who watches it, and what its checks compute only once."""

    def __init__(self, state: ScanState, listener: Listener = SILENT) -> None:
        self.state = state
        self.listener = listener
        self._inversion: Inversion | None = None
        self._failure: tuple[Exception, TracebackType | None] | None = None

    def progress_of(self, info: CheckInfo) -> Progress:
        """Return a progress function that tells the listener how far the check is."""

        def progress(step: int, total: int, note: str = "") -> None:
            self.listener.progress(info, step, total, note)

        return progress

    def inversion(self, progress: Progress) -> Inversion:
        """Invert a trigger, once; who asks again gets the same result, or the same exception."""
        if self._failure is not None:
            error, trace = self._failure
            raise error.with_traceback(trace)
        if self._inversion is None:
            try:
                self._inversion = self._invert(progress)
            except Exception as error:
                # The frames hold a copy of the encoder, and the error outlives them.
                traceback.clear_frames(error.__traceback__)
                self._failure = error, error.__traceback__
                raise
        return self._inversion

    def _invert(self, progress: Progress) -> Inversion:
        from encodercheck.methods.inversion import invert

        state = self.state
        # Under its own random numbers, so that it does not matter which check asks first.
        with isolated(state.seed, "inversion"):
            return invert(
                state.encoder.copy(),
                state.split.search.clone(),
                profile=state.profile,
                seed=state.seed,
                progress=progress,
            )


SCAN = pytest.StashKey[Scan]()
"""Where a pytest configuration keeps the scan that it runs for."""
