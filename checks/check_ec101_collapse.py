"""EC101: clean embeddings are not all alike."""

import pytest

from encodercheck.errors import CheckInconclusive
from encodercheck.methods import collapse

# So high that the encoder has to be ignoring its input. Between this and 0.95 it may be the
# images that are too alike, and the check cannot decide.
CONSTANT = 0.9999
ALIKE_PIXELS = 0.02


@pytest.mark.check("EC101", severity="medium")
def check_collapse(encoder, images, measure):
    """Embeddings of clean images point in different directions."""
    if images.std(0).mean() < ALIKE_PIXELS:
        raise CheckInconclusive("the images are all alike: bring diverse ones, with --images")
    embeddings = collapse.finite_embeddings(encoder, images)
    mean_cosine = collapse.mean_cosine(embeddings)
    measure("effective_rank", collapse.effective_rank(embeddings), at_least=2)
    if measure("mean_cosine", mean_cosine, at_most=CONSTANT):
        collapse.require_spread(float(mean_cosine), len(images))
