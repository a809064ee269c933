"""EC102: no canonical trigger collapses the embeddings."""

import pytest

from encodercheck.methods import battery, collapse
from encodercheck.methods.shrink import shrink

FINALISTS = 8


@pytest.mark.check("EC102", severity="critical")
def check_battery(encoder, clean_split, measure, artifacts, progress, profile, seed):
    """No patch or frequency of the trigger battery makes unseen images alike."""
    base = collapse.base_cosine(encoder, clean_split.held_out)
    candidates = battery.triggers(encoder.image_size, seed=seed)
    sieve = clean_split.search[: profile.battery_images]
    finalists = battery.sift(encoder, candidates, sieve, progress=progress)[:FINALISTS]
    best = battery.sift(encoder, [hit.trigger for hit in finalists], clean_split.held_out)[0]
    measure("stamped_cosine", best.cosine)
    measure("unstamped_cosine", base)
    if not measure("gain", collapse.gain(best.cosine, base), at_most=0.9):
        artifacts.witness(shrink(encoder, best.trigger, clean_split))
