"""EC301: no small trigger spoils what embeddings say of the patches that it does not touch."""

import pytest

from encodercheck.methods.drift import worst_drift


@pytest.mark.check("EC301", severity="high", cost=6, catches=["badencoder", "badencoder-multi"])
def check_reconstruction_drift(dede, clean_split, suspects, measure, compare, seed):
    """Found triggers spoil the reconstruction of the rest no more than in clean encoders."""
    found = worst_drift(dede, clean_split.held_out, suspects, seed=seed)
    measure("drift", found.shift)
    measure("random_drift", found.random)
    measure("drifted_images", found.flagged)
    compare("excess_drift", found.excess, scale="shift")
