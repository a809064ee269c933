"""Recognition: the small trigger under which an image's embedding tells least of that image.

Searches for alike embeddings miss an attack that keeps stamped embeddings as spread as clean ones:
DRUPE (Tao et al., *Distribution Preserving Backdoor Attack in Self-supervised Learning*, IEEE S&P
2024) sends every stamped image to one of several places, far apart. What no backdoor can keep is
the link between an image and its embedding: it goes where the attacker wants and not where the
image belongs.

That a stamped image is no longer nearest to its own clean embedding, the accuracy that InfoNCE
counts (van den Oord et al., 2018, https://arxiv.org/abs/1807.03748), tells nothing: an adversarial
patch does that to clean encoders too. It moves all embeddings by much the same step, so that their
differences still tell the images apart; a backdoor erases these. Hence *forgetting*: 1 less the
part of the embeddings' variation that is still the images' own when the step is taken off.

All embeddings are (..., N, D). Spaces and scores are in double precision on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from encodercheck.encoder import Encoder
from encodercheck.errors import CheckInconclusive
from encodercheck.images.split import CleanSplit
from encodercheck.methods import battery, collapse
from encodercheck.methods.ascent import Objective
from encodercheck.methods.battery import Hit
from encodercheck.methods.crops import Goal, Search, climb
from encodercheck.methods.families import Family, boxes
from encodercheck.methods.inversion import BUDGET, best_places, patches
from encodercheck.profiles import Profile
from encodercheck.progress import Progress, silent
from encodercheck.trigger import Trigger

# Directions of a twentieth of the largest variance count half: those of few images are noise.
SHRINKAGE = 0.05
LEAST_VARIANCE = 1e-8
# Twice the images of the other searches' steps: a covariance takes more than a mean does.
BATCHES = 2
# The best restarts by their last batches are put in order on this many search images.
FINALISTS = 4
RANKING_IMAGES = 64


@dataclass(frozen=True)
class Space:
    """Where embeddings are compared: there clean ones are white.

    Unit vectors, the clean mean ``centre`` (D,) taken off, times ``axes`` (D, K). Factors, an
    image's own among them, and rotations make no difference, nor does a dominant component. Where
    ``centred``, the mean is taken off first, and the white vectors are those of length 1: then a
    constant added to all embeddings makes no difference either, but clean encoders come closer to
    backdoored ones. ``magnitude`` is what embeddings are divided by before anything.
    """

    magnitude: Tensor
    centre: Tensor
    axes: Tensor
    centred: bool = False

    @classmethod
    def of(cls, embeddings: Tensor, *, centred: bool = False) -> Space:
        """Return the space in which these embeddings (N, D) of clean images are white.

        Raises:
            CheckInconclusive: they are not finite, or all one.
        """
        exact = collapse.require_finite(embeddings).detach().cpu().double()
        magnitude = exact.abs().max().clamp_min(torch.finfo(exact.dtype).tiny)
        exact = exact / magnitude if centred else functional.normalize(exact / magnitude, dim=1)
        centre = exact.mean(0)
        _, lengths, axes = torch.linalg.svd(exact - centre, full_matrices=False)
        variances = lengths.square() / len(exact)
        if not float(variances[0]) > collapse.LEAST_SPREAD**2:
            raise CheckInconclusive("the images' embeddings are all one (EC101 says more)")
        kept = variances > LEAST_VARIANCE * variances[0]
        scales = (variances[kept] + SHRINKAGE * variances[0]).sqrt()
        return cls(magnitude, centre, axes[kept].T / scales, centred)

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Return where embeddings (..., N, D) lie, (..., N, K); gradients flow through."""
        exact = embeddings.cpu().double() / self.magnitude
        exact = exact if self.centred else functional.normalize(exact, dim=-1)
        white = (exact - self.centre) @ self.axes
        return functional.normalize(white, dim=-1) if self.centred else white


def remembered(stamped: Tensor, clean: Tensor) -> Tensor:
    """Return which part of the variation of ``clean`` (..., N, K) ``stamped`` ones share, (...).

    It is the trace of their covariance over that of ``clean``'s own, each with its mean taken off:
    1 for the same embeddings, moved by a step or not, 0 for others that have nothing to do with the
    images, be they all one or as spread as clean ones. Hardly ever above 1 or below 0.
    """
    if clean.shape[-2] < 2:
        raise ValueError("what is remembered of images takes at least two of them")
    own = clean - clean.mean(-2, keepdim=True)
    least = torch.finfo(clean.dtype).tiny
    return (stamped * own).sum((-2, -1)) / own.square().sum((-2, -1)).clamp_min(least)


def recognised(stamped: Tensor, clean: Tensor) -> float:
    """Return the part of ``stamped`` (N, K) that are nearest to their own of ``clean`` (N, K).

    Nearest by cosine, in [0, 1].
    """
    one, other = (functional.normalize(white, dim=1) for white in (stamped, clean))
    nearest = (one @ other.T).argmax(1)
    return float((nearest == torch.arange(len(nearest))).double().mean())


@dataclass(frozen=True)
class Recognition:
    """What a trigger leaves of images' embeddings.

    ``forgotten`` is 1 less what is :func:`remembered`, at most 1, and ``forgotten_centred`` the
    same in a centred space; ``recognised`` is the part of the images that stay nearest to their own
    clean embeddings, in [0, 1].
    """

    forgotten: float
    forgotten_centred: float
    recognised: float


def recognition(encoder: Encoder, trigger: Trigger, split: CleanSplit) -> Recognition:
    """Measure on the held-out images what ``trigger`` leaves; the search images are the yardstick.

    Raises:
        CheckInconclusive: embeddings are not finite, or those of clean images are all one.
    """
    encoder = encoder.folded()
    yardstick = encoder(split.search)
    clean = collapse.finite_embeddings(encoder, split.held_out)
    stamped = collapse.finite_embeddings(encoder, trigger.stamp(split.held_out))
    own, centred = Space.of(yardstick), Space.of(yardstick, centred=True)
    return Recognition(
        forgotten=min(1 - float(remembered(own(stamped), own(clean))), 1.0),
        forgotten_centred=min(1 - float(remembered(centred(stamped), centred(clean))), 1.0),
        recognised=recognised(own(stamped), own(clean)),
    )


@dataclass(frozen=True)
class Forgetting:
    """What a search found; ``scores`` are what the best ``candidates`` make the encoder forget.

    Best first, on some of the search images. ``trace`` holds the best score of every step, and
    ``ended`` is "found" or "exhausted".
    """

    candidates: tuple[Trigger, ...]
    scores: tuple[float, ...]
    trace: tuple[float, ...]
    ended: str

    @property
    def trigger(self) -> Trigger:
        """The candidate under which most is forgotten."""
        return self.candidates[0]


def forget(
    encoder: Encoder,
    images: Tensor,
    *,
    profile: Profile,
    seed: int = 0,
    limit: float | None = None,
    progress: Progress = silent,
) -> Forgetting:
    """Search the rectangle on 3 % of the image that makes the encoder forget most of an image.

    ``images`` are (N, 3, H, W) in [0, 1]. Half of the restarts begin at the battery's patches under
    which most is forgotten: these are not those that make embeddings most alike. With a ``limit``
    the search ends as soon as what is forgotten lies far beyond it; it never gives up.

    Raises:
        CheckInconclusive: the images' embeddings are not finite, or nearly parallel unstamped, or
            the encoder is a black box.
    """
    collapse.require_gradients(encoder)
    encoder = encoder.folded()
    images = images.to(encoder.device)
    collapse.base_cosine(encoder, images)
    space = Space.of(encoder(images))
    batch, count = BATCHES * profile.batch, max(2, profile.restarts * 2 // 3)
    area = BUDGET * encoder.image_size**2

    def space_of(on: Encoder, embedded: Tensor) -> Space:
        # Whole images are embedded once.
        return space if on is encoder else Space.of(on(embedded))

    def start(on: Encoder, embedded: Tensor, generator: torch.Generator) -> Family:
        hits = sift(on, space_of(on, embedded), embedded[:batch], seed=seed)
        warm = best_places(hits, count // 2)
        return patches(boxes, warm, count, area)(on, embedded, generator)

    def goal(on: Encoder, embedded: Tensor) -> Goal:
        return _goal(on, space_of(on, embedded))

    search = Search(goal, start, profile.steps, batch, limit, patient=True)
    generator = torch.Generator().manual_seed(seed)
    climbed = climb(encoder, images, search, generator=generator, progress=progress)
    best = climbed.lately.topk(min(FINALISTS, len(climbed.family))).indices
    finalists = climbed.family.chosen(best).triggers()
    candidates, scores = _ranked(encoder, space, finalists, images[:RANKING_IMAGES])
    return Forgetting(candidates, scores, climbed.trace, climbed.ended)


def _goal(encoder: Encoder, space: Space) -> Goal:
    """Return the goal of making an encoder forget what is on images, as ``space`` tells them."""
    return Goal(
        about=forgotten(encoder, space),
        scores=lambda triggers, few: _scores(encoder, space, triggers, few),
    )


def forgotten(encoder: Encoder, space: Space) -> Callable[[Tensor], Objective]:
    """Return what makes, of images (N, 3, H, W), the score of how much of them is forgotten."""

    def about(images: Tensor) -> Objective:
        clean = space(encoder(images))

        def score(embeddings: Tensor, which: slice) -> Tensor:
            return 1 - remembered(space(embeddings), clean)

        return score

    return about


def sift(encoder: Encoder, space: Space, images: Tensor, *, seed: int) -> list[Hit]:
    """Return the battery's patches, those first under which most of ``images`` is forgotten.

    A hit's ``score`` is here what the patch makes the encoder forget.
    """
    found = [t for t in battery.triggers(encoder.image_size, seed=seed) if not t.additive]
    candidates, scores = _ranked(encoder, space, found, images)
    return [Hit(*pair) for pair in zip(candidates, scores, strict=True)]


def _ranked(
    encoder: Encoder, space: Space, triggers: list[Trigger], images: Tensor
) -> tuple[tuple[Trigger, ...], tuple[float, ...]]:
    """Return the triggers by what they make the encoder forget of ``images``, most first."""
    scores = _scores(encoder, space, triggers, images)
    order = sorted(range(len(triggers)), key=lambda i: -scores[i])
    return tuple(triggers[i] for i in order), tuple(scores[i] for i in order)


def _scores(
    encoder: Encoder, space: Space, triggers: Sequence[Trigger], images: Tensor
) -> list[float]:
    """Return how much of ``images`` each of the triggers makes the encoder forget."""
    clean = space(encoder(images))
    return [
        1 - float(remembered(space(encoder(trigger.stamp(images))), clean)) for trigger in triggers
    ]
