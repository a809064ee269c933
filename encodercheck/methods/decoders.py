"""Decoders from an embedding and a few visible patches back to the image.

Both are called with standardised embeddings (N, D), images (N, 3, P, P) at the decoded size and
visible patches (N, count) of 0 and 1, and return images (N, 3, P, P). What is hidden reaches
neither of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encodercheck.methods.patches import PatchGrid


class ConvDecoder(nn.Module):
    """A small convolutional decoder, which learns in seconds on a CPU.

    The embedding and the visible patches each become a map with a cell for each patch; convolutions
    over the sum end in the pixels of every patch. All of it at the grid's own size: maps as large
    as images took twice the time and reconstructed no better.
    """

    def __init__(
        self, dimension: int, grid: PatchGrid, *, start: int = 32, width: int = 64
    ) -> None:
        super().__init__()
        self.grid = grid
        self._shape = (-1, start, grid.side, grid.side)
        self.of_embedding = nn.Linear(dimension, start * grid.count)
        self.of_patches = nn.Conv2d(4, start, grid.detail, grid.detail)
        self.to_pixels = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(start, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 3 * grid.detail**2, 3, padding=1),
            nn.PixelShuffle(grid.detail),
        )

    def forward(self, embeddings: Tensor, images: Tensor, visible: Tensor) -> Tensor:
        """Reconstruct, see the module."""
        shown = self.grid.spread(visible)
        seen = self.of_patches(torch.cat([images * shown, shown], 1))
        decoded: Tensor = self.to_pixels(self.of_embedding(embeddings).view(self._shape) + seen)
        return decoded


class TransformerDecoder(nn.Module):
    """The published decoder: a masked autoencoder's, with the embedding for the class token.

    One token is the projected embedding, one stands for each patch: what it shows where it is
    visible, the same learnt token where it is hidden (He et al., CVPR 2022, section 3).
    """

    def __init__(
        self, dimension: int, grid: PatchGrid, *, width: int = 96, depth: int = 3, heads: int = 4
    ) -> None:
        super().__init__()
        self.grid = grid
        values = 3 * grid.detail**2
        self.of_embedding = nn.Linear(dimension, width)
        self.of_patch = nn.Linear(values, width)
        self.hidden = nn.Parameter(torch.zeros(width))
        self.places = nn.Parameter(0.02 * torch.randn(grid.count, width))
        layer = nn.TransformerEncoderLayer(
            width,
            heads,
            dim_feedforward=4 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.to_pixels = nn.Linear(width, values)

    def forward(self, embeddings: Tensor, images: Tensor, visible: Tensor) -> Tensor:
        """Reconstruct, see the module."""
        shown = self.of_patch(self.grid.cut(images))
        patches = torch.where(visible.bool().unsqueeze(2), shown, self.hidden) + self.places
        tokens = torch.cat([self.of_embedding(embeddings).unsqueeze(1), patches], 1)
        decoded: Tensor = self.to_pixels(self.norm(self.layers(tokens)[:, 1:]))
        return self.grid.join(decoded)


DECODERS: dict[str, type[ConvDecoder] | type[TransformerDecoder]] = {
    "conv": ConvDecoder,
    "transformer": TransformerDecoder,
}
