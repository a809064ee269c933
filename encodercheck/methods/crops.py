"""Search on crops first: most steps on a quarter of the pixels, the last ones on whole images.

A convolutional encoder takes other sizes than its own, and responds to a trigger by its pixels, not
by the part of the image that they are: a patch of 38 pixels is as good on a crop of 112 as on an
image of 224, where a step costs four times as much. What a search found on crops is put on whole
images at several places and goes on there from the best. Nothing counts that was not measured on
whole images. Where an encoder takes no other size, or images are small, there are no crops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.methods import collapse
from encodercheck.methods.ascent import Objective, ascend
from encodercheck.methods.families import Family
from encodercheck.methods.stopping import Stopping
from encodercheck.progress import Progress
from encodercheck.trigger import Trigger

# Below this a crop is too little of an image, and a step costs little anyway.
LEAST_SIZE = 128
# The best restarts on crops, how many of their copies on whole images go on, and which part of the
# steps these take.
CARRIED, KEPT = 3, 2
REFINING = 1 / 3

# From an encoder, its images and a generator to the restarts of a search.
Start = Callable[[Encoder, Tensor, torch.Generator], Family]
# From images drawn for a step to its score.
About = Callable[[Tensor], Objective]


@dataclass(frozen=True)
class Goal:
    """What a search rises towards on one encoder: a step's score, and that of whole triggers.

    ``scores`` returns one for each trigger on images (N, 3, H, W).
    """

    about: About
    scores: Callable[[Sequence[Trigger], Tensor], Sequence[float]]


@dataclass(frozen=True)
class Search:
    """How one family of triggers is searched.

    ``goal`` makes the goal of an encoder and its images (N, 3, H, W). ``limit`` and ``patient`` are
    those of :class:`~encodercheck.methods.stopping.Stopping`. Without ``crops`` all steps are taken
    on whole images.
    """

    goal: Callable[[Encoder, Tensor], Goal]
    start: Start
    steps: int
    batch: int
    limit: float | None
    patient: bool = False
    crops: bool = True


@dataclass(frozen=True)
class Climbed:
    """Where a search ended: its family, the best score of every step, how it ended.

    ``lately`` are the scores of the restarts over their last batches.
    """

    family: Family
    trace: tuple[float, ...]
    ended: str
    lately: Tensor


def cropped(
    encoder: Encoder, images: Tensor, generator: torch.Generator
) -> tuple[Encoder, Tensor] | None:
    """Return an encoder of half the image size and a random crop of each image, if it takes them.

    ``images`` are (N, 3, H, W) in [0, 1]. None where images are small, or where the encoder does
    not embed crops, into as many numbers and not all to one.
    """
    if encoder.image_size < LEAST_SIZE:
        return None
    side = encoder.image_size // 2
    corners = torch.randint(0, images.shape[-1] - side + 1, (len(images), 2), generator=generator)
    crops = torch.stack(
        [
            image[:, top : top + side, left : left + side]
            for image, (top, left) in zip(images, corners.tolist(), strict=True)
        ]
    )
    small = encoder.resized(side)
    try:
        few = small(crops[:2])
        if few.shape != (2, encoder.embedding_dim):
            return None
        collapse.base_cosine(small, crops)
    except Exception:
        # Crops are all alike, or the size is wrong: a model's own forward can fail in any way.
        return None
    return small, crops


def climb(
    encoder: Encoder,
    images: Tensor,
    search: Search,
    *,
    generator: torch.Generator,
    progress: Progress,
) -> Climbed:
    """Search a family on ``images`` (N, 3, H, W) in [0, 1], on crops of them first where it can."""
    smaller = cropped(encoder, images, generator) if search.crops else None
    if smaller is None:
        family = search.start(encoder, images, generator)
        watch = Stopping(
            search.steps, limit=search.limit, patient=search.patient, progress=progress
        )
        return _ascended(
            encoder, images, search.goal(encoder, images), family, search, generator, watch
        )
    small, crops = smaller
    family = search.start(small, crops, generator)
    # What is found on crops is no find yet: no score there ends the search.
    patient = search.patient or search.limit is None
    watch = Stopping(search.steps, limit=1.0, patient=patient, progress=progress)
    first = _ascended(small, crops, search.goal(small, crops), family, search, generator, watch)
    goal, few = search.goal(encoder, images), images[: search.batch]
    family, scores = _carried(first, goal, few, encoder.image_size)
    if first.ended == "hopeless":
        return Climbed(family, first.trace, first.ended, scores)
    steps = round(REFINING * search.steps)
    watch = Stopping(steps, limit=search.limit, patient=True, progress=progress)
    last = _ascended(encoder, images, goal, family, search, generator, watch)
    return Climbed(last.family, first.trace + last.trace, last.ended, last.lately)


def _ascended(
    encoder: Encoder,
    images: Tensor,
    goal: Goal,
    family: Family,
    search: Search,
    generator: torch.Generator,
    watch: Stopping,
) -> Climbed:
    """Move a family uphill, until ``watch`` ends it."""
    ascend(
        encoder,
        images,
        family,
        steps=watch.steps,
        batch=search.batch,
        generator=generator,
        about=goal.about,
        watch=watch,
    )
    return Climbed(family, tuple(watch.trace), watch.ended, watch.lately)


def _carried(found: Climbed, goal: Goal, few: Tensor, size: int) -> tuple[Family, Tensor]:
    """Return the best that was found on crops, at the places where it does most on whole images.

    With its scores (R,) on ``few`` images (N, 3, H, W).
    """
    best = found.lately.topk(min(CARRIED, len(found.family))).indices
    family = found.family.chosen(best).carried(size)
    scores = torch.tensor(goal.scores(family.triggers(), few))
    kept = scores.topk(min(KEPT, len(family))).indices
    return family.chosen(kept), scores[kept]
