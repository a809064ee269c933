"""Budget inversion: the trigger of at most 3 % of the image that makes embeddings most alike.

Where DECREE (Feng et al., CVPR 2023) looks for the smallest mask at a fixed cosine, this fixes the
mask's L1 size and maximises how alike embeddings are. There is no balance to tune between two
losses, so that few steps suffice and many restarts are affordable. Rectangles are searched first:
what attackers stamp is usually one, and a search that moves a whole rectangle finds it in a few
steps where one over free pixels, which comes next, may need hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.methods import battery, collapse
from encodercheck.methods.ascent import Objective
from encodercheck.methods.battery import Hit
from encodercheck.methods.collapse import Clean
from encodercheck.methods.crops import Goal, Search, Start, climb
from encodercheck.methods.families import Additive, Blend, Family, boxes, pixel_masks
from encodercheck.profiles import Profile
from encodercheck.progress import Progress, silent
from encodercheck.trigger import Trigger

# The mask's L1 size, as a part of its maximum. 1.5 % loses large triggers.
BUDGET = 0.03
# A quarter of the image as trigger leaves too little of itself within 3 %, and enough within this.
LARGE_BUDGET = 0.12
# What a faint trigger may change: CTRL and its like stay below 16/255, blending below a fifth.
ADDITIVE_BOUND = 16 / 255
BLEND_STRENGTH = 0.2
FAINT_RESTARTS = 4
# What the candidates are put in order on.
RANKING_IMAGES = 16
# So many of them are put in order once more, by what they do at half contrast, if they score nearly
# as high as the best: a trigger that has no effect at half contrast is not to be lost.
FINALISTS = 3
NEARLY = 0.1
# A search over several families ends as the one that came furthest.
ENDS = ("found", "exhausted", "hopeless")


@dataclass(frozen=True)
class Inversion:
    """What a search found, one candidate for each restart, best first.

    ``scores`` are on some of the search images: the mean of the two gains, see
    :func:`collapse.scores`. Of patches, up to three that score nearly as high as the best are put
    in order by their gain at half contrast: that is what tells a backdoor from the best patch on a
    clean encoder.

    ``trace`` holds the best score of every step, over all families one after another; ``ended`` is
    "found", "hopeless" or "exhausted".
    """

    candidates: tuple[Trigger, ...]
    scores: tuple[float, ...]
    base: float
    trace: tuple[float, ...]
    ended: str

    @property
    def trigger(self) -> Trigger:
        """The candidate that makes the search images most alike."""
        return self.candidates[0]

    @property
    def steps(self) -> int:
        """How many steps were taken."""
        return len(self.trace)


def invert(
    encoder: Encoder,
    images: Tensor,
    *,
    hits: Sequence[Hit] | None = None,
    profile: Profile,
    seed: int = 0,
    budget: float = BUDGET,
    limit: float | None = None,
    progress: Progress = silent,
) -> Inversion:
    """Search the trigger within ``budget`` that makes ``images`` (N, 3, H, W) in [0, 1] most alike.

    Half of the restarts begin where the battery's ``hits`` are best, as :func:`battery.sift`
    returns them; without ``hits`` it is sifted here. With a ``limit`` the search ends once one
    trigger lies far beyond it, or once none rises, see :mod:`encodercheck.methods.stopping`.

    Raises:
        CheckInconclusive: the images' embeddings are not finite, or the same within rounding, or
            the encoder is a black box.
    """
    collapse.require_gradients(encoder)
    encoder = encoder.folded()
    hits = sift(encoder, images, profile, seed=seed) if hits is None else hits
    count, area = profile.restarts, budget * encoder.image_size**2
    warm = best_places(hits, count // 2)
    # Free pixels go where there is no rectangle to be found, and from anywhere: half are enough.
    starts = [
        patches(boxes, warm, count, area),
        patches(pixel_masks, warm[: count // 4], count // 2, area),
    ]
    settings = _Settings(profile, seed, limit, progress)
    return _search(encoder, images, starts, settings)


def invert_large(
    encoder: Encoder,
    images: Tensor,
    *,
    hits: Sequence[Hit] | None = None,
    profile: Profile,
    seed: int = 0,
    limit: float | None = None,
    progress: Progress = silent,
) -> Inversion:
    """Search the rectangle on 12 % of the image that makes embeddings most alike.

    Arguments and exceptions as for :func:`invert`.
    """
    collapse.require_gradients(encoder)
    count = max(2, profile.restarts * 2 // 3)
    encoder = encoder.folded()
    hits = sift(encoder, images, profile, seed=seed) if hits is None else hits
    warm = best_places(hits, count // 2)
    start = patches(boxes, warm, count, LARGE_BUDGET * encoder.image_size**2)
    half = replace(profile, steps=profile.steps // 2)
    # It is as large as a crop: there would be little of the image left around it.
    settings = _Settings(half, seed, limit, progress, crops=False)
    return _search(encoder, images, [start], settings)


def invert_faint(
    encoder: Encoder,
    images: Tensor,
    *,
    profile: Profile,
    seed: int = 0,
    limit: float | None = None,
    progress: Progress = silent,
) -> Inversion:
    """Search a trigger that changes the whole image a little: added, or blended with it.

    No value changes by more than 16/255, or the picture blended in has a weight of 0.2. Arguments
    and exceptions as for :func:`invert`.
    """

    def additive(encoder: Encoder, images: Tensor, generator: torch.Generator) -> Family:
        noise = torch.rand(shape(encoder), generator=generator).to(encoder.device) - 0.5
        return Additive([noise * ADDITIVE_BOUND], ADDITIVE_BOUND)

    def blend(encoder: Encoder, images: Tensor, generator: torch.Generator) -> Family:
        pictures = torch.rand(shape(encoder), generator=generator).to(encoder.device)
        return Blend([pictures], BLEND_STRENGTH)

    def shape(encoder: Encoder) -> tuple[int, ...]:
        return FAINT_RESTARTS, 3, encoder.image_size, encoder.image_size

    settings = _Settings(profile, seed, limit, progress, finalists=0)
    return _search(encoder, images, [additive, blend], settings)


def sift(
    encoder: Encoder, images: Tensor, profile: Profile, *, seed: int, progress: Progress = silent
) -> list[Hit]:
    """Return the hits of the whole battery on the first few of ``images`` (N, 3, H, W).

    Raises:
        CheckInconclusive: a clean embedding is not finite, or all are the same within rounding.
    """
    candidates = battery.triggers(encoder.image_size, seed=seed)
    clean, few = Clean.of(encoder, images), images[: profile.battery_images]
    return battery.sift(encoder, candidates, few, clean, progress=progress)


def best_places(hits: Sequence[Hit], count: int) -> list[Trigger]:
    """Return the best patches among ``hits`` at ``count`` different places.

    Several of the best usually sit at one place, and starts from there would all find the same.
    """
    best: dict[tuple[int, ...], Trigger] = {}
    for hit in hits:
        if not hit.trigger.additive:
            best.setdefault(hit.trigger.box, hit.trigger)
    return list(best.values())[:count]


def collapse_score(clean: Clean) -> Objective:
    """Return how far stamped images have collapsed, 0 where unstamped ones are and 1 at the end.

    Every other restart is scored by the gain of the mean cosine. Of the rest one half is scored by
    the mean cosine of what is left of the unit embeddings when the mean of the clean ones is taken
    off, the other half by the gain on whitened axes. Where clean embeddings
    share a direction these have the steeper slope, and where one direction outweighs all others
    only the last sees the rest; measured, each finds triggers that the others miss.
    """

    def score(embeddings: Tensor, which: slice) -> Tensor:
        number = torch.arange(which.start, which.start + len(embeddings), device=embeddings.device)
        gains = clean.gain(embeddings)
        number = number.to(gains.device)
        centred = collapse.mean_cosine(collapse.unit(embeddings) - clean.centre)
        other = torch.where(number % 4 == 1, centred, clean.whitened_gain(embeddings))
        return torch.where(number % 2 == 0, gains, other)

    return score


def patches(make: Callable[..., Family], warm: Sequence[Trigger], count: int, area: float) -> Start:
    """Return how ``count`` restarts of a family of ``area`` pixels begin, some at ``warm`` ones."""

    def start(encoder: Encoder, images: Tensor, generator: torch.Generator) -> Family:
        size = encoder.image_size
        return make(
            [trigger.window(size) for trigger in warm],
            count,
            size,
            budget=area / size**2,
            generator=generator,
            device=encoder.device,
        )

    return start


@dataclass(frozen=True)
class _Settings:
    profile: Profile
    seed: int
    limit: float | None
    progress: Progress
    finalists: int = FINALISTS
    crops: bool = True


def _search(
    encoder: Encoder, images: Tensor, starts: Sequence[Start], settings: _Settings
) -> Inversion:
    """Search one family after another, until a trigger is found."""
    collapse.require_gradients(encoder)
    encoder = encoder.folded()
    images = images.to(encoder.device)
    clean = Clean.of(encoder, images)
    generator = torch.Generator().manual_seed(settings.seed)

    def goal(on: Encoder, embedded: Tensor) -> Goal:
        # Whole images are embedded once for all families.
        return _goal(on, clean if on is encoder else Clean.of(on, embedded))

    effort = settings.profile
    triggers: list[Trigger] = []
    trace: list[float] = []
    ends: list[str] = []
    for start in starts:
        search = Search(
            goal=goal,
            start=start,
            steps=effort.steps,
            batch=effort.batch,
            limit=settings.limit,
            crops=settings.crops,
        )
        climbed = climb(encoder, images, search, generator=generator, progress=settings.progress)
        triggers += climbed.family.triggers()
        trace += climbed.trace
        ends.append(climbed.ended)
        if climbed.ended == "found":
            break
    candidates, scores = _ranked(
        encoder, images[:RANKING_IMAGES], clean, triggers, settings.finalists
    )
    return Inversion(
        candidates=candidates,
        scores=scores,
        base=clean.base,
        trace=tuple(trace),
        ended=next((end for end in ENDS if end in ends), ENDS[-1]),
    )


def _goal(encoder: Encoder, clean: Clean) -> Goal:
    """Return the goal of making images alike that the encoder embeds so unstamped."""
    objective = collapse_score(clean)
    return Goal(
        about=lambda drawn: objective,
        scores=lambda triggers, few: collapse.scores(encoder, clean, triggers, few),
    )


def _ranked(
    encoder: Encoder, images: Tensor, clean: Clean, triggers: list[Trigger], count: int
) -> tuple[tuple[Trigger, ...], tuple[float, ...]]:
    """Return the triggers, best first, and the score of each on ``images`` (N, 3, H, W).

    The first ``count``, as far as they score nearly as high as the best, are put in order by their
    gain at half contrast. What a search scored last were batches of a few images, too few to tell
    the best from the next.
    """
    scores = collapse.scores(encoder, clean, triggers, images)
    order = sorted(range(len(triggers)), key=lambda i: -scores[i])
    finalists = [i for i in order[:count] if scores[i] >= scores[order[0]] - NEARLY]
    faint = [triggers[i].at_contrast(collapse.HALF_CONTRAST) for i in finalists]
    gains, _ = collapse.stamped_gains(encoder, clean, faint, images)
    at_half = dict(zip(finalists, gains, strict=True))
    order[: len(finalists)] = sorted(finalists, key=lambda i: -at_half[i])
    return tuple(triggers[i] for i in order), tuple(scores[i] for i in order)
