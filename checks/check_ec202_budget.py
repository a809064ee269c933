"""EC202: no trigger on 3 % of the image collapses the embeddings."""

import pytest

from encodercheck.methods.shrink import shrink


# A patch of 10x10 pixels is far more than 3 %: that is EC204's.
@pytest.mark.check("EC202", severity="critical", cost=2, catches=["badencoder", "badencoder-[!1]*"])
def check_budget(encoder, clean_split, inversion, compare_collapse, artifacts):
    """The best trigger on 3 % of the image collapses images no more than in clean encoders."""
    if not compare_collapse(encoder, inversion, half_contrast=True, whitened=True):
        artifacts.witness(shrink(encoder, inversion.trigger, clean_split))
