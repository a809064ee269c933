"""EC102: no canonical trigger collapses the embeddings."""

import pytest

from encodercheck.methods import battery
from encodercheck.methods.shrink import shrink


@pytest.mark.check("EC102", severity="critical", cost=3, catches=["badencoder", "badencoder-multi"])
def check_battery(encoder, clean_split, battery_hits, compare_collapse, artifacts):
    """The trigger battery makes unseen images no more alike than in clean encoders."""
    best = battery.best(encoder, battery_hits, clean_split.search)
    if not compare_collapse(encoder, best, joint=True):
        artifacts.witness(shrink(encoder, best, clean_split))
