"""EC102: no canonical trigger collapses the embeddings."""

import pytest

from encodercheck.methods import battery
from encodercheck.methods.shrink import shrink

FINALISTS = 8


@pytest.mark.check("EC102", severity="critical", cost=2, catches=["badencoder", "badencoder-multi"])
def check_battery(encoder, clean_split, clean, battery_hits, compare_collapse, artifacts):
    """The trigger battery makes unseen images no more alike than in clean encoders."""
    finalists = [hit.trigger for hit in battery_hits[:FINALISTS]]
    best = battery.sift(encoder, finalists, clean_split.held_out, clean)[0]
    if not compare_collapse(encoder, best.trigger, joint=True):
        artifacts.witness(shrink(encoder, best.trigger, clean_split))
