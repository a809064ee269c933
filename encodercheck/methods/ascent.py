"""Projected ascent: the one loop behind every search for a trigger.

All restarts move together, each by its own gradient. Nothing but forward and backward passes of the
encoder, to its input only, takes time that is worth mentioning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.methods import collapse
from encodercheck.methods.adam import Adam
from encodercheck.methods.families import Family

LEARNING_RATE = 0.1

# From embeddings (r, N, D) of stamped images, and which of all restarts these r are, to a score.
Objective = Callable[[Tensor, slice], Tensor]
# Called before every move with the step, from 1, and the scores (R,); True ends the ascent.
Watch = Callable[[int, Tensor], bool]


def alike(embeddings: Tensor, which: slice) -> Tensor:
    """Score how alike the stamped images are, whatever they are alike to: DECREE's equation 3."""
    return collapse.mean_cosine(embeddings)


def towards(targets: Tensor) -> Objective:
    """Return the score of being near ``targets`` (R, D), one for each restart: the mean cosine."""
    directions = torch.nn.functional.normalize(targets, dim=-1).unsqueeze(1)

    def score(embeddings: Tensor, which: slice) -> Tensor:
        return torch.nn.functional.cosine_similarity(embeddings, directions[which], dim=2).mean(1)

    return score


def ascend(
    encoder: Encoder,
    images: Tensor,
    family: Family,
    *,
    steps: int,
    batch: int,
    generator: torch.Generator,
    objective: Objective = alike,
    about: Callable[[Tensor], Objective] | None = None,
    watch: Watch = lambda step, scores: False,
) -> int:
    """Move a family's restarts uphill by projected Adam; return the number of steps taken.

    Every step draws ``batch`` of the ``images`` (N, 3, H, W) in [0, 1]: a trigger searched on one
    fixed batch comes to fit those images and fails on others.
    """
    family.project()
    adam = Adam(family.parameters)
    step = 0
    for step, drawn in zip(range(1, steps + 1), batches(images, batch, generator), strict=False):
        score = about(drawn) if about else objective
        scores, gradients = encoder.halving(
            partial(scores_and_gradients, encoder, drawn, family, score)
        )
        if watch(step, scores):
            break
        adam.descend([-gradient for gradient in gradients], LEARNING_RATE)
        family.project()
    return step


def scores_and_gradients(
    encoder: Encoder, images: Tensor, family: Family, objective: Objective = alike
) -> tuple[Tensor, list[Tensor]]:
    """Return every restart's score (R,) on ``images`` (N, 3, H, W), and its gradients.

    Restarts go through the encoder in groups that fit its batch size, each with a backward pass of
    its own, so that memory does not grow with their number.

    Raises:
        CheckInconclusive: the encoder is a black box.
    """
    collapse.require_gradients(encoder)
    together = max(1, encoder.batch_size // len(images))
    parts = []
    for start in range(0, len(family), together):
        which = slice(start, start + together)
        leaves = [tensor[which].detach().requires_grad_() for tensor in family.parameters]
        stamped = family.stamp(images, *leaves)
        embeddings = encoder(stamped.flatten(0, 1)).view(len(leaves[0]), len(images), -1)
        scores = objective(embeddings, which)
        parts.append((scores.detach(), *torch.autograd.grad(scores.sum(), leaves)))
    scores, *gradients = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return scores, gradients


def batches(images: Tensor, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of ``size`` from images (N, 3, H, W), reshuffled after each round, for ever."""
    size = min(size, len(images))
    while True:
        order = torch.randperm(len(images), generator=generator)
        for start in range(0, len(images) - size + 1, size):
            yield images[order[start : start + size]]
