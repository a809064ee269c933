"""Screen a folder of images for triggers: DeDe's own use, behind ``encodercheck samples``."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encodercheck import decoder_cache, room
from encodercheck.cache import cache_dir, content_hash
from encodercheck.encoder import Encoder
from encodercheck.errors import ConfigError, ImagesError
from encodercheck.images import folder
from encodercheck.images.source import PART, Further
from encodercheck.ledger import Ledger, Row, state_of
from encodercheck.methods import collapse, thresholds
from encodercheck.methods.dede import FEWEST_CLEAN, Dede, Settings
from encodercheck.methods.patches import PatchGrid
from encodercheck.progress import Progress, silent
from encodercheck.report import Outcome

SCHEMA = "encodercheck.samples/1"
# Clean images to train a decoder on and to set the threshold with.
CLEAN_IMAGES = 4000
BATCH = 128
# So seldom are clean images called too many: a false alarm is dearer than a second look.
ALPHA = 0.001
# Where more than this part is flagged and the flagged are not alike, the clean images are of
# another kind than the screened ones.
MOST_FLAGGED = 0.5
ALIKE = 0.5


@dataclass(frozen=True)
class Sample:
    """A screened image: its file within the folder, score, p-value, and whether it is flagged."""

    file: str
    score: float
    p_value: float
    flagged: bool


@dataclass(frozen=True)
class Samples:
    """What screening a folder found.

    ``rate`` is the part of images without a trigger that exceeds the threshold, ``expected`` how
    many of the screened ones that makes; ``p_value`` how likely as many as are flagged are without
    any trigger. ``passed_over`` says what in the folder was not looked at. ``alike`` is the mean
    cosine between the embeddings of flagged images, ``clean_alike`` between clean ones'. ``worst``
    and ``normal`` are some of the samples.
    """

    model: dict[str, Any]
    folder: str
    clean: str
    settings: Settings
    rate: float
    threshold: float
    screened: int
    flagged: int
    unreadable: tuple[str, ...]
    passed_over: str
    expected: float
    p_value: float
    alike: float
    clean_alike: float
    worst: tuple[Sample, ...]
    normal: tuple[Sample, ...]
    seed: int
    device: str
    versions: dict[str, str]
    seconds: float

    @property
    def outcome(self) -> Outcome:
        """Failed where more images are flagged than the false-positive rate explains."""
        if not self.screened or self.another_kind:
            return Outcome.INCONCLUSIVE
        return Outcome.FAILED if self.p_value < ALPHA else Outcome.PASSED

    @property
    def another_kind(self) -> bool:
        """Whether most images are flagged, and differ: then the clean ones are of another kind."""
        spread = collapse.gain(self.alike, self.clean_alike)
        return self.flagged > MOST_FLAGGED * self.screened and not spread > ALIKE

    @property
    def exit_code(self) -> int:
        """0, 1 or 2, as for a scan."""
        return {Outcome.PASSED: 0, Outcome.FAILED: 1}.get(self.outcome, 2)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON takes it."""
        facts = {name: _json(value) for name, value in vars(self).items()}
        return {
            "schema": SCHEMA,
            "outcome": str(self.outcome),
            "exit_code": self.exit_code,
            **facts,
            "settings": asdict(self.settings),
            "worst": [_json(asdict(sample)) for sample in self.worst],
            "normal": [_json(asdict(sample)) for sample in self.normal],
        }


@dataclass
class Screen:
    """An encoder with a decoder fitted to clean images, and the ledger of a folder's images."""

    encoder: Encoder
    folder: Path
    clean: Further
    dede: Dede
    ledger: Ledger
    started: float = field(default_factory=time.monotonic)

    def run(self, *, top: int = 20, progress: Progress = silent) -> Samples:
        """Score every image of the folder that the ledger does not know yet; report on all.

        Raises:
            ImagesError: the folder holds no image files.
        """
        files, passed_over = folder.looked_through(self.folder, option="")
        if not files:
            raise ImagesError(f"{self.folder}: holds no image files; name a folder that does")
        # Taken before a file is read: what is written to it meanwhile is scored the next time.
        states: dict[Path, str] = {}
        for batch in _batches(self._unknown(files, states), self.encoder.image_size):
            self._score(batch, states)
            flagged = self.ledger.above(self.dede.threshold)
            progress(self.ledger.count(), len(files), f"{flagged} flagged")
        self.ledger.commit()
        return self._report(top, passed_over)

    def samples(self) -> Iterator[Sample]:
        """Yield all that is scored, the most suspicious first."""
        return self._samples(self.ledger.ranked())

    def pictures(self, found: Samples, count: int) -> list[tuple[Sample, Tensor, Tensor, Tensor]]:
        """Return the worst ``count`` samples and the normal ones, each with its pictures.

        The image and its reconstruction (3, P, P) in [0, 1], and the errors (side, side). Files
        that are gone by now are left out.
        """
        shown = []
        for sample in (*found.worst[:count], *found.normal):
            image = folder.read(self.folder / sample.file, self.encoder.image_size)
            if image is not None:
                small, reconstructed = self.dede.reconstruct(image.unsqueeze(0))
                errors = self.dede.inspect(image.unsqueeze(0)).errors[0]
                shown.append((sample, small[0].cpu(), reconstructed[0].cpu(), errors.cpu()))
        return shown

    def _unknown(self, files: list[Path], states: dict[Path, str]) -> Iterator[Path]:
        for file in files:
            state = state_of(file)
            if not self.ledger.has(self._name(file), state):
                states[file] = state
                yield file

    def _name(self, file: Path) -> str:
        return file.relative_to(self.folder).as_posix()

    def _score(self, batch: list[tuple[Path, Tensor | None]], states: dict[Path, str]) -> None:
        read = [(file, image) for file, image in batch if image is not None]
        rows = [Row(self._name(f), states.pop(f), None) for f, image in batch if image is None]
        threshold = self.dede.threshold
        if read:
            found = self.dede.inspect(torch.stack([image for _, image in read]))
            scores = self.dede.scores_of(found).tolist()
            embeddings = found.embeddings.cpu()
            for (file, _), score, embedding in zip(read, scores, embeddings, strict=True):
                # One that is not finite has no direction, and would hide that the others are alike.
                kept = embedding if score > threshold and embedding.isfinite().all() else None
                rows.append(Row(self._name(file), states.pop(file), score, kept))
        self.ledger.add(rows)

    def _report(self, top: int, passed_over: str) -> Samples:
        from encodercheck.scanning import versions

        threshold, held = self.dede.threshold, self.dede.known.held_back
        scores = self.dede.scores_of(held)
        screened, flagged = self.ledger.scored(), self.ledger.above(threshold)
        count = len(scores)
        place = max(1, int((scores <= threshold).sum()))
        rate = (count + 1 - place) / (count + 1)
        return Samples(
            model=self.encoder.describe(),
            folder=str(self.folder),
            clean=self.clean.describe(),
            settings=self.dede.settings,
            rate=rate,
            threshold=threshold,
            screened=screened,
            flagged=flagged,
            unreadable=tuple(self.ledger.unreadable()),
            passed_over=passed_over,
            expected=rate * screened,
            p_value=thresholds.excess_p_value(flagged, screened, calibrated=count, place=place),
            alike=_alike(self.ledger.embeddings(threshold)),
            clean_alike=float(collapse.mean_cosine(held.embeddings)),
            worst=tuple(self._samples(self.ledger.ranked(limit=top))),
            normal=tuple(self._samples(self.ledger.median(4))),
            seed=self.dede.settings.seed,
            device=str(self.encoder.device),
            versions=versions(),
            seconds=time.monotonic() - self.started,
        )

    def _samples(self, rows: Iterable[tuple[str, float]]) -> Iterator[Sample]:
        """Yield the samples behind files and scores, a batch of p-values at a time."""
        clean, threshold = self.dede.scores_of(self.dede.known.held_back).cpu(), self.dede.threshold
        rest = iter(rows)
        while batch := list(islice(rest, BATCH)):
            chances = thresholds.p_values(torch.tensor([score for _, score in batch]), clean)
            for (file, score), chance in zip(batch, chances.tolist(), strict=True):
                yield Sample(file, score, chance, score > threshold)


def prepare(
    encoder: Encoder,
    images: Path,
    *,
    clean: str | None = None,
    clean_images: int = CLEAN_IMAGES,
    settings: Settings | None = None,
    rate: float = 0.03,
    sigmas: float | None = None,
    fresh: bool = False,
    progress: Progress = silent,
) -> Screen:
    """Fit a decoder to clean images, or take it from the cache, and open the folder's ledger.

    ``clean`` is a folder, a data set as ``cifar10:DIR``, or None for the embedded generator;
    ``rate`` or else ``sigmas`` sets the threshold, see :class:`~encodercheck.methods.dede.Dede`;
    ``fresh`` forgets what an earlier screening measured.

    Raises:
        CheckInconclusive: embeddings are not finite, or say nothing about images.
        ConfigError: a setting cannot work.
        ImagesError: a folder is missing, or holds too few clean images.
        OutputError: the cache cannot be written.
    """
    settings = settings or Settings()
    if not images.is_dir():
        raise ImagesError(f"{images}: no such folder")
    _require_settings(settings, encoder.image_size, sigmas)
    further = Further(clean, clean_images, encoder.image_size, settings.seed, option="--clean ")
    further.require(FEWEST_CLEAN)
    # It takes them in parts.
    room.require_for(encoder, min(PART, clean_images))
    started = time.monotonic()
    try:
        dede = decoder_cache.fit(
            encoder, further, settings, rate=rate, sigmas=sigmas, progress=progress
        )
    except ValueError as error:
        if clean is not None:
            raise ImagesError(f"--clean {clean}: {error}") from error
        raise ConfigError(f"--rate {rate:g}: {error}") from error
    name = content_hash(
        {
            "decoder": decoder_cache.key(encoder, further, settings),
            # Tells apart encoders that no file stands behind.
            "clean": dede.known.held_back.relative.tolist(),
            "score": settings.score,
            "threshold": [rate, sigmas],
            "folder": str(images.absolute()),
        }
    )
    ledger = Ledger(cache_dir() / "samples" / f"{name}.sqlite", run=str(time.time_ns()))
    if fresh:
        ledger.forget()
    return Screen(encoder, images, further, dede, ledger, started)


def _require_settings(settings: Settings, image_size: int, sigmas: float | None) -> None:
    try:
        PatchGrid.of(image_size, patch=settings.patch)
    except ValueError as error:
        raise ConfigError(f"--patch {settings.patch}: {error}") from error
    if sigmas is not None and not math.isfinite(sigmas):
        raise ConfigError(f"--sigmas {sigmas}: must be a finite number")


def _json(value: Any) -> Any:
    """Return a value as JSON takes it, which knows no infinity and nothing that is no number."""
    if isinstance(value, dict):
        return {name: _json(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _batches(files: Iterator[Path], size: int) -> Iterator[list[tuple[Path, Tensor | None]]]:
    images = folder.read_all(files, size)
    while batch := list(islice(images, BATCH)):
        yield batch


def _alike(embeddings: Iterator[Tensor]) -> float:
    """Return the mean cosine over all pairs of unit vectors (D,); NaN for fewer than two.

    As :func:`collapse.mean_cosine`, from their sum, so that there may be any number.
    """
    total, squares, count = torch.zeros(()), 0.0, 0
    for unit in embeddings:
        total = total + unit.double()
        squares += float(unit.double().square().sum())
        count += 1
    if count < 2:
        return float("nan")
    return (float(total.square().sum()) - squares) / (count * (count - 1))
