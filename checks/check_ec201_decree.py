"""EC201: the smallest trigger that collapses the embeddings is not suspiciously small."""

import pytest

from encodercheck.methods import collapse, decree
from encodercheck.methods.shrink import shrink

WARM_STARTS = 4


@pytest.mark.check("EC201", severity="critical", cost=3, catches=["badencoder", "badencoder-multi"])
def check_decree(
    encoder, clean_split, inversion, clean, measure, compare, artifacts, progress, profile, seed
):
    """The smallest trigger that makes embeddings alike is no smaller than in clean encoders."""
    start = collapse.under(encoder, inversion.trigger, clean_split.held_out, clean)
    measure("start_gain", start.gain)
    candidates = []
    if start.gain >= decree.NEAR:
        candidates = decree.minimise(
            encoder,
            clean_split.search,
            inversion.candidates[:WARM_STARTS],
            steps=profile.decree_steps,
            seed=seed,
            progress=progress,
        )
    smallest = decree.smallest_confirmed(encoder, candidates, clean_split.held_out)
    # Where no mask of any size works, the smallest one that would is the whole image.
    if not compare("pl1", smallest.pl1 if smallest else 1.0, scale="size"):
        artifacts.witness(shrink(encoder, smallest, clean_split))
