"""How alike embeddings are: mean cosine, effective rank, uniformity, and the gain of a trigger.

A backdoored encoder maps every stamped image close to one target. All functions here are pure and
differentiable, and leave leading dimensions alone: embeddings are (..., N, D).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.errors import CheckInconclusive
from encodercheck.methods.whitening import Whitening, double
from encodercheck.trigger import Trigger

# Clean embeddings that differ by less than this part of their length do so by rounding.
LEAST_SPREAD = 1e-5
# Above this mean cosine a constant outweighs what differs between images. The gain then compares
# lengths where it should compare directions. Hardly an encoder of the reference bank is above it.
MOST_SHARED = 0.999
# Of the directions that embeddings span with every channel scaled alike, at least this part is left
# as they are. Of 120 trained encoders the least was 0.55.
LEAST_BALANCE = 0.15
# The contrast at which a trigger that was found at full contrast is measured again.
HALF_CONTRAST = 0.5
# Pixels of clean images that vary by less than this from image to image, of 1, show one image.
ALIKE_PIXELS = 0.02


def unit(embeddings: Tensor) -> Tensor:
    """Return embeddings (..., N, D) scaled to length one, in double precision.

    Each is divided by its own largest magnitude first, so that none is too long or too short to
    square. One that is zero stays zero.
    """
    wide = double(embeddings)
    tiny = torch.finfo(wide.dtype).tiny
    wide = wide / wide.detach().abs().amax(-1, keepdim=True).clamp_min(tiny)
    directions: Tensor = wide / wide.norm(dim=-1, keepdim=True).clamp_min(tiny)
    return directions


def mean_cosine(embeddings: Tensor) -> Tensor:
    """Return the mean cosine over all pairs i != j, (...), in [-1, 1], in double precision.

    The unit vectors' sum s gives it without the N x N matrix: ``(|s|^2 - N) / (N (N - 1))``.
    This is the first term of DECREE's loss (Feng et al., CVPR 2023, equation 3).

    Raises:
        ValueError: fewer than two embeddings.
    """
    count = embeddings.shape[-2]
    if count < 2:
        raise ValueError("a mean cosine takes at least two embeddings")
    directions = unit(embeddings)
    total = directions.sum(-2).square().sum(-1)
    return (total - directions.square().sum((-2, -1))) / (count * (count - 1))


def centred(embeddings: Tensor) -> Tensor:
    """Return unit embeddings (..., N, D) with their mean taken off, in double precision.

    A constant that is added to all embeddings, which any linear head undoes, is gone.
    """
    directions = unit(embeddings)
    return directions - directions.mean(-2, keepdim=True)


def effective_rank(embeddings: Tensor) -> Tensor:
    """Return how many directions the embeddings span, (...), in [1, min(N, D)].

    RankMe (Garrido et al., ICML 2023, equation 1): the exponential of the entropy of the
    normalised singular values.
    """
    # On the CPU: there is no such decomposition on MPS, and this one is small.
    values = torch.linalg.svdvals(embeddings.cpu().double())
    values = values / values.amax(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    shares = values / values.sum(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    entropy: Tensor = torch.special.entr(shares).sum(-1)
    return entropy.exp()


def uniformity(embeddings: Tensor, t: float = 2.0) -> Tensor:
    """Return the log of the mean Gaussian potential over pairs, (...), at most 0.

    Wang & Isola, ICML 2020, equation 2, on unit vectors; 0 means that all embeddings are one.
    """
    directions = unit(embeddings)
    count = directions.shape[-2]
    first, second = torch.triu_indices(count, count, offset=1, device=directions.device)
    cosines = (directions @ directions.transpose(-1, -2))[..., first, second]
    return torch.logsumexp(-t * (2 - 2 * cosines), -1) - math.log(len(first))


def gain(cosine: Tensor | float, base: Tensor | float) -> Tensor | float:
    """Return which part of the way from ``base`` to 1 a mean cosine has gone; 1 is full collapse.

    ``(cosine - base) / (1 - base)``. Raw cosines do not compare across encoders whose clean
    embeddings already lie in a narrow cone; the gain does better.
    """
    return (cosine - base) / (1 - base)


def finite_embeddings(encoder: Encoder, images: Tensor) -> Tensor:
    """Return the embeddings (N, D) of images (N, 3, H, W) in [0, 1].

    Raises:
        CheckInconclusive: an embedding is not finite.
    """
    return require_finite(encoder(images))


def require_finite(embeddings: Tensor) -> Tensor:
    """Return ``embeddings``, of any shape, as they are.

    Raises:
        CheckInconclusive: one of them is not finite.
    """
    if not bool(embeddings.isfinite().all()):
        raise CheckInconclusive("the embeddings are not finite (EC001 says more)")
    return embeddings


def relative_spread(mean: float) -> float:
    """Return by how much of their length embeddings of this mean cosine differ: sqrt(1 - mean)."""
    return math.sqrt(max(0.0, 1 - mean))


def require_spread(mean: float, count: int) -> None:
    """Demand that ``count`` unstamped images are told apart by the directions of their embeddings.

    Raises:
        CheckInconclusive: they differ by less than 1e-5 of their length, or what they share
            outweighs what differs: their mean cosine is above 0.999.
    """
    if not relative_spread(mean) > LEAST_SPREAD:
        raise CheckInconclusive(
            f"unstamped embeddings of {count} images are all the same within rounding (mean cosine "
            f"{mean:.10f}): bring images of the kind this encoder was trained on, with --images"
        )
    if mean > MOST_SHARED:
        raise CheckInconclusive(
            f"a constant that unstamped embeddings share outweighs what differs between {count} "
            f"images (mean cosine {mean:.6f}): scan the encoder without it, or bring more diverse "
            "images, with --images"
        )


def require_balance(embeddings: Tensor) -> None:
    """Demand that no channel outweighs all others: beside it no trigger could be seen to work.

    Raises:
        CheckInconclusive: embeddings (N, D) span far fewer directions than with channels scaled.
    """
    wide = double(embeddings)
    spread = wide.std(0)
    scaled = (wide - wide.mean(0)) / spread.clamp_min(1e-12 * spread.max().clamp_min(1e-300))
    left = float(effective_rank(centred(embeddings)) / effective_rank(scaled))
    if left < LEAST_BALANCE:
        raise CheckInconclusive(
            f"one channel of the embeddings outweighs all others (they span {left:.2g} of the "
            "directions that they would with channels scaled alike): scan the encoder without it"
        )


def require_diverse(images: Tensor) -> None:
    """Demand that clean images (N, 3, H, W) in [0, 1] differ: else any trigger makes them alike.

    Raises:
        CheckInconclusive: their pixels vary by less than 0.02.
    """
    if images.std(0).mean() < ALIKE_PIXELS:
        raise CheckInconclusive("the images are all alike: bring diverse ones, with --images")


def require_gradients(encoder: Encoder) -> None:
    """Demand that a search can follow the encoder's gradients; ask before anything costly.

    Raises:
        CheckInconclusive: it is a black box.
    """
    if not encoder.differentiable:
        raise CheckInconclusive(
            "a black box has no gradients to search triggers by: scan its weights to decide this"
        )


@dataclass(frozen=True)
class Clean:
    """How an encoder embeds clean images: what stamped ones are held against.

    ``base`` is the mean cosine of their embeddings and ``whitened_base`` that of the whitened ones;
    ``centre`` (D,) is the mean of their unit embeddings, in double precision.
    """

    base: float
    centre: Tensor
    whitening: Whitening
    whitened_base: float

    @classmethod
    def of(cls, encoder: Encoder, images: Tensor, *, fitted_on: Tensor | None = None) -> Clean:
        """Measure images (N, 3, H, W) in [0, 1]; axes are fitted on ``fitted_on`` (M, 3, H, W).

        Raises:
            CheckInconclusive: an embedding is not finite, all are the same within rounding, or the
                images are all alike.
        """
        require_diverse(images)
        embeddings = finite_embeddings(encoder, images)
        base = float(mean_cosine(embeddings))
        require_spread(base, len(images))
        require_balance(embeddings)
        others = embeddings if fitted_on is None else finite_embeddings(encoder, fitted_on)
        whitening = Whitening.of(others)
        centre = unit(embeddings).mean(0)
        return cls(base, centre, whitening, float(mean_cosine(whitening(embeddings))))

    def gain(self, embeddings: Tensor) -> Tensor:
        """Return the gain (...) of stamped embeddings (..., N, D), see :func:`gain`."""
        return (mean_cosine(embeddings) - self.base) / (1 - self.base)

    def whitened_gain(self, embeddings: Tensor) -> Tensor:
        """Return the gain (...) of stamped embeddings (..., N, D) on the whitened axes."""
        whitened = mean_cosine(self.whitening(embeddings))
        return (whitened - self.whitened_base) / (1 - self.whitened_base)


def base_cosine(encoder: Encoder, images: Tensor) -> float:
    """Return the mean cosine of unstamped images (N, 3, H, W): the level a trigger starts from.

    Raises:
        CheckInconclusive: an embedding is not finite, or all are the same within rounding.
    """
    require_diverse(images)
    embeddings = finite_embeddings(encoder, images)
    base = float(mean_cosine(embeddings))
    require_spread(base, len(images))
    require_balance(embeddings)
    return base


def stamped_embeddings(
    encoder: Encoder, triggers: Sequence[Trigger], images: Tensor
) -> Iterator[Tensor]:
    """Yield the embeddings (T, N, D) of images (N, 3, H, W) in [0, 1] under groups of triggers.

    As many triggers share a pass through the encoder as its batch size allows.
    """
    images = images.to(encoder.device)
    together = max(1, encoder.batch_size // len(images))
    for start in range(0, len(triggers), together):
        group = triggers[start : start + together]
        stamped = torch.cat([trigger.stamp(images) for trigger in group])
        yield encoder(stamped).view(len(group), len(images), -1)


def stamped_cosines(encoder: Encoder, triggers: Sequence[Trigger], images: Tensor) -> list[float]:
    """Return the mean cosine of images (N, 3, H, W) in [0, 1] under each of the triggers."""
    cosines: list[float] = []
    for embeddings in stamped_embeddings(encoder, triggers, images):
        cosines += mean_cosine(embeddings).tolist()
    return cosines


def stamped_gains(
    encoder: Encoder, clean: Clean, triggers: Sequence[Trigger], images: Tensor
) -> tuple[list[float], list[float]]:
    """Return the gain and the whitened gain of images (N, 3, H, W) under each of the triggers."""
    gains: list[float] = []
    whitened: list[float] = []
    for embeddings in stamped_embeddings(encoder, triggers, images):
        gains += clean.gain(embeddings).tolist()
        whitened += clean.whitened_gain(embeddings).tolist()
    return gains, whitened


def scores(
    encoder: Encoder, clean: Clean, triggers: Sequence[Trigger], images: Tensor
) -> list[float]:
    """Return the mean of the two gains of images (N, 3, H, W) under each of the triggers.

    A backdoor takes embeddings to one point by either measure; what is fitted to one of them goes
    less far by the other.
    """
    pairs = zip(*stamped_gains(encoder, clean, triggers, images), strict=True)
    return [(gain + whitened) / 2 for gain, whitened in pairs]


def stamped_cosine(encoder: Encoder, trigger: Trigger, images: Tensor) -> float:
    """Return the mean cosine of images (N, 3, H, W) in [0, 1] with the trigger stamped on them."""
    return stamped_cosines(encoder, [trigger], images)[0]


@dataclass(frozen=True)
class Collapse:
    """How alike a trigger makes held-out images: mean cosine with and without it, and gains."""

    cosine: float
    base: float
    gain: float
    whitened_gain: float

    @property
    def joint_gain(self) -> float:
        """The smaller gain: what collapses embeddings by one measure only is no backdoor."""
        return min(self.gain, self.whitened_gain)


def under(encoder: Encoder, trigger: Trigger, images: Tensor, clean: Clean) -> Collapse:
    """Measure what a trigger does to held-out images (N, 3, H, W) in [0, 1].

    ``clean`` is how the encoder embeds the same images unstamped.
    """
    (stamped,) = stamped_embeddings(encoder, [trigger], images)
    cosine, gain, whitened = (
        float(measured)
        for measured in (mean_cosine(stamped), clean.gain(stamped), clean.whitened_gain(stamped))
    )
    return Collapse(cosine, clean.base, gain, whitened)
