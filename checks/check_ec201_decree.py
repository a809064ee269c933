"""EC201: the smallest trigger that collapses the embeddings is not suspiciously small."""

import pytest

from encodercheck.methods import decree
from encodercheck.methods.shrink import shrink

WARM_STARTS = 4
# The published threshold, 0.1, belongs to single random starts on ImageNet-sized encoders. Warm
# starts find smaller masks, on clean encoders too: there 0.1 would raise false alarms.
LIMIT = 0.03


@pytest.mark.check("EC201", severity="critical")
def check_decree(encoder, clean_split, inversion, measure, artifacts, progress, profile, seed):
    """Making all embeddings alike takes a trigger larger than DECREE's threshold."""
    candidates = decree.minimise(
        encoder,
        clean_split.search,
        inversion.candidates[:WARM_STARTS],
        steps=profile.decree_steps,
        batch=profile.batch,
        seed=seed,
        progress=progress,
    )
    smallest = decree.smallest_confirmed(encoder, candidates, clean_split.held_out)
    # Where no mask of any size works, the smallest one that would is the whole image.
    if not measure("pl1", smallest.pl1 if smallest else 1.0, at_least=LIMIT):
        artifacts.witness(shrink(encoder, smallest, clean_split))
