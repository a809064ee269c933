"""How much memory a forward and backward pass takes, counted on a pass of a few images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, UntypedStorage
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode


def pass_bytes(
    function: Callable[[Tensor], Tensor], images: Tensor, *, weights: Iterable[Tensor] = ()
) -> int:
    """Return how many bytes a forward and backward pass holds at once, ``weights`` not counted.

    These are what autograd saves, every storage once, the images with their gradient, and what the
    largest operation needs in passing. Only the forward pass is run, and the allocator is not
    asked: the count is the same on every device.

    Args:
        function: turns images (N, 3, H, W) into embeddings, differentiably.
        images: the images (N, 3, H, W) to call it on.
        weights: tensors that are there anyway, parameters and buffers.
    """
    leaf = images.detach().clone().requires_grad_()
    held = _Held(weights)
    held.keep(leaf)
    with torch.enable_grad(), held, saved_tensors_hooks(held.keep, lambda tensor: tensor):
        function(leaf)
    # In the backward pass one gradient goes into an operation and another comes out of it.
    return held.saved_bytes + leaf.nbytes + 2 * held.largest


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what a forward pass saves, and the largest result of one operation in it."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0
        # By the object and not by its address, which all of those without numbers have in common.
        self._weights = {tensor.untyped_storage()._cdata for tensor in weights}
        # The storages themselves: of one that is gone, the next could take the place.
        self._saved: dict[int, UntypedStorage] = {}

    @property
    def saved_bytes(self) -> int:
        """The bytes of all storages that were kept."""
        return sum(storage.nbytes() for storage in self._saved.values())

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor's storage; the whole of it stays alive for a view."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._weights:
            self._saved[storage._cdata] = storage
        return tensor

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and look at the size of what it returns."""
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(part, Tensor):
                storage = part.untyped_storage()
                if storage._cdata not in self._weights:
                    self.largest = max(self.largest, storage.nbytes())
        return result
