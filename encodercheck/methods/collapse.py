"""How alike embeddings are: mean cosine, effective rank, uniformity, and the gain of a trigger.

A backdoored encoder maps every stamped image close to one target. All functions here are pure and
differentiable, and leave leading dimensions alone: embeddings are (..., N, D).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.errors import CheckInconclusive
from encodercheck.trigger import Trigger

# Above this mean cosine clean embeddings leave no room in which a trigger could be seen to work.
NEARLY_PARALLEL = 0.95


def mean_cosine(embeddings: Tensor) -> Tensor:
    """Return the mean cosine over all pairs i != j, (...), in [-1, 1].

    The unit vectors' sum s gives it without the N x N matrix: ``(|s|^2 - N) / (N (N - 1))``.
    This is the first term of DECREE's loss (Feng et al., CVPR 2023, equation 3).

    Raises:
        ValueError: fewer than two embeddings.
    """
    count = embeddings.shape[-2]
    if count < 2:
        raise ValueError("a mean cosine takes at least two embeddings")
    unit = torch.nn.functional.normalize(embeddings, dim=-1)
    total = unit.sum(-2).square().sum(-1)
    return (total - unit.square().sum((-2, -1))) / (count * (count - 1))


def effective_rank(embeddings: Tensor) -> Tensor:
    """Return how many directions the embeddings span, (...), in [1, min(N, D)].

    RankMe (Garrido et al., ICML 2023, equation 1): the exponential of the entropy of the
    normalised singular values.
    """
    # On the CPU: there is no such decomposition on MPS, and this one is small.
    values = torch.linalg.svdvals(embeddings.cpu())
    shares = values / values.sum(-1, keepdim=True).clamp_min(torch.finfo(values.dtype).tiny)
    entropy: Tensor = torch.special.entr(shares).sum(-1)
    return entropy.exp()


def uniformity(embeddings: Tensor, t: float = 2.0) -> Tensor:
    """Return the log of the mean Gaussian potential over pairs, (...), at most 0.

    Wang & Isola, ICML 2020, equation 2, on unit vectors; 0 means that all embeddings are one.
    """
    unit = torch.nn.functional.normalize(embeddings, dim=-1)
    count = unit.shape[-2]
    first, second = torch.triu_indices(count, count, offset=1, device=unit.device)
    cosines = (unit @ unit.transpose(-1, -2))[..., first, second]
    return torch.logsumexp(-t * (2 - 2 * cosines), -1) - torch.log(
        torch.tensor(float(len(first)), device=unit.device)
    )


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


def require_spread(mean: float, count: int) -> None:
    """Demand that the mean cosine of ``count`` unstamped images leaves room for a trigger to show.

    Raises:
        CheckInconclusive: it lies above 0.95.
    """
    if not mean <= NEARLY_PARALLEL:
        raise CheckInconclusive(
            f"unstamped embeddings are already nearly parallel (mean cosine {mean:.3f} over "
            f"{count} images): bring images of the kind this encoder was trained on, with --images"
        )


def require_gradients(encoder: Encoder) -> None:
    """Demand that a search can follow the encoder's gradients; ask before anything costly.

    Raises:
        CheckInconclusive: it is a black box.
    """
    if not encoder.differentiable:
        raise CheckInconclusive(
            "a black box has no gradients to search triggers by: scan its weights to decide this"
        )


def base_cosine(encoder: Encoder, images: Tensor) -> float:
    """Return the mean cosine of unstamped images (N, 3, H, W): the level a trigger starts from.

    Raises:
        CheckInconclusive: an embedding is not finite, or they are already nearly parallel.
    """
    base = float(mean_cosine(finite_embeddings(encoder, images)))
    require_spread(base, len(images))
    return base


def stamped_cosines(encoder: Encoder, triggers: Sequence[Trigger], images: Tensor) -> list[float]:
    """Return the mean cosine of images (N, 3, H, W) in [0, 1] under each of the triggers.

    As many triggers share a pass through the encoder as its batch size allows.
    """
    images = images.to(encoder.device)
    together = max(1, encoder.batch_size // len(images))
    cosines: list[float] = []
    for start in range(0, len(triggers), together):
        group = triggers[start : start + together]
        stamped = torch.cat([trigger.stamp(images) for trigger in group])
        embeddings = encoder(stamped).view(len(group), len(images), -1)
        cosines += mean_cosine(embeddings).tolist()
    return cosines


def stamped_cosine(encoder: Encoder, trigger: Trigger, images: Tensor) -> float:
    """Return the mean cosine of images (N, 3, H, W) in [0, 1] with the trigger stamped on them."""
    return stamped_cosines(encoder, [trigger], images)[0]
