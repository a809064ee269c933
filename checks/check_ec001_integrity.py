"""EC001: the encoder is a function of its input."""

import pytest
import torch

from encodercheck.methods import integrity


@pytest.mark.check("EC001", severity="high", cost=0.1)
def check_integrity(encoder, images, measure):
    """Weights and embeddings are finite, repeatable, and independent of the batch."""
    measure("non_finite_weights", integrity.non_finite_weights(encoder), at_most=0)
    embeddings = encoder(images[:32])
    measure("non_finite_embeddings", (~torch.isfinite(embeddings)).sum(), at_most=0)
    measure("zero_embeddings", integrity.zero_embeddings(embeddings), at_most=0)
    measure("infinite_norms", integrity.infinite_norms(embeddings), at_most=0)
    measure(
        "repeat_difference", integrity.difference(embeddings, encoder(images[:32])), at_most=1e-5
    )
    alone = torch.cat([encoder(image[None]) for image in images[:4]])
    measure("batch_difference", integrity.difference(embeddings[:4], alone), at_most=5e-3)
