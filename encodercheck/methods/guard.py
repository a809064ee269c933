"""A classifier behind a screen: images that DeDe flags never reach it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encodercheck.methods.dede import Dede


class Guard(nn.Module):
    """Drops flagged images and classifies the rest; every image is embedded once.

    The mitigation of DeDe (Hou, Li & Yao, CVPR 2025), as a module for a pipeline.

    >>> guard = Guard(dede, classifier)  # doctest: +SKIP
    >>> logits, kept = guard(images)  # doctest: +SKIP

    Args:
        dede: a fitted screen; its encoder is the classifier's.
        classifier: from embeddings (N, D) to logits (N, C).
    """

    def __init__(self, dede: Dede, classifier: nn.Module) -> None:
        super().__init__()
        self.dede = dede
        self.classifier = classifier

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logits (M, C) of the M images that are kept, and which are, (N,) of bool.

        ``images`` are (N, 3, H, W) in [0, 1].
        """
        inspected = self.dede.inspect(images)
        kept = self.dede.scores_of(inspected) <= self.dede.threshold
        if self.dede.settings.sees == "masked":
            embeddings = self.dede.encoder(images[kept.to(images.device)])
        else:
            embeddings = inspected.embeddings[kept]
        return self.classifier(embeddings), kept
