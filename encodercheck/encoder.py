"""The encoder under test: a module, its preprocessing, and where both came from."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.utils.checkpoint import checkpoint

from encodercheck import structure
from encodercheck.errors import ConfigError
from encodercheck.footprint import pass_bytes
from encodercheck.preprocessing import Preprocessing
from encodercheck.weights.two_towers import TextTower

T = TypeVar("T")

# Activations of a forward and backward pass grow with the pixels: this many input values keep
# a ResNet-50 under 3 GB. Out of memory halves it.
INPUT_VALUES_PER_BATCH = 2**22
# Kernels use memory of their own and allocators leave gaps: on a CPU, the true peak of ResNets,
# MobileNetV3 and ViTs was up to 1.22 times the count.
FOOTPRINT_SAFETY = 1.4
# What a batch takes on a CPU at most, unless it is of no more images than a step of a search.
MODERATE_BYTES = 1e9
STEP_IMAGES = 8
# A fingerprint is taken of this many words at a time: few enough to need no memory to speak of.
WORDS_AT_ONCE = 2**18


@dataclass(frozen=True)
class Provenance:
    """Where the encoder's file, architecture and name came from.

    ``text_tower`` says where the file has the text tower of a CLIP-like model, None where it has
    none. ``rivals`` are the prefixes of this encoder and of others in the file that differ from it,
    where none was chosen.
    """

    path: str = ""
    sha256: str = ""
    architecture: str = ""
    found_by: str = ""
    notes: tuple[str, ...] = field(default=())
    text_tower: TextTower | None = None
    rivals: tuple[str, ...] = ()


class Encoder:
    """A pre-trained image encoder, called on images in [0, 1].

    >>> encoder = Encoder(nn.Flatten(), preprocessing=Preprocessing(image_size=4))
    >>> encoder(torch.rand(2, 3, 4, 4)).shape
    torch.Size([2, 48])

    The module is put in evaluation mode with its weights frozen; gradients flow to the images only.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        preprocessing: Preprocessing | None = None,
        provenance: Provenance | None = None,
        device: torch.device | str = "cpu",
        batch_size: int | None = None,
    ) -> None:
        self.preprocessing = preprocessing or Preprocessing()
        self.provenance = provenance or Provenance()
        self.device = torch.device(device)
        self.module = module.to(self.device).eval().requires_grad_(False)
        self.batch_size = batch_size or default_batch_size(self.image_size)
        self._mean = torch.tensor(self.preprocessing.mean, device=self.device).view(1, 3, 1, 1)
        self._std = torch.tensor(self.preprocessing.std, device=self.device).view(1, 3, 1, 1)
        self._embedding_dim: int | None = None
        # A structure may be None, so that it is kept in a tuple.
        self._structure: tuple[str | None] | None = None

    @property
    def image_size(self) -> int:
        """The side of the square input, in pixels."""
        return self.preprocessing.image_size

    @property
    def embedding_dim(self) -> int:
        """The number of components of an embedding, measured once on a grey image."""
        if self._embedding_dim is None:
            size = self.image_size
            self._embedding_dim = self(torch.full((1, 3, size, size), 0.5)).shape[1]
        return self._embedding_dim

    @property
    def structure(self) -> str | None:
        """What the module computes, whatever its parts are called, as 16 hexadecimal digits.

        None for a black box, and where it cannot be told; see :mod:`~encodercheck.structure`.
        """
        if self._structure is None:
            self._structure = (structure.fingerprint(self.module, self.image_size),)
        return self._structure[0]

    @property
    def parameters(self) -> int:
        """The number of weights, buffers not counted."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    @property
    def differentiable(self) -> bool:
        """Whether gradients flow from the embeddings to the images; not through a black box."""
        return bool(getattr(self.module, "differentiable", True))

    def __call__(self, images: Tensor) -> Tensor:
        """Embed images.

        Args:
            images: (N, 3, H, W) in [0, 1] with H = W = ``image_size``, on any device.

        Returns:
            (N, D) float32 embeddings on the encoder's device. They carry a gradient only when
            ``images`` do. Memory is bounded by ``batch_size`` either way: larger inputs go
            through in chunks, recomputed in the backward pass.

        Raises:
            ValueError: ``images`` has another shape.
        """
        size = self.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise ValueError(f"expected images (N, 3, {size}, {size}), got {tuple(images.shape)}")
        images = images.to(self.device)
        if images.requires_grad and torch.is_grad_enabled():
            if len(images) <= self.batch_size:
                return self._forward(images)
            chunks = torch.split(images, self.batch_size)
            return torch.cat(
                [checkpoint(self._forward, chunk, use_reentrant=False) for chunk in chunks]
            )
        with torch.no_grad():
            return self.halving(
                lambda: torch.cat([self._forward(c) for c in torch.split(images, self.batch_size)])
            )

    def halving(self, function: Callable[[], T]) -> T:
        """Call ``function``, halving ``batch_size`` and trying again while memory runs out."""
        while True:
            try:
                return function()
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.batch_size == 1:
                    raise
            # Outside the handler: the traceback would keep the tensors that did not fit alive.
            self.batch_size = max(1, self.batch_size // 2)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def limit_memory(self, limit: int) -> None:
        """Choose the batch size so that a forward and backward pass needs at most ``limit`` bytes.

        The weights come on top. What an image needs is counted on a pass of two grey ones; the
        batch size falls or stays, and is never raised.

        Raises:
            ConfigError: not even one image fits.
        """
        needed = self._bytes_per_image()
        if needed > limit:
            size = self.image_size
            raise ConfigError(
                f"a memory limit of {limit / 1e6:.1f} MB: one {size}x{size} image needs "
                f"{needed / 1e6:.1f} MB beside the weights; raise the limit to that"
            )
        self.batch_size = min(self.batch_size, limit // needed)

    def moderate(self) -> Encoder:
        """Return an encoder whose batches are no larger than they need be for a CPU's full speed.

        There a batch beyond about ``MODERATE_BYTES`` costs memory and no time less. What a step of
        a search takes goes through in one piece all the same.
        """
        needed = self.expected_bytes() if self.device.type == "cpu" else None
        if not needed:
            return self
        twin = copy.copy(self)
        most = max(STEP_IMAGES, int(MODERATE_BYTES / (FOOTPRINT_SAFETY * needed)))
        twin.batch_size = min(self.batch_size, most)
        return twin

    def _bytes_per_image(self) -> int:
        size, count = self.image_size, 2
        grey = torch.full((count, 3, size, size), 0.5, device=self.device)
        weights = [*self.module.parameters(), *self.module.buffers()]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            total = pass_bytes(self._forward, grey, weights=weights)
        return math.ceil(FOOTPRINT_SAFETY * total / count)

    def expected_bytes(self) -> int | None:
        """Return about what a forward and backward pass of one image takes beside the weights.

        Nothing is allocated: the pass is made without numbers. None where it cannot be.
        """
        if next(self.module.parameters(), None) is None:
            return None
        shape = (1, 3, self.image_size, self.image_size)
        grey = torch.empty(shape, device="meta")
        try:
            with torch.random.fork_rng(devices=[]):
                module = structure.twin(self.module, "meta")
                weights = [*module.parameters(), *module.buffers()]
                return pass_bytes(module, grey, weights=weights)
        except Exception:
            # A model's own forward can fail in any way on tensors without numbers.
            return None

    def copy(self) -> Encoder:
        """Return an encoder with weights of its own: whatever is done to it stays in it."""
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module)
        return twin

    def lend(self) -> Encoder:
        """Return an encoder that shares the memory of this one's weights, and nothing else.

        Mode, hooks, statistics, gradients and replaced weights stay in it. Only what is written
        into the weights in place reaches this one: :meth:`fingerprint` tells, :meth:`rewrite`
        mends.
        """
        memo: dict[int, Any] = {}
        for parameter in self.module.parameters():
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        for buffer in self.module.buffers():
            # deepcopy would take along the whole storage that a buffer is a view of.
            memo[id(buffer)] = buffer.detach().clone()
        twin = copy.copy(self)
        twin.module = copy.deepcopy(self.module, memo)
        return twin

    def fingerprint(self) -> dict[str, tuple[int, ...]]:
        """Return numbers that change with any bit of a weight, and with its place, by name."""
        generator = torch.Generator().manual_seed(0)
        shape = (WORDS_AT_ONCE,)
        factors = torch.randint(-(2**63), 2**63 - 1, shape, generator=generator, device="cpu")
        # Odd, so that no factor takes a bit away.
        factors = factors.bitwise_or_(1).to(self.device)
        return {
            name: tuple(_digest(parameter, factors))
            for name, parameter in self.module.named_parameters()
        }

    def rewrite(self, weights: Mapping[str, Tensor]) -> None:
        """Write the values of ``weights``, by name, into the encoder's own, in place."""
        with torch.no_grad():
            for name, values in weights.items():
                self.module.get_parameter(name).copy_(values)

    def folded(self) -> Encoder:
        """Return an encoder of the same function with BatchNorm folded into the convolutions.

        It takes a fifth less time forward and a quarter less with the backward pass, and on a CPU
        another fifth less with channels last. Of a module that cannot be traced only the memory
        format is changed, which halves the time of a forward pass of EfficientNet-Lite.
        """
        if not any(isinstance(module, nn.BatchNorm2d) for module in self.module.modules()):
            return self
        try:
            fused = fuse(self.module)
        except Exception:
            # Tracing runs the model's own forward on stand-ins: it can fail in any way.
            if self.device.type != "cpu":
                return self
            fused = copy.deepcopy(self.module)
        twin = copy.copy(self)
        twin.module = fused.eval().requires_grad_(False)
        if twin.device.type == "cpu":
            twin._put_channels_last()
        return twin

    def _put_channels_last(self) -> None:
        """Give 2-D convolutions the memory format in which they are fastest on a CPU, in place."""
        convolutions = [part for part in self.module.modules() if isinstance(part, nn.Conv2d)]
        for part in convolutions:
            part.to(memory_format=torch.channels_last)
        size = self.image_size
        try:
            with torch.random.fork_rng(devices=[]):
                self(torch.full((1, 3, size, size), 0.5))
        except Exception:
            # A model's own forward may take a ``view`` of what is in order no longer.
            for part in convolutions:
                part.to(memory_format=torch.contiguous_format)

    def resized(self, side: int) -> Encoder:
        """Return an encoder of the same weights for images of ``side`` x ``side`` pixels.

        Whether its module takes them shows when it is called. A batch is as many pixels as before.
        """
        twin = copy.copy(self)
        twin.preprocessing = self.preprocessing.replaced("resized", image_size=side)
        twin.batch_size = max(1, self.batch_size * self.image_size**2 // side**2)
        twin._embedding_dim = twin._structure = None
        return twin

    def describe(self) -> dict[str, Any]:
        """Return the ``model`` part of a report."""
        tower = self.provenance.text_tower
        return {
            "path": self.provenance.path,
            "sha256": self.provenance.sha256,
            "architecture": self.provenance.architecture,
            "structure": self.structure,
            "provenance": self.provenance.found_by,
            "notes": list(self.provenance.notes),
            "text_tower": tower.describe() if tower is not None else None,
            "image_size": self.image_size,
            "mean": list(self.preprocessing.mean),
            "std": list(self.preprocessing.std),
            "preprocessing": self.preprocessing.summary(),
            "embedding_dim": self.embedding_dim,
            "parameters": self.parameters,
        }

    def normalised(self, images: Tensor) -> Tensor:
        """Return what the module gets for images (N, 3, H, W) in [0, 1]."""
        return (images.to(self.device) - self._mean) / self._std

    def _forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.module(self.normalised(images))
        return embeddings.flatten(1).float()


def _digest(tensor: Tensor, factors: Tensor) -> list[int]:
    """Return a sum of the tensor's words for each stretch, every place with a factor of its own."""
    word = {1: torch.int8, 2: torch.int16}.get(tensor.element_size(), torch.int32)
    words = tensor.detach().reshape(-1).view(word)
    # Products in place: temporaries of their own would pile up in a fragmented heap.
    products = torch.empty_like(factors)
    sums = [
        products[: len(part)].copy_(part).mul_(factors[: len(part)]).sum()
        for part in torch.split(words, len(factors))
    ]
    numbers: list[int] = torch.stack(sums).tolist()
    return numbers


def default_batch_size(image_size: int) -> int:
    """Return how many images of this size go through an encoder at once, before any halving."""
    return max(8, INPUT_VALUES_PER_BATCH // (3 * image_size**2))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a torch error means that memory ran out, on any device."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called ``name``; ``auto`` is CUDA where there is one, MPS, else CPU.

    Raises:
        ConfigError: the device is not there.
    """
    available: Sequence[str] = [
        *(["cuda"] if torch.cuda.is_available() else []),
        *(["mps"] if torch.backends.mps.is_available() else []),
        "cpu",
    ]
    if name == "auto":
        return torch.device(available[0])
    if name not in available:
        raise ConfigError(f"--device {name}: not available here (there is: {', '.join(available)})")
    return torch.device(name)
