"""EC301: no trigger spoils what embeddings say of the patches that it does not touch."""

from statistics import fmean

import pytest

from encodercheck.methods.drift import drift, random_triggers

RANDOM = 4


@pytest.mark.check("EC301", severity="high")
def check_reconstruction_drift(dede, clean_split, suspects, measure, compare, seed):
    """Found triggers spoil the reconstruction of the rest no more than in clean encoders."""
    found = drift(dede, clean_split.held_out, suspects)
    worst = max(range(len(found)), key=lambda i: found[i].shift)
    others = random_triggers(suspects[worst], RANDOM, seed=seed)
    random = fmean(one.shift for one in drift(dede, clean_split.held_out, others))
    measure("drift", found[worst].shift)
    measure("random_drift", random)
    measure("drifted_images", found[worst].flagged)
    compare("excess_drift", found[worst].shift - random, scale="shift")
