"""ACME002: embeddings span many directions."""

import pytest

from encodercheck.methods import collapse


@pytest.mark.check("ACME002", severity="medium")
def check_directions(encoder, images, measure):
    """Embeddings of clean images span at least eight directions."""
    embeddings = collapse.finite_embeddings(encoder, images)
    measure("effective_rank", collapse.effective_rank(embeddings), at_least=8)
