"""EC102: no canonical trigger collapses the embeddings."""

import pytest

from encodercheck.methods import battery, collapse
from encodercheck.methods.shrink import shrink

FINALISTS = 8


@pytest.mark.check("EC102", severity="critical", catches=["badencoder", "badencoder-multi"])
def check_battery(encoder, clean_split, battery_hits, measure, compare, artifacts):
    """The trigger battery makes unseen images no more alike than in clean encoders."""
    base = collapse.base_cosine(encoder, clean_split.held_out)
    finalists = [hit.trigger for hit in battery_hits[:FINALISTS]]
    best = battery.sift(encoder, finalists, clean_split.held_out)[0]
    measure("stamped_cosine", best.cosine)
    measure("unstamped_cosine", base)
    if not compare("gain", collapse.gain(best.cosine, base)):
        artifacts.witness(shrink(encoder, best.trigger, clean_split))
