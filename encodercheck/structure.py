"""What a network computes, whatever its parts are called: a fingerprint of its structure.

A file's architecture has a name that the user may choose; clean encoders to compare with
are looked up by what the built module does instead. One grey image goes through it, and every
operation that PyTorch carries out is written down with what it was given: strides, paddings,
epsilons, kinds of activation, sizes of weights, and which earlier results. The result's own line,
with all that it goes back to, is the fingerprint. The values of weights have no part in it, nor has
what leaves numbers as they are: reshaping, the order of independent branches, a module where others
call a function.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

# Two networks agree by chance once in 2**64.
DIGITS = 16
# The way from a module to its fingerprint: another number, and earlier fingerprints mean nothing.
VERSION = 1
# Results with the numbers of their argument, in another shape, place or format.
SAME = frozenset(
    [
        *("view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t"),
        *("expand", "squeeze", "unsqueeze", "clone", "contiguous", "detach", "alias"),
        *("_to_copy", "lift_fresh"),
    ]
)
# Results with some of the numbers of their argument.
PARTS = frozenset(
    ["select", "slice", "unbind", "split", "split_with_sizes", "unsafe_split", "chunk"]
)
# Of these it makes no difference which argument comes first.
EITHER_WAY = frozenset(["add", "mul", "maximum", "minimum"])
# The version of PyTorch and the device choose among several names.
ONE_OF_MANY = ("batch_norm", "layer_norm", "group_norm", "softmax", "relu6")


def fingerprint(module: nn.Module, image_size: int) -> str | None:
    """Return 16 hexadecimal digits that networks of the same structure have in common.

    Args:
        module: turns images (N, 3, H, W) into embeddings, in evaluation mode.
        image_size: the side of its square input, in pixels: part of the structure.

    Returns:
        The fingerprint; None where the module has no weights, as a black box, or where it cannot be
        followed.
    """
    if next(module.parameters(), None) is None:
        return None
    for device in ("meta", None):
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), _plain_attention():
                return _followed(twin(module, device), image_size)
        except Exception:
            # A model's own forward can fail in any way on tensors without numbers.
            continue
    return None


def _followed(module: nn.Module, size: int) -> str:
    """Run the module on a grey image and return the fingerprint of what comes out.

    Raises:
        Exception: whatever the module raises.
    """
    like = next(module.parameters())
    image = torch.full((1, 3, size, size), 0.5, device=like.device, dtype=like.dtype)
    tracing = _Tracing(image)
    with tracing:
        result = module(image)
    return tracing.line_of(result)[:DIGITS]


def twin(module: nn.Module, device: str | None) -> nn.Module:
    """Return the module with its weights on ``device``, in their own memory where that is None.

    On the device "meta" they are stand-ins without numbers, so that a pass takes no time. What the
    module keeps of a pass for the next one stays in the twin.
    """
    memo: dict[int, Any] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to(device), requires_grad=False)
    for buffer in module.buffers():
        memo[id(buffer)] = buffer.detach().to(device)
    return copy.deepcopy(module, memo).eval()


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Have attention computed by its definition: which kernel there is depends on the device."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


class _Tracing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows for every tensor of a pass how it came about: a line, and a factor apart from it.

    Attention scales queries, keys, both or their products: factors go along with what is linear.
    """

    def __init__(self, image: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known: MutableMapping[Tensor, tuple[str, float]] = WeakTensorKeyDictionary()
        self._keep(image, _digest("image", list(image.shape)))

    def line_of(self, tensor: Tensor) -> str:
        """Return how ``tensor`` came about, as a digest."""
        line, factor = self._origin(tensor)
        return line if math.isclose(factor, 1, rel_tol=1e-6) else _digest(line, _short(factor))

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation and write down what it does."""
        kwargs = dict(kwargs or {})
        name = _name(func)
        written = args[0] if name.endswith("_") and args and isinstance(args[0], Tensor) else None
        name = name.removesuffix("_")
        described = self._described(name, args, kwargs)
        result = func(*args, **kwargs)
        if written is not None:
            self._overwrite(written, *described)
            return result
        results = [part for part in _flat([result]) if isinstance(part, Tensor)]
        for i, part in enumerate(results):
            line, factor = described
            if name in PARTS:
                line = self._part(line, args, results, i)
            elif i:
                line = _digest(line, i)
            self._keep(part, line, factor)
        return result

    def _described(
        self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[str, float]:
        """Return the line and the factor of an operation's result."""
        tensors = [part for part in _flat(args) if isinstance(part, Tensor)]
        if name in SAME | PARTS and tensors:
            return self._origin(tensors[0])
        if name in ("mul", "div") and len(args) == 2 and not kwargs:
            scalar = _scalar(args[1])
            if scalar:
                line, factor = self._origin(args[0])
                return line, factor * scalar if name == "mul" else factor / scalar
        if name in ("mm", "bmm"):
            (one, scale), (other, further) = map(self._origin, tensors)
            return _digest(name, list(args[0].shape), one, other), scale * further
        lines = [self.line_of(part) for part in tensors]
        if name in EITHER_WAY:
            lines.sort()
        return _digest(name, lines, _settings(name, args, kwargs)), 1.0

    def _part(self, whole: str, args: tuple[Any, ...], results: list[Tensor], i: int) -> str:
        """Return the line of the ``i``-th of the ``results``: which share of ``whole`` it is."""
        first, total = args[0], args[0].numel()
        if len(results) > 1 or results[0].numel() == total:
            start = sum(part.numel() for part in results[:i])
        else:
            # A single one begins where the index says, along its own dimension.
            axis = args[1] if len(args) > 1 else 0
            begin = args[2] if len(args) > 2 and args[2] is not None else 0
            along = first.shape[axis]
            start = (begin % along if begin < 0 else min(begin, along)) * total // along
        share = [_short(start / total), _short(results[i].numel() / total)]
        return whole if share == [0.0, 1.0] else _digest("part", whole, share)

    def _origin(self, tensor: Tensor) -> tuple[str, float]:
        """Return a tensor's line and factor; what no operation made is a weight or a constant."""
        return self._known.get(tensor) or (_digest("weight", list(tensor.shape)), 1.0)

    def _keep(self, tensor: Tensor, line: str, factor: float = 1.0) -> None:
        self._known[tensor] = (line, factor)

    def _overwrite(self, written: Tensor, line: str, factor: float) -> None:
        """Keep what was written in place, for all tensors that lie in the same memory."""
        for tensor in list(self._known.keys()):
            if tensor is not written and _together(tensor, written):
                whole = tensor.numel() == written.numel()
                known = (line, factor) if whole else (_digest(self.line_of(tensor), line), 1.0)
                self._keep(tensor, *known)
        self._keep(written, line, factor)


def _name(func: Any) -> str:
    """Return the operation's name, without its overload; one name for all kernels of one thing."""
    name: str = func.overloadpacket.__name__
    return next((known for known in ONE_OF_MANY if known in name), name)


def _settings(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return an operation's arguments that are no tensors, as JSON has them."""
    if name in ("batch_norm", "layer_norm", "group_norm"):
        # Their momentum and flags differ from kernel to kernel; sizes are those of the weights.
        numbers = [part for part in _flat(args) if isinstance(part, float)]
        groups = [args[6]] if name == "group_norm" else []
        return [_short(numbers[-1]), *groups]
    if name in ("softmax", "mean", "sum", "amax"):
        axes = args[1] if len(args) > 1 and args[1] is not None else []
        axes = axes if isinstance(axes, (list, tuple)) else [axes]
        return sorted(axis % args[0].ndim for axis in axes) or list(range(args[0].ndim))
    if name == "addmm":
        return list(args[1].shape)
    plain = [part for part in _flat([*args, *sorted(kwargs.items())]) if not _is_detail(part)]
    return [_short(part) if isinstance(part, float) else part for part in plain]


def _is_detail(part: Any) -> bool:
    """Tell what an operation computes with, or on what, from what it computes."""
    return isinstance(part, Tensor) or not isinstance(part, (bool, int, float, str, type(None)))


def _scalar(value: Any) -> float | None:
    """Return a number that a tensor is multiplied by; None for a tensor."""
    if isinstance(value, (int, float)) and math.isfinite(value):
        return float(value)
    return None


def _flat(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (list, tuple)):
            yield from _flat(value)
        else:
            yield value


def _together(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors lie in the same memory."""
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)


def _short(number: float) -> float:
    """Return a number to six digits: single precision keeps no more of an epsilon."""
    return float(f"{number:.6g}")


def _digest(*facts: Any) -> str:
    return hashlib.sha256(json.dumps([VERSION, *facts]).encode()).hexdigest()
