"""EC202: no trigger on 3 % of the image collapses the embeddings."""

import pytest

from encodercheck.methods import collapse
from encodercheck.methods.shrink import shrink


# A patch of 10x10 pixels is far more than 3 %: that is EC204's.
@pytest.mark.check("EC202", severity="critical", catches=["badencoder", "badencoder-[!1]*"])
def check_budget(encoder, clean_split, trigger, compare_collapse, artifacts):
    """The best trigger on 3 % of the image collapses images no more than in clean encoders."""
    if not compare_collapse(collapse.under(encoder, trigger, clean_split)):
        artifacts.witness(shrink(encoder, trigger, clean_split))
