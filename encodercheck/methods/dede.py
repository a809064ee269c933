"""DeDe: a decoder trained on clean embeddings cannot reconstruct the images that carry a trigger.

Hou, Li & Yao, CVPR 2025. The encoder, which is only called, sees the whole image x; a decoder D is
trained to reconstruct x from the embedding E(x) and the few patches left visible, on clean images
alone. What a backdoor maps elsewhere cannot be reconstructed from where it was mapped to:
``s(x) = |x - D(E(x), visible patches of x)|^2`` over the hidden patches is high.

>>> from encodercheck.images import procedural
>>> dede = Dede(torch.nn.Flatten()).fit(procedural.images(400, size=16, seed=1))
>>> flagged = dede.predict(procedural.images(8, size=16, seed=2))
>>> flagged.shape, flagged.dtype
(torch.Size([8]), torch.bool)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from encodercheck.errors import CheckInconclusive
from encodercheck.methods import collapse, reconstruction, thresholds
from encodercheck.methods.decoders import DECODERS
from encodercheck.methods.patches import PatchGrid
from encodercheck.methods.reconstruction import Reconstructor, Training
from encodercheck.progress import Progress, silent

# From images (N, 3, H, W) in [0, 1] to embeddings (N, D). No weights, no gradients.
Embed = Callable[[Tensor], Tensor]

SEES = ("whole", "masked")
SCORES = ("relative", "error")
# What a masked image shows in place of a hidden patch, to the encoder of the variant.
GREY = 0.5
# Transformers take smaller steps.
LEARNING_RATES = {"conv": 6e-3, "transformer": 2e-3}
# One clean image of so many is held back to set the threshold on.
HELD_BACK = 5
# Which of the rivals' reconstructions an image's own is compared with: one in twenty fits better.
# The very best of them tells an image's own less well from another's, the median less well still.
RIVAL = 0.05
# With fewer clean images a decoder learns too little to tell anything.
FEWEST_CLEAN = 300
# Of a clean image's rivals at most this part may fit better than its own reconstruction, or the
# embeddings say nothing; it would be a half.
MOST_BETTER = 0.3
# No error is less: a score may divide by it.
LEAST_ERROR = 1e-8
# Embeddings that vary by less than this part of their size do so by rounding.
LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class Settings:
    """How a decoder is trained and used.

    ``decoder`` is "conv" or "transformer", the published one. ``patch`` is a side in pixels, an
    eighth of the image where None. ``train_mask`` and ``test_mask`` are the parts of the patches
    that are hidden, the paper's best. With ``sees="masked"`` the encoder gets the masked image too,
    as a summary in circulation has it; that variant misses patch triggers. ``score`` is "error", as
    published, or "relative": the logarithm of that over the error of another clean image's
    reconstruction, one of the better, so that an image that is hard to reconstruct is not held
    against itself. Scores are means over ``passes`` masks, the same for every image.
    """

    decoder: str = "conv"
    patch: int | None = None
    train_mask: float = 0.9
    test_mask: float = 0.99
    sees: str = "whole"
    score: str = "relative"
    passes: int = 2
    epochs: int = 16
    batch: int = 128
    learning_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what there is not."""
        for value, known, what in (
            (self.decoder, tuple(DECODERS), "decoder"),
            (self.sees, SEES, "sees"),
            (self.score, SCORES, "score"),
        ):
            if value not in known:
                raise ValueError(f"{what} {value!r}: choose one of {', '.join(known)}")
        for ratio in (self.train_mask, self.test_mask):
            if not 0 < ratio < 1:
                raise ValueError(f"a mask ratio of {ratio}: must lie between 0 and 1")
        for count, what in (
            (self.patch, "patch"),
            (self.passes, "passes"),
            (self.epochs, "epochs"),
            (self.batch, "batch"),
        ):
            if count is not None and count < 1:
                raise ValueError(f"{what} {count}: must be 1 or more")

    @property
    def training(self) -> Training:
        """What of it the training of a decoder depends on."""
        rate = self.learning_rate or LEARNING_RATES[self.decoder]
        return Training(self.decoder, self.train_mask, self.epochs, self.batch, rate, self.seed)

    def test_masks(self, grid: PatchGrid) -> Tensor:
        """Return which patches are visible in each pass of a test, (passes, count)."""
        generator = torch.Generator().manual_seed(self.seed)
        return grid.visible(self.test_mask, self.passes, generator)


@dataclass(frozen=True)
class Inspection:
    """What a decoder makes of images.

    ``error`` and ``relative`` (N,) are the two scores, the higher the more suspicious; infinity for
    an embedding that is not finite. ``better`` (N,) is the part of its rivals, other clean images'
    reconstructions, that fit an image better than its own; ``errors`` (N, side, side) the mean
    squared error of each patch while it was hidden; ``embeddings`` are (N, D).
    """

    error: Tensor
    relative: Tensor
    better: Tensor
    errors: Tensor
    embeddings: Tensor


@dataclass(frozen=True)
class Fitted:
    """What fitting leaves: the decoder, and what it makes of clean images that were held back."""

    reconstructor: Reconstructor
    held_back: Inspection

    @property
    def better(self) -> float:
        """The part of the rivals that fit a clean image better than its own: the median."""
        return float(self.held_back.better.median())


@dataclass
class Dede:
    """A screen for images on their way into an encoder: ``fit``, ``score``, ``predict``.

    ``encoder`` is any callable from images (N, 3, H, W) in [0, 1] to embeddings (N, D). ``rate`` is
    the false-positive rate of the threshold, on images like those it is fitted to; with ``sigmas``
    the threshold is the paper's, mean + ``sigmas`` standard deviations.
    """

    encoder: Embed
    settings: Settings = field(default_factory=Settings)
    rate: float = 0.03
    sigmas: float | None = None
    fitted: Fitted | None = None

    def __post_init__(self) -> None:
        """Refuse a threshold that nothing would exceed."""
        if self.sigmas is not None and not math.isfinite(self.sigmas):
            raise ValueError(f"a threshold of {self.sigmas} sigmas: must be a finite number")

    def fit(self, images: Tensor | Iterable[Tensor], *, progress: Progress = silent) -> Dede:
        """Train the decoder on clean images; set the threshold on every fifth, which is held back.

        ``images`` are (N, 3, H, W) in [0, 1], or parts of that one after another, so that no more
        than one part need be in memory at its full size.

        Raises:
            CheckInconclusive: embeddings are not finite, or say nothing about images.
            ValueError: there are too few images for the threshold.
        """
        clean = _Clean(self.encoder, self.settings)
        for part in [images] if isinstance(images, Tensor) else images:
            clean.add(part)
        self.require_enough(clean.held_back)
        reconstructor = clean.train(progress)
        fitted = Fitted(reconstructor, clean.inspect(reconstructor))
        if not bool(fitted.held_back.error.isfinite().all()):
            raise CheckInconclusive("the embeddings are too large to be reconstructed from")
        if not fitted.better <= MOST_BETTER:
            raise CheckInconclusive(
                "embeddings say too little about images: reconstructions from other images' "
                "embeddings are as good; bring more images, or images of the kind this encoder "
                "was trained on"
            )
        self.fitted = fitted
        return self

    def require_enough(self, held_back: int) -> None:
        """Demand as many clean images that are ``held_back`` as the threshold takes.

        Raises:
            ValueError: there are too few.
        """
        try:
            thresholds.rank(held_back, self.rate)
        except ValueError as error:
            if not 0 < self.rate < 1:
                raise
            raise ValueError(
                f"{held_back} clean images are held back for the threshold, too few for a "
                f"false-positive rate of {self.rate:g}: bring "
                f"{HELD_BACK * thresholds.fewest(self.rate)} or more in all"
            ) from error

    def score(self, images: Tensor) -> Tensor:
        """Return the scores (N,) of images (N, 3, H, W) in [0, 1], the higher the more suspicious.

        An embedding that is not finite scores infinity.
        """
        return self.scores_of(self.inspect(images))

    def scores_of(self, inspected: Inspection) -> Tensor:
        """Return the scores (N,) that the settings ask for."""
        return inspected.error if self.settings.score == "error" else inspected.relative

    def predict(self, images: Tensor) -> Tensor:
        """Return which of images (N, 3, H, W) in [0, 1] are suspicious, (N,) of bool."""
        return self.score(images) > self.threshold

    @property
    def threshold(self) -> float:
        """The score above which an image is suspicious."""
        return self.threshold_of(self.scores_of(self.known.held_back))

    def threshold_of(self, scores: Tensor) -> float:
        """Return the threshold for other clean ``scores`` (N,) than those of fitting."""
        if self.sigmas is not None:
            return thresholds.sigma_threshold(scores, self.sigmas)
        return thresholds.quantile_threshold(scores, self.rate)

    @property
    def grid(self) -> PatchGrid:
        """The patches that images are cut into."""
        return self.known.reconstructor.grid

    def inspect(
        self, images: Tensor, *, patches: Tensor | None = None, shown: Tensor | None = None
    ) -> Inspection:
        """Return what the decoder makes of images (N, 3, H, W) in [0, 1].

        Only ``patches`` (count,), of 0 and 1, count where they are given. With other images
        ``shown``, the decoder sees patches of those, and is to reconstruct them.
        """
        reconstructor = self.known.reconstructor
        seen = _see(self.encoder, self.settings, self.grid, images)
        shown = images if shown is None else shown
        small = self.grid.shrink(shown.to(reconstructor.centre.device))
        return _inspect(reconstructor, self.settings, seen, small, patches)

    def reconstruct(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (N, 3, H, W) at the decoded size, (N, 3, P, P), and reconstructed."""
        reconstructor = self.known.reconstructor
        seen = _see(self.encoder, self.settings, self.grid, images)
        small = self.grid.shrink(images.to(reconstructor.centre.device))
        masks = torch.split(self.settings.test_masks(self.grid).to(small.device), 1)
        decoded = [reconstructor.decode(z, small, m) for z, m in zip(seen, masks, strict=True)]
        return small, torch.stack(decoded).mean(0).clamp(0, 1)

    @property
    def known(self) -> Fitted:
        """What fitting left.

        Raises:
            ValueError: it has not been fitted.
        """
        if self.fitted is None:
            raise ValueError("fit it to clean images first")
        return self.fitted


class _Clean:
    """Clean images, embedded as they come: what a decoder is trained on, and what is held back."""

    def __init__(self, encoder: Embed, settings: Settings) -> None:
        self._encoder, self._settings = encoder, settings
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._seen = 0
        self._grid: PatchGrid | None = None
        self._train: list[tuple[Tensor, Tensor, Tensor]] = []
        self._held: list[tuple[list[Tensor], Tensor]] = []

    @property
    def held_back(self) -> int:
        """How many images are held back."""
        return self._seen // HELD_BACK

    def add(self, images: Tensor) -> None:
        """Take images (N, 3, H, W)."""
        self._grid = self._grid or PatchGrid.of(images.shape[-1], patch=self._settings.patch)
        number = torch.arange(self._seen + 1, self._seen + len(images) + 1)
        held = number % HELD_BACK == 0
        self._seen += len(images)
        if held.any():
            seen = _see(self._encoder, self._settings, self._grid, images[held])
            self._held.append((seen, self._grid.shrink(images[held].to(seen[0].device))))
        if not held.all():
            self._keep_for_training(images[~held], self._grid)

    def _keep_for_training(self, images: Tensor, grid: PatchGrid) -> None:
        visible = grid.visible(self._settings.train_mask, len(images), self._generator)
        shown = images if self._settings.sees == "whole" else _hide(grid, images, visible)
        embeddings = collapse.require_finite(_embed(self._encoder, shown))
        self._train.append((embeddings, grid.shrink(images.to(embeddings.device)), visible))

    def train(self, progress: Progress) -> Reconstructor:
        """Train the decoder."""
        assert self._grid is not None  # or there were too few images
        embeddings, small, visible = (torch.cat(parts) for parts in zip(*self._train, strict=True))
        _require_spread(embeddings)
        # The encoder of the variant has seen these very patches and no others.
        fixed = visible if self._settings.sees == "masked" else None
        return reconstruction.train(
            self._grid,
            embeddings,
            small,
            self._settings.training,
            visible=fixed,
            progress=progress,
        )

    def inspect(self, reconstructor: Reconstructor) -> Inspection:
        """Return what the decoder makes of the images that were held back."""
        seen = [torch.cat(zs) for zs in zip(*(zs for zs, _ in self._held), strict=True)]
        small = torch.cat([images for _, images in self._held])
        for embeddings in seen:
            collapse.require_finite(embeddings)
        return _inspect(reconstructor, self._settings, seen, small)


def _see(encoder: Embed, settings: Settings, grid: PatchGrid, images: Tensor) -> list[Tensor]:
    """Return the embeddings (N, D) that belong to each pass of a test."""
    if settings.sees == "whole":
        return [_embed(encoder, images)] * settings.passes
    return [
        _embed(encoder, _hide(grid, images, mask))
        for mask in torch.split(settings.test_masks(grid), 1)
    ]


@torch.no_grad()
def _embed(encoder: Embed, images: Tensor) -> Tensor:
    """Return embeddings (N, D), float32 whatever the encoder's own, that carry no gradient."""
    return encoder(images).float()


def _hide(grid: PatchGrid, images: Tensor, visible: Tensor) -> Tensor:
    """Return images (N, 3, H, W) with all patches grey that are not ``visible`` (N, count)."""
    small = visible.view(-1, 1, grid.side, grid.side).to(images.device)
    shown = functional.interpolate(small, images.shape[-2:])
    return images * shown + GREY * (1 - shown)


def _inspect(
    reconstructor: Reconstructor,
    settings: Settings,
    seen: list[Tensor],
    small: Tensor,
    patches: Tensor | None = None,
) -> Inspection:
    grid = reconstructor.grid
    counted = torch.ones(grid.count) if patches is None else patches
    counted = counted.to(small.device)
    masks = settings.test_masks(grid).to(small.device)
    passes = [
        reconstructor.errors(z, small, m) for z, m in zip(seen, torch.split(masks, 1), strict=True)
    ]
    errors = torch.stack(passes).sum(0)
    hidden = (1 - masks).sum(0)
    weights = hidden * counted
    error = (errors * counted).sum(1) / weights.sum()
    rivals = reconstructor.rival_errors(small, weights)
    # In parts: torch takes no quantiles of more than 2**24 numbers.
    parts = torch.split(rivals, reconstruction.TOGETHER)
    rival = torch.cat([part.quantile(RIVAL, dim=1) for part in parts])
    relative = torch.log(error.clamp_min(LEAST_ERROR) / rival.clamp_min(LEAST_ERROR))
    # Finite embeddings may still be so large that the decoder overflows.
    finite = torch.stack([z.isfinite().all(1) for z in seen]).all(0) & error.isfinite()
    return Inspection(
        error=torch.where(finite, error, torch.inf),
        relative=torch.where(finite, relative, torch.inf),
        better=(rivals < error.unsqueeze(1)).float().mean(1),
        errors=(errors / hidden.clamp_min(1)).view(-1, grid.side, grid.side),
        embeddings=seen[0],
    )


def _require_spread(embeddings: Tensor) -> None:
    spread, size = float(embeddings.std(0).mean()), float(embeddings.abs().mean())
    if not math.isfinite(spread + size):
        raise CheckInconclusive("the embeddings are too large to be reconstructed from")
    if not spread > LEAST_SPREAD * size:
        raise CheckInconclusive("the embeddings are the same for every image (EC101 says more)")
