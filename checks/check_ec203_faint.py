"""EC203: no faint change of the whole image collapses the embeddings."""

import pytest

from encodercheck.methods import collapse
from encodercheck.methods.inversion import invert_faint
from encodercheck.methods.shrink import shrink


@pytest.mark.check("EC203", severity="critical", catches=["blended", "wave", "invisible"])
def check_faint(encoder, clean_split, measure, compare, null, artifacts, progress, profile, seed):
    """The best faint change of all pixels collapses images no more than in clean encoders."""
    base = collapse.base_cosine(encoder, clean_split.held_out)
    found = invert_faint(
        encoder,
        clean_split.search,
        profile=profile,
        seed=seed,
        limit=null("gain").decides,
        progress=progress,
    )
    cosine = collapse.stamped_cosine(encoder, found.trigger, clean_split.held_out)
    measure("stamped_cosine", cosine)
    measure("unstamped_cosine", base)
    if not compare("gain", collapse.gain(cosine, base)):
        artifacts.witness(shrink(encoder, found.trigger, clean_split))
