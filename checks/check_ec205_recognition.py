"""EC205: no trigger on 3 % of the image makes the encoder forget what is on the rest of it."""

import pytest

from encodercheck.methods.recognition import forget, recognition
from encodercheck.methods.shrink import witness


@pytest.mark.check("EC205", severity="critical", cost=4, catches=["badencoder", "drupe"])
def check_recognition(
    encoder, clean_split, measure, compare, null, artifacts, progress, profile, seed
):
    """The best trigger on 3 % of the image hides images no more than in clean encoders."""
    found = forget(
        encoder,
        clean_split.search,
        profile=profile,
        seed=seed,
        limit=null("forgotten").decides,
        progress=progress,
    )
    seen = recognition(encoder, found.trigger, clean_split)
    measure("recognised", seen.recognised)
    measure("forgotten_unit", seen.forgotten)
    measure("forgotten_centred", seen.forgotten_centred)
    if not compare("forgotten", min(seen.forgotten, seen.forgotten_centred)):
        # Shrinking goes by how alike images are, and these need not be.
        artifacts.witness(witness(encoder, found.trigger, clean_split.held_out))
