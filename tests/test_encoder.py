"""The encoder: batching, gradients, memory, copies."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encodercheck.encoder import Encoder, is_out_of_memory, pick_device
from encodercheck.errors import ConfigError
from encodercheck.preprocessing import Preprocessing


def _encoder(batch_size=None):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    return Encoder(module, preprocessing=Preprocessing(image_size=8), batch_size=batch_size)


@given(st.integers(1, 9), st.integers(1, 20))
def test_embeddings_and_gradients_do_not_depend_on_the_batch_size(batch_size, count):
    images = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(count))
    results = []
    for encoder in (_encoder(batch_size), _encoder(1000)):
        leaf = images.clone().requires_grad_()
        embeddings = encoder(leaf)
        embeddings.square().sum().backward()
        torch.testing.assert_close(embeddings.detach(), encoder(images), atol=1e-5, rtol=1e-4)
        results.append((embeddings.detach(), leaf.grad))
    for small, large in zip(*results, strict=True):
        torch.testing.assert_close(small, large, atol=1e-4, rtol=1e-4)


def test_weights_get_no_gradient():
    encoder = _encoder()
    encoder(torch.rand(2, 3, 8, 8).requires_grad_()).sum().backward()
    assert all(parameter.grad is None for parameter in encoder.module.parameters())


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 1, 8, 8), (2, 3, 9, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected images \(N, 3, 8, 8\)"):
        _encoder()(torch.rand(shape))


class _Greedy(nn.Module):
    """Runs out of memory above ``most`` images at once, as a device does."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most
        self.seen: list[int] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(images))
        if len(images) > self.most:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return images.flatten(1)


def test_out_of_memory_halves_the_batch_and_goes_on():
    module = _Greedy(most=5)
    encoder = Encoder(module, preprocessing=Preprocessing(image_size=4), batch_size=32)
    assert encoder(torch.rand(40, 3, 4, 4)).shape == (40, 48)
    assert encoder.batch_size == 4


def test_out_of_memory_at_one_image_is_an_error():
    encoder = Encoder(_Greedy(most=0), preprocessing=Preprocessing(image_size=4), batch_size=4)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        encoder(torch.rand(4, 3, 4, 4))


def test_other_errors_are_not_taken_for_memory():
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (allocated: 1)"))
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_a_copy_cannot_spoil_the_original():
    encoder = _encoder()
    images = torch.rand(4, 3, 8, 8)
    before = encoder(images)
    twin = encoder.copy()
    twin.module.train()
    twin(images)
    for parameter in twin.module.parameters():
        parameter.zero_()
    assert torch.equal(encoder(images), before)


class _Tied(nn.Module):
    """Two layers of one weight, a third that sees a part of it, and a buffer in a large storage."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.second.weight = self.first.weight
        self.part = nn.Parameter(self.first.weight.detach()[:2])
        self.register_buffer("scale", torch.ones(1000)[:1])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(images)).flatten(1) * self.scale


def test_a_lent_encoder_is_no_second_copy_of_the_weights():
    encoder = _encoder()
    twin = encoder.lend()
    for mine, theirs in zip(encoder.module.parameters(), twin.module.parameters(), strict=True):
        assert mine is not theirs
        assert mine.data_ptr() == theirs.data_ptr()
    for mine, theirs in zip(encoder.module.buffers(), twin.module.buffers(), strict=True):
        assert mine.data_ptr() != theirs.data_ptr()
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(twin(images), encoder(images))


def test_lending_keeps_ties_and_leaves_large_storages_alone():
    encoder = Encoder(_Tied(), preprocessing=Preprocessing(image_size=4))
    module = encoder.lend().module
    assert module.first.weight is module.second.weight
    assert module.part.data_ptr() == module.first.weight.data_ptr()
    assert module.scale.untyped_storage().nbytes() == 4


def _backward(module):
    module.requires_grad_()(torch.rand(4, 3, 8, 8)).sum().backward()


def _replace_data(module):
    for parameter in module.parameters():
        parameter.data = torch.zeros_like(parameter)


def _edit_statistics(module):
    module[1].running_mean.fill_(7)
    module[1].running_var = torch.zeros(4)


SPOILING = {
    "mode": lambda module: module.train(),
    "statistics": lambda module: module.train()(torch.rand(4, 3, 8, 8)),
    "statistics in place": _edit_statistics,
    "forward hook": lambda module: module[0].register_forward_hook(lambda *_: torch.zeros(1)),
    "pre-hook": lambda module: module.register_forward_pre_hook(lambda *_: (torch.zeros(1),)),
    "requires_grad": lambda module: module.requires_grad_(),
    "gradients": _backward,
    "data": _replace_data,
    "half": lambda module: module.half(),
    "meta": lambda module: module.to("meta"),
    "a new weight": lambda module: setattr(module[0], "weight", nn.Parameter(torch.zeros(1))),
    "a new shape": lambda module: module[0].weight.resize_(2),
    "a submodule": lambda module: module.__setitem__(0, nn.Identity()),
    "an attribute": lambda module: setattr(module[0], "stride", (2, 2)),
}


@pytest.mark.parametrize("spoiling", SPOILING)
def test_a_lent_encoder_keeps_to_itself(spoiling):
    encoder = _encoder()
    images = torch.rand(4, 3, 8, 8)
    before, fingerprint = encoder(images), encoder.fingerprint()
    SPOILING[spoiling](encoder.lend().module)
    assert torch.equal(encoder(images), before)
    assert encoder.fingerprint() == fingerprint
    assert not any(module.training for module in encoder.module.modules())
    for parameter in encoder.module.parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None
        assert parameter.dtype is torch.float32


def test_what_is_written_into_a_lent_weight_can_be_found_and_undone():
    encoder = _encoder()
    images = torch.rand(4, 3, 8, 8)
    before, fingerprint = encoder(images), encoder.fingerprint()
    saved = {name: values.clone() for name, values in encoder.module.state_dict().items()}
    encoder.lend().module[0].weight.data.zero_()
    changed = {name for name, now in encoder.fingerprint().items() if fingerprint[name] != now}
    assert changed == {"0.weight"}
    encoder.rewrite({name: saved[name] for name in changed})
    assert encoder.fingerprint() == fingerprint
    assert torch.equal(encoder(images), before)


class _Weight(nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)


EDITS = {
    "one value": lambda weight: weight.view(-1)[-1].add_(1),
    "the sign of a zero": lambda weight: weight.view(-1)[-1].neg_(),
    "all signs": lambda weight: weight.neg_(),
    "neighbours swapped": lambda weight: weight.copy_(weight[:, [1, 0, 2, 3]]),
    "rows swapped": lambda weight: weight.copy_(weight.flip(0)),
    "far places swapped": lambda weight: weight.copy_(weight.flip(0, 1)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("edit", EDITS)
def test_a_fingerprint_shows_every_edit(edit, dtype):
    weight = torch.arange(-4.0, 4.0).repeat(90_000).view(-1, 4).to(dtype)
    weight[-1, -1] = 0
    encoder = Encoder(_Weight(weight))
    before = encoder.fingerprint()
    EDITS[edit](encoder.module.weight)
    assert encoder.fingerprint() != before


def test_a_fingerprint_is_of_the_bits_and_not_of_their_layout():
    weight = torch.rand(8, 4, 3, 3)
    weight[0, 0, 0, 0] = math.nan
    encoder, twin = Encoder(_Weight(weight.clone())), Encoder(_Weight(weight.clone()))
    twin.module.to(memory_format=torch.channels_last)
    assert encoder.fingerprint() == twin.fingerprint()
    for odd in (torch.tensor(1.0), torch.zeros(0), torch.ones(3, dtype=torch.int8)):
        assert list(Encoder(_Weight(odd)).fingerprint()) == ["weight"]


def test_folding_changes_nothing_but_the_speed():
    encoder = _encoder()
    for buffer in encoder.module[1].buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    images = torch.rand(4, 3, 8, 8)
    folded = encoder.folded()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.module.modules())
    torch.testing.assert_close(folded(images), encoder(images), atol=1e-5, rtol=1e-4)
    assert any(isinstance(module, nn.BatchNorm2d) for module in encoder.module.modules())


class _Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(images) if float(images.sum()) > 0 else images


def test_what_cannot_be_traced_stays_as_it_is():
    encoder = Encoder(_Untraceable(), preprocessing=Preprocessing(image_size=8))
    assert encoder.folded() is encoder


def test_a_device_that_is_not_there_is_bad_usage():
    missing = "cuda" if not torch.cuda.is_available() else "mps"
    with pytest.raises(ConfigError, match=missing):
        pick_device(missing)
