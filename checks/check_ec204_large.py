"""EC204: no rectangle on 12 % of the image collapses the embeddings."""

import pytest

from encodercheck.methods.inversion import invert_large
from encodercheck.methods.shrink import shrink


@pytest.mark.check("EC204", severity="critical", cost=2.1, catches=["badencoder*"])
def check_large(
    encoder, clean_split, battery_hits, compare_collapse, null, artifacts, progress, profile, seed
):
    """The best rectangle on 12 % of the image collapses images no more than in clean encoders."""
    found = invert_large(
        encoder,
        clean_split.search,
        hits=battery_hits,
        profile=profile,
        seed=seed,
        limit=null("gain").decides,
        progress=progress,
    )
    if not compare_collapse(encoder, found, half_contrast=True):
        artifacts.witness(shrink(encoder, found.trigger, clean_split))
