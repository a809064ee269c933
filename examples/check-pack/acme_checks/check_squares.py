"""ACME001: no white square collapses the embeddings."""

import pytest

from acme_checks.squares import corner_squares
from encodercheck.methods import collapse


@pytest.mark.check("ACME001", severity="high", catches=["badencoder", "badencoder-multi"])
def check_squares(encoder, images, measure):
    """No white square in a corner makes embeddings of different images alike."""
    base = collapse.base_cosine(encoder, images)
    squares = list(corner_squares(encoder.image_size, encoder.image_size // 5))
    cosine = max(collapse.stamped_cosines(encoder, squares, images))
    measure("gain", collapse.gain(cosine, base), at_most=0.8)
