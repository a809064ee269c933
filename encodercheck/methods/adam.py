"""Adam steps for gradients that are computed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

# DECREE's.
BETAS = (0.5, 0.9)


class Adam:
    """Adam (Kingma & Ba, ICLR 2015) on ``tensors``, in place, by torch's own kernel.

    ``torch.optim.Adam`` around the same kernel imports torch's compiler first: 1.6 s of every scan.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = list(tensors)
        self._means = [torch.zeros_like(tensor) for tensor in tensors]
        self._squares = [torch.zeros_like(tensor) for tensor in tensors]
        self._steps = [torch.zeros(()) for _ in tensors]

    @torch.no_grad()
    def descend(self, gradients: Sequence[Tensor], learning_rate: float) -> None:
        """Move every tensor against its gradient, of the same shape."""
        adam(
            self._tensors,
            list(gradients),
            self._means,
            self._squares,
            [],
            self._steps,
            foreach=False,
            capturable=False,
            differentiable=False,
            fused=False,
            has_complex=False,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=learning_rate,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )
