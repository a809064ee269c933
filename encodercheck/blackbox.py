"""Encoders that can only be asked: any callable from images to embeddings, such as a service."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encodercheck.cache import cache_dir, content_hash
from encodercheck.encoder import (
    Encoder,
    Provenance,
    default_batch_size,
    is_out_of_memory,
    pick_device,
)
from encodercheck.errors import ConfigError, LoadError
from encodercheck.images import procedural
from encodercheck.memo import Memo
from encodercheck.planning import check_preprocessing, overridden
from encodercheck.preprocessing import Preprocessing
from encodercheck.weights.build import imported
from encodercheck.weights.header import quoted, reason

MOST_AT_ONCE = 64
# What the fingerprint keeps of an embedding: so few numbers, so coarse, that noise in the last
# digits seldom changes one of them.
PARTS, DIGITS = 8, 3
ASKED_ONCE = "every image is asked for once: EC001 cannot see whether the answers repeat"
AS_THEY_ARE = "pixels in [0, 1] as they are"
CONTRACT = "it must turn images (N, 3, H, W) into embeddings (N, D)"


class BlackBox(nn.Module):
    """A module of no weights, that ``embed`` answers for; no gradient flows through it."""

    differentiable = False

    def __init__(self, embed: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._embed = embed

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings (N, D) of images (N, 3, H, W), on the images' device."""
        return self._embed(images.detach()).to(images.device)


class Question:
    """Asks the user's callable, and sees to it that embeddings come back."""

    def __init__(self, spec: str, function: Callable[..., Any]) -> None:
        self.spec = spec
        self._function = function
        self._dimension: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the embeddings (N, D), float32 on the CPU, of images (N, 3, H, W), N at least 1.

        Raises:
            LoadError: the callable fails, or returns anything else.
        """
        images = images.detach().to("cpu", torch.float32)
        try:
            # Answers that are remembered draw no random numbers: the others must not, either.
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                embeddings = _floats(self._function(images))
        except (Exception, SystemExit) as error:
            if isinstance(error, RuntimeError) and is_out_of_memory(error):
                raise  # the encoder asks for fewer at once
            raise LoadError(
                f"--arch {quoted(self.spec)}: fails on images {tuple(images.shape)}: "
                f"{reason(error)}; {CONTRACT}"
            ) from error
        self._require_embeddings(embeddings, len(images))
        return embeddings

    def _require_embeddings(self, embeddings: Tensor, count: int) -> None:
        shape = tuple(embeddings.shape)
        if len(shape) != 2 or shape[0] != count or shape[1] == 0:
            raise LoadError(
                f"--arch {quoted(self.spec)}: turns {count} images into {shape}; {CONTRACT}"
            )
        self._dimension = self._dimension or shape[1]
        if shape[1] != self._dimension:
            raise LoadError(
                f"--arch {quoted(self.spec)}: embeddings have {shape[1]} numbers and had "
                f"{self._dimension} before; scan again once it answers for one model"
            )


def ask(
    embed: str | Callable[..., Any],
    *,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: str = "cpu",
) -> Encoder:
    """Return an encoder that asks a callable for the embeddings of its images.

    Embeddings are remembered in the cache folder: an image is asked for once, in this scan and in
    all later ones of the same black box. Two images are asked for every time; that its embeddings
    of them are the same is what makes it the same.

    Args:
        embed: the callable or its ``package.module:callable``. It gets float32 images (N, 3, H, W)
            on the CPU and returns (N, D) numbers as a tensor, an array or nested lists.
        image_size: side of the square input in pixels; None takes the callable's ``image_size``.
        mean: three numbers subtracted from pixels in [0, 1]; None leaves them as they are.
        std: three numbers to divide by after that.
        device: where embeddings are worked with; ``auto`` is the CPU.

    Raises:
        LoadError: the callable fails on two images, or returns no embeddings.
        ConfigError: it cannot be imported, its image size is unknown, or an argument cannot work.
        OutputError: the cache folder cannot be written to.
    """
    function = imported(embed) if isinstance(embed, str) else embed
    spec = embed if isinstance(embed, str) else _name(embed)
    preprocessing = _preprocessing(spec, function, image_size, mean, std)
    question = Question(spec, function)
    encoder = Encoder(
        BlackBox(question),
        preprocessing=preprocessing,
        device=pick_device("cpu" if device == "auto" else device),
        batch_size=min(MOST_AT_ONCE, default_batch_size(preprocessing.image_size)),
    )
    probes = encoder.normalised(_probes(encoder.image_size))
    embeddings = question(probes)
    fingerprint = _fingerprint(spec, embeddings)
    memo = Memo(cache_dir() / "embeddings" / f"{fingerprint}.sqlite", question)
    memo.keep(probes, embeddings)
    encoder.module = BlackBox(memo).eval()
    encoder.provenance = Provenance(spec, fingerprint, f"black box {spec}", "--arch", (ASKED_ONCE,))
    return encoder


def _name(function: Callable[..., Any]) -> str:
    """Return a callable's name as ``--arch`` would have it."""
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _preprocessing(
    spec: str,
    function: Callable[..., Any],
    image_size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Preprocessing:
    """Return what is said on the command line, then by the callable; pixels stay as they are.

    Raises:
        ConfigError: nothing says the image size, or a value cannot work.
    """
    size = getattr(function, "image_size", None) if image_size is None else image_size
    if not isinstance(size, int):
        raise ConfigError(
            f"--arch {quoted(spec)}: its image size is unknown; pass --image-size, or give the "
            "callable an attribute image_size"
        )
    check_preprocessing(size, mean, std)
    pixels = Preprocessing(
        size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), AS_THEY_ARE, {"image_size": "the callable"}
    )
    return overridden(pixels, image_size, mean, std)


def _probes(size: int) -> Tensor:
    """Return the two images (2, 3, size, size) in [0, 1] by which a black box is recognised.

    The first is the grey one on which encoders are measured; it tells little of some of them.
    """
    grey = torch.full((1, 3, size, size), 0.5)
    return torch.cat([grey, procedural.images(1, size=size, seed=0)])


def _fingerprint(spec: str, embeddings: Tensor) -> str:
    """Return a SHA-256 of the spec and of embeddings (2, D), but for tiny noise in them."""
    # By the longer one's length: of an embedding near zero the noise is all there is.
    length = embeddings.double().norm(dim=1).max().clamp_min(1e-30)
    parts = (embeddings.double() / length).tensor_split(PARTS, dim=1)
    sums = torch.stack([part.sum(1) for part in parts], dim=1)
    # Adding zero makes -0.0 the same as 0.0.
    coarse = [[round(value, DIGITS) + 0.0 for value in row] for row in sums.tolist()]
    return content_hash([spec, embeddings.shape[1], coarse, f"{float(length):.2e}"])


def _floats(answer: Any) -> Tensor:
    """Return a tensor, an array or nested lists of numbers as float32 on the CPU.

    Raises:
        TypeError, ValueError: it is none of these.
    """
    if isinstance(answer, Tensor):
        return answer.detach().to("cpu", torch.float32)
    return torch.from_numpy(np.array(answer, dtype=np.float32))
