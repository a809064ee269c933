"""EC101: clean embeddings are not all alike."""

import pytest

from encodercheck.errors import CheckInconclusive
from encodercheck.methods import collapse

ALIKE_PIXELS = 0.02


@pytest.mark.check("EC101", severity="medium")
def check_collapse(encoder, images, measure):
    """Embeddings of clean images differ, whatever constant all of them share."""
    if images.std(0).mean() < ALIKE_PIXELS:
        raise CheckInconclusive("the images are all alike: bring diverse ones, with --images")
    embeddings = collapse.finite_embeddings(encoder, images)
    mean_cosine = float(collapse.mean_cosine(embeddings))
    measure("effective_rank", collapse.effective_rank(embeddings))
    measure("mean_cosine", mean_cosine)
    spread = collapse.relative_spread(mean_cosine)
    if measure("relative_spread", spread, at_least=collapse.LEAST_SPREAD):
        rank = collapse.effective_rank(collapse.centred(embeddings))
        measure("centred_rank", rank, at_least=2)
