"""EC101: clean embeddings are not all alike."""

import pytest

from encodercheck.methods import collapse


@pytest.mark.check("EC101", severity="medium", cost=0.1)
def check_collapse(encoder, images, measure):
    """Embeddings of clean images differ, whatever constant all of them share."""
    collapse.require_diverse(images)
    embeddings = collapse.finite_embeddings(encoder, images)
    mean_cosine = float(collapse.mean_cosine(embeddings))
    measure("effective_rank", collapse.effective_rank(embeddings))
    measure("mean_cosine", mean_cosine)
    spread = collapse.relative_spread(mean_cosine)
    if measure("relative_spread", spread, at_least=collapse.LEAST_SPREAD):
        rank = collapse.effective_rank(collapse.centred(embeddings))
        measure("centred_rank", rank, at_least=2)
