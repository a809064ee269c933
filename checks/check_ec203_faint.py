"""EC203: no faint change of the whole image collapses the embeddings."""

import pytest

from encodercheck.methods.inversion import invert_faint
from encodercheck.methods.shrink import shrink


@pytest.mark.check("EC203", severity="critical", cost=2.5, catches=["blended", "wave", "invisible"])
def check_faint(encoder, clean_split, compare_collapse, null, artifacts, progress, profile, seed):
    """The best faint change of all pixels collapses images no more than in clean encoders."""
    found = invert_faint(
        encoder,
        clean_split.search,
        profile=profile,
        seed=seed,
        limit=null("gain").decides,
        progress=progress,
    )
    if not compare_collapse(encoder, found):
        artifacts.witness(shrink(encoder, found.trigger, clean_split))
