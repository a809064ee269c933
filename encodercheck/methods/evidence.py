"""Evidence from the encoder itself: is the trigger that was found one of a kind?

A backdoor has one place and one look. In a clean encoder dozens of places do as well as the best,
and random pixels at the same place go a good part of the way (the comparison with other targets is
Neural Cleanse's; Wang et al., S&P 2019).
"""

from __future__ import annotations

from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.methods import collapse
from encodercheck.methods.collapse import Clean
from encodercheck.methods.drift import random_triggers
from encodercheck.methods.inversion import Inversion
from encodercheck.trigger import VISIBLE, Trigger

IMAGES = 32
RANDOM = 12
# Masks that share less of their union lie at different places.
OVERLAP = 0.1


def elsewhere(found: Inversion) -> float:
    """Return the best score that a restart reached where the best trigger is not; 0 if none is."""
    best, *others = zip(found.candidates, found.scores, strict=True)
    apart = [score for trigger, score in others if overlap(best[0], trigger) < OVERLAP]
    return max(apart, default=0.0)


def middle(found: Inversion) -> float:
    """Return the median score of all restarts."""
    ordered = sorted(found.scores)
    return ordered[len(ordered) // 2]


def overlap(first: Trigger, second: Trigger) -> float:
    """Return which part of the union of two masks their intersection is."""
    one, other = (trigger.mask > VISIBLE for trigger in (first, second))
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def same_size(
    encoder: Encoder, images: Tensor, clean: Clean, trigger: Trigger, *, seed: int
) -> tuple[float, float]:
    """Return mean and largest score of random triggers of the size of ``trigger``.

    On the first few of held-out ``images`` (N, 3, H, W) in [0, 1], which ``clean`` is of.
    """
    few = images[:IMAGES].to(encoder.device)
    others = random_triggers(trigger, RANDOM, seed=seed)
    reached = collapse.scores(encoder, clean, others, few)
    return sum(reached) / len(reached), max(reached)
