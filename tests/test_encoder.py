"""The encoder: batching, gradients, memory, copies."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encodercheck.encoder import (
    STEP_IMAGES,
    Encoder,
    default_batch_size,
    is_out_of_memory,
    pick_device,
)
from encodercheck.errors import ConfigError
from encodercheck.preprocessing import Preprocessing
from encodercheck.weights.resnet import ResNet
from encodercheck.weights.spec import ResNetSpec


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


def test_pixels_are_normalised_as_the_preprocessing_says():
    """An encoder that gets other pixels than it was trained on embeds something else."""
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    encoder = Encoder(nn.Flatten(), preprocessing=Preprocessing(8, mean, std))
    images = torch.rand(3, 3, 8, 8)
    expected = (images - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(encoder(images), expected.flatten(1))


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


SMALL = ResNetSpec("basic", (1, 1), (8, 16), stem_kernel=3, stem_stride=2, maxpool=False)
NETWORKS = {
    "ResNet": lambda: ResNet(SMALL),
    "convolution and ReLU": lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten()),
    "nothing saved": lambda: nn.Sequential(nn.Flatten()),
    "no gradient": lambda: _Detached(),
}


class _Detached(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.detach().flatten(1)


def _limited(network, limit=None, batch_size=64):
    torch.manual_seed(0)
    preprocessing = Preprocessing(image_size=16)
    encoder = Encoder(NETWORKS[network](), preprocessing=preprocessing, batch_size=batch_size)
    if limit is not None:
        encoder.limit_memory(limit)
    return encoder


def _saved_bytes(encoder):
    """Count, without the code under test, what autograd holds of a pass of a whole batch."""
    weights = {tensor.data_ptr() for tensor in encoder.module.state_dict().values()}
    images = torch.rand(encoder.batch_size, 3, 16, 16).requires_grad_()
    saved = [images]

    def keep(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        encoder(images)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in saved}
    return sum(storages[start].nbytes() for start in storages.keys() - weights)


def test_batches_on_a_cpu_are_moderate_and_embed_the_same():
    module = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    encoder = Encoder(module, preprocessing=Preprocessing(image_size=224))
    moderate = encoder.moderate()
    assert encoder.batch_size == default_batch_size(224)
    assert STEP_IMAGES <= moderate.batch_size < encoder.batch_size
    images = torch.rand(20, 3, 224, 224)
    torch.testing.assert_close(moderate(images), encoder(images))


def test_a_batch_is_moderate_where_it_takes_little_or_it_cannot_be_told():
    small = Encoder(nn.Conv2d(3, 4, 3), preprocessing=Preprocessing(image_size=16))
    assert small.moderate().batch_size == small.batch_size
    flat = Encoder(nn.Flatten(), preprocessing=Preprocessing(image_size=16))
    assert flat.moderate() is flat


@pytest.mark.parametrize("network", NETWORKS)
def test_the_batch_falls_with_the_memory_and_never_rises(network):
    limits = [10**9, 4_000_000, 1_000_000, 300_000]
    sizes = [_limited(network, limit).batch_size for limit in limits]
    assert sizes[0] == 64
    assert sizes == sorted(sizes, reverse=True)
    assert 1 <= sizes[-1] < 64
    assert _limited(network, 10**9, batch_size=3).batch_size == 3
    encoder = _limited(network, limits[-1])
    encoder.limit_memory(10**9)
    assert encoder.batch_size == sizes[-1]


@pytest.mark.parametrize("network", NETWORKS)
def test_what_a_pass_saves_is_within_the_limit_and_not_far_below(network):
    limit = 1_000_000
    encoder = _limited(network, limit)
    assert 1 < encoder.batch_size < 64
    assert limit / 8 < _saved_bytes(encoder) <= limit


def test_weights_do_not_count_towards_a_limit():
    wide = nn.Sequential(nn.Flatten(), nn.Linear(768, 5000), nn.Linear(5000, 4))
    encoder = Encoder(wide, preprocessing=Preprocessing(image_size=16), batch_size=8)
    encoder.limit_memory(8 * 150_000)
    assert encoder.batch_size == 8
    assert sum(parameter.nbytes for parameter in wide.parameters()) > 15_000_000


@pytest.mark.parametrize("network", NETWORKS)
def test_a_limit_below_one_image_is_bad_usage(network):
    encoder = _limited(network)
    with pytest.raises(ConfigError, match=r"one 16x16 image needs .* MB .*; raise the limit") as e:
        encoder.limit_memory(1000)
    assert str(e.value).isprintable()
    assert encoder.batch_size == 64


class _Noisy(nn.Module):
    """Draws random numbers; remembers how it was called."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = len(images), self.training
        return (images + torch.rand_like(images)).flatten(1)


def test_a_limit_leaves_the_state_as_it_was():
    module = _Noisy()
    encoder = Encoder(module, preprocessing=Preprocessing(image_size=8))
    before = torch.random.get_rng_state()
    with torch.no_grad():
        encoder.limit_memory(10**6)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.random.get_rng_state(), before)
    assert module.seen == (2, False)


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


def test_folded_convolutions_have_their_channels_last():
    encoder = _encoder()
    encoder.module[0].weight.data = encoder.module[0].weight.data.contiguous()
    weight = encoder.folded().module.get_parameter("0.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not encoder.module[0].weight.is_contiguous(memory_format=torch.channels_last)
    plain = Encoder(nn.Sequential(nn.Conv2d(3, 4, 3)), preprocessing=Preprocessing(image_size=8))
    assert plain.folded() is plain
    assert plain.module[0].weight.is_contiguous()


class _Viewing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(images)).view(images.size(0), -1)


def test_folding_bears_with_views_of_what_was_in_order():
    encoder = Encoder(_Viewing(), preprocessing=Preprocessing(image_size=8))
    images = torch.rand(3, 3, 8, 8)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in encoder.folded().module.modules())
    torch.testing.assert_close(encoder.folded()(images), encoder(images), atol=1e-5, rtol=1e-4)


class _Untraceable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.conv(images)
        return self.norm(features) if float(images.sum()) > 0 else features


def test_what_cannot_be_traced_keeps_its_layers_and_has_its_channels_last():
    encoder = Encoder(_Untraceable(), preprocessing=Preprocessing(image_size=8))
    folded = encoder.folded()
    images = torch.rand(3, 3, 8, 8)
    torch.testing.assert_close(folded(images), encoder(images))
    assert any(isinstance(module, nn.BatchNorm2d) for module in folded.module.modules())
    weight = folded.module.get_parameter("conv.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert encoder.module.get_parameter("conv.weight").is_contiguous()


def test_a_device_that_is_not_there_is_bad_usage():
    missing = "cuda" if not torch.cuda.is_available() else "mps"
    with pytest.raises(ConfigError, match=missing):
        pick_device(missing)
