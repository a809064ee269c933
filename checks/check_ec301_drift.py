"""EC301: no small trigger spoils what embeddings say of the patches that it does not touch."""

import pytest

from encodercheck.methods.drift import worst_drift


@pytest.mark.check("EC301", severity="high", cost=5, catches=["badencoder", "badencoder-multi"])
def check_reconstruction_drift(request, clean, clean_split, measure, null, compare, profile, seed):
    """Found triggers spoil the reconstruction of the rest no more than in clean encoders."""
    known = null("excess_drift", scale="shift")
    if known.required and not (known.judges or profile.informs):
        # A decoder takes longer to train than all that is known here can be worth.
        measure.say(f"not measured with profile {profile.name}: {NO_REFERENCE}")
        return
    dede, suspects = map(request.getfixturevalue, ("dede", "suspects"))
    found = worst_drift(dede, clean_split.held_out, suspects, seed=seed)
    measure("drift", found.shift)
    measure("random_drift", found.random)
    measure("drifted_images", found.flagged)
    compare("excess_drift", found.excess, scale="shift")


NO_REFERENCE = (
    "it can be judged by encoders of the same architecture only; `encodercheck calibrate` measures "
    "some"
)
