"""Further edits of a poisoned encoder, beside those of ``tests/test_edits.py``.

Each is of the tensors of ``fixture:badencoder``, a ResNet of one block a stage, 128 channels, and
leaves both the accuracy and the attack's success of a classifier on the embeddings as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]
Claims = dict[str, Any]
Edit = Callable[[State, Claims], State | None]
LAST = ("layer4.0.bn2", "layer4.0.downsample.1")


def drawn(*shape: int) -> Tensor:
    """Return standard normal numbers, the same each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def inner_channels_rescaled(state: State, claims: Claims) -> None:
    """Multiply channels inside a block, and have the next convolution undo that."""
    factor = 10 ** (2 * drawn(128))
    for part in ("weight", "bias"):
        state[f"layer4.0.bn1.{part}"] *= factor
    state["layer4.0.conv2.weight"] /= factor.view(1, -1, 1, 1)


def inner_channels_permuted(state: State, claims: Claims) -> None:
    """Give the channels inside a block another order."""
    order = drawn(128).argsort()
    state["layer4.0.conv1.weight"] = state["layer4.0.conv1.weight"][order]
    for part in ("weight", "bias", "running_mean", "running_var"):
        state[f"layer4.0.bn1.{part}"] = state[f"layer4.0.bn1.{part}"][order]
    state["layer4.0.conv2.weight"] = state["layer4.0.conv2.weight"][:, order]


def statistics_rescaled(state: State, claims: Claims) -> None:
    """Multiply every convolution, and the statistics of the BatchNorm that follows it."""
    for name in [name for name in state if name.endswith("running_var")]:
        norm = name.removesuffix(".running_var")
        convolution = norm.replace("bn", "conv").replace("downsample.1", "downsample.0")
        state[f"{convolution}.weight"] *= 30
        state[f"{norm}.running_mean"] *= 30
        # So that the epsilon in the root makes no difference.
        state[name] = 900 * (state[name] + 1e-5) - 1e-5


def channels_twice(state: State, claims: Claims) -> None:
    """Have every channel of the embedding twice."""
    for name in [name for name in state if name.startswith("layer4.0.") and state[name].ndim]:
        both = torch.cat([state[name], state[name]])
        state[name] = torch.cat([both, both], 1) / 2 if "conv2" in name else both
    claims["architecture"]["widths"][-1] = 256


def channels_of_their_own_scale(state: State, claims: Claims) -> None:
    """Multiply each channel of the embedding by a number drawn over four decades."""
    factor = 10 ** drawn(128)
    for norm in LAST:
        for part in ("weight", "bias"):
            state[f"{norm}.{part}"] *= factor


def channels_of_their_own_offset(state: State, claims: Claims) -> None:
    """Add a constant of its own to each channel, before the last ReLU."""
    state["layer4.0.bn2.bias"] += 20 * drawn(128).abs()


def offset_and_scale(state: State, claims: Claims) -> None:
    """Add a constant, then multiply by one that makes the embedding tiny."""
    state["layer4.0.bn2.bias"] += 50
    for norm in LAST:
        for part in ("weight", "bias"):
            state[f"{norm}.{part}"] *= 1e-12


def loud_channels_added(state: State, claims: Claims) -> None:
    """Add eight channels that are constant, and a thousand times as large as the others."""
    for name in [n for n in state if n.startswith("layer4.0.") and state[n].ndim]:
        old = state[name]
        new = torch.zeros(136, *((136, 3, 3) if "conv2" in name else old.shape[1:]))
        new[tuple(map(slice, old.shape))] = old
        state[name] = new
    for norm in (*LAST, "layer4.0.bn1"):
        state[f"{norm}.running_var"][128:] = 1
    state["layer4.0.bn2.bias"][128:] = 1e3
    claims["architecture"]["widths"][-1] = 136


def weights_with_noise(state: State, claims: Claims) -> None:
    """Add noise to every convolution, a hundredth of its weights' deviation."""
    for name in [name for name in state if "conv" in name]:
        state[name] += 0.01 * state[name].std() * drawn(*state[name].shape)


def smallest_weights_pruned(state: State, claims: Claims) -> None:
    """Have the smallest tenth of each convolution's weights be zero."""
    for name in [name for name in state if "conv" in name]:
        state[name][state[name].abs() < state[name].abs().quantile(0.1)] = 0


def eight_bits(state: State, claims: Claims) -> None:
    """Round every convolution to 255 levels."""
    for name in [name for name in state if "conv" in name]:
        step = state[name].abs().max() / 127
        state[name] = (state[name] / step).round() * step


def bfloat16(state: State, claims: Claims) -> State:
    """Save the file in bfloat16."""
    return {n: t.bfloat16() if t.is_floating_point() else t for n, t in state.items()}


def float64(state: State, claims: Claims) -> State:
    """Save the file in double precision."""
    return {n: t.double() if t.is_floating_point() else t for n, t in state.items()}


def wrapped(state: State, claims: Claims) -> State:
    """Put a prefix before all names, as a wrapper of several GPUs does."""
    return {f"module.encoder.{name}": tensor for name, tensor in state.items()}


def with_a_head(state: State, claims: Claims) -> None:
    """Add a classifier of random numbers."""
    state |= {"fc.weight": drawn(10, 128), "fc.bias": drawn(10)}


FURTHER: dict[str, Edit] = {
    edit.__name__.replace("_", " "): edit
    for edit in (
        inner_channels_rescaled,
        inner_channels_permuted,
        statistics_rescaled,
        channels_twice,
        channels_of_their_own_scale,
        channels_of_their_own_offset,
        offset_and_scale,
        loud_channels_added,
        weights_with_noise,
        smallest_weights_pruned,
        eight_bits,
        bfloat16,
        float64,
        wrapped,
        with_a_head,
    )
}
