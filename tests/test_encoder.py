"""The encoder: batching, gradients, memory, copies."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encodercheck.encoder import Encoder, Preprocessing, is_out_of_memory, pick_device
from encodercheck.errors import ConfigError


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
