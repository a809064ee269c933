"""From a model's files to an encoder: the plan, then the weights, then a probe.

Everything cheap comes first. The header is validated and an architecture found before torch builds
anything, and the weights are read only once every tensor is known to fit.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from encodercheck import room
from encodercheck.encoder import Encoder, Provenance, pick_device
from encodercheck.errors import LoadError
from encodercheck.planning import Plan, plan
from encodercheck.preprocessing import Preprocessing
from encodercheck.weights.build import computes_on_meta
from encodercheck.weights.header import located, quoted, reason
from encodercheck.weights.match import UNUSED
from encodercheck.weights.rivals import Rival
from encodercheck.weights.tensors import read_tensors
from encodercheck.weights.two_towers import TextTower


@dataclass(frozen=True)
class Inspection:
    """What a model's files hold, without their weights.

    ``tensors`` and ``parameters`` count what the encoder takes from the files.
    """

    path: str
    architecture: str
    found_by: str
    notes: tuple[str, ...]
    preprocessing: Preprocessing
    tensors: int
    parameters: int
    text_tower: TextTower | None


def load(
    model: str | Path,
    *,
    arch: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: str = "auto",
    tower: str | None = None,
    at_once: int = 1,
) -> Encoder:
    """Load an image encoder from a .safetensors file, a model folder, or ``hf://org/name[@rev]``.

    Args:
        model: the file, the folder, or the name on the hub.
        arch: ``torchvision:NAME``, ``timm:NAME``, ``open_clip:NAME``, a bare name,
            ``resnet,stem_stride=1``, or ``package.module:callable``; None finds it out.
        image_size: side of the square input in pixels, where the model's own is unknown or wrong.
        mean: three numbers subtracted from pixels in [0, 1].
        std: three numbers to divide by after that.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        tower: the prefix of the encoder that is meant, where the file holds several; ``.`` for the
            one without a prefix. None takes a student before a teacher, and notes it.
        at_once: how many images are to be in memory together; too many for it are an error.

    Returns:
        The encoder: (N, 3, H, W) images in [0, 1] to (N, D) embeddings. Weights are float32 copies
        of the file's, whatever their values: NaN is for a check to find.

    Raises:
        LoadError: the files cannot be read, do not fit, or hold no image encoder.
        ConfigError: an argument cannot work.
    """
    target = pick_device(device)
    made = plan(model, arch=arch, image_size=image_size, mean=mean, std=std, tower=tower)
    path = made.checkpoint.path
    module, digest, rivals = _with_weights(made)
    provenance = Provenance(
        str(path), digest, made.architecture, made.found_by, made.notes, made.text_tower, rivals
    )
    try:
        encoder = Encoder(
            module, preprocessing=made.preprocessing, provenance=provenance, device=target
        )
        if target.type == "cpu" and _is_convolutional(module):
            module.to(memory_format=torch.channels_last)
    except RuntimeError as error:
        raise LoadError(
            f"{located(path)}: does not fit on {target}: {quoted(error, 200)}; try --device cpu"
        ) from error
    room.require_for(encoder, at_once)
    room.require_for_one(encoder)
    _probe(encoder)
    return encoder


def inspect(
    model: str | Path,
    *,
    arch: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    tower: str | None = None,
) -> Inspection:
    """Say which encoder a model is, and how that was found, without reading its weights.

    Raises:
        LoadError: the files cannot be read, do not fit, or hold no image encoder.
        ConfigError: an argument cannot work.
    """
    made = plan(model, arch=arch, image_size=image_size, mean=mean, std=std, tower=tower)
    tensors = made.checkpoint.tensors
    counted = [
        tensors[name].numel
        for name, inner in made.key_map.items()
        if not inner.endswith(("running_mean", "running_var"))
    ]
    return Inspection(
        path=str(made.checkpoint.path),
        architecture=made.architecture,
        found_by=made.found_by,
        notes=made.notes,
        preprocessing=made.preprocessing,
        tensors=len(made.key_map),
        parameters=sum(counted),
        text_tower=made.text_tower,
    )


def _with_weights(made: Plan) -> tuple[nn.Module, str, tuple[str, ...]]:
    """Build the module and give it the file's weights as float32.

    Return the files' SHA-256 too, and the prefixes of encoders of which it is one and that differ.

    What lies on the meta device takes the tensors as they come from the file; what was built on the
    CPU is written to. Either way the weights are in memory once.
    """
    module = made.build(True)
    if computes_on_meta(module):
        module = made.build(False)
    state = module.state_dict()
    names = {made.checkpoint.name_in_file(name): inner for name, inner in made.key_map.items()}
    taken: OrderedDict[str, Tensor] = OrderedDict()
    # The version of each part's layout, without which some take the tensors for an older one's.
    taken._metadata = getattr(state, "_metadata", None)  # type: ignore[attr-defined]
    compared = _Comparison(made.rivals)

    def take(name: str, tensor: Tensor | None) -> bool:
        compared.see(name, tensor)
        if name not in names:
            return name in compared.names
        if tensor is not None:
            wanted = state[names[name]]
            fresh = _converted(name, tensor, wanted)
            if wanted.is_meta or wanted.dtype != fresh.dtype:
                taken[names[name]] = fresh
            else:
                wanted.copy_(fresh)
        return True

    try:
        with torch.no_grad():
            digest = read_tensors(made.checkpoint, take)
            _give(module, state, taken, made.tied)
    except (RuntimeError, ValueError) as error:
        raise LoadError(
            f"{located(made.checkpoint.path)}: the weights cannot be read: {reason(error)}; if the "
            "file changed meanwhile, try again"
        ) from error
    return module, digest, compared.differing


class _Comparison:
    """Whether encoders in one file are copies of each other, bit by bit."""

    def __init__(self, rivals: Sequence[Rival]) -> None:
        self._rivals = rivals
        self._digests: dict[str, bytes] = {}
        twins = [rival.twins or {} for rival in rivals]
        self.names = {name for pairs in twins for pair in pairs.items() for name in pair}

    def see(self, name: str, tensor: Tensor | None) -> None:
        """Note what is in a tensor of the file."""
        if tensor is not None and name in self.names:
            told = f"{tensor.dtype}{tuple(tensor.shape)}".encode()
            bits = tensor.reshape(-1).view(torch.uint8).numpy()
            self._digests[name] = hashlib.sha256(told + bits.tobytes()).digest()

    @property
    def differing(self) -> tuple[str, ...]:
        """The prefix of the encoder that was taken and those that differ; () where none does."""
        found = [rival for rival in self._rivals if not self._is_copy(rival)]
        return (found[0].own, *(rival.name for rival in found)) if found else ()

    def _is_copy(self, rival: Rival) -> bool:
        pairs = (rival.twins or {}).items()
        same = all(self._digests[name] == self._digests[twin] for name, twin in pairs)
        return rival.twins is not None and same


def _converted(name: str, tensor: Tensor, wanted: Tensor) -> Tensor:
    """Return a tensor of the file as the module wants it: floats as float32."""
    floating = wanted.is_floating_point()
    if tensor.is_floating_point() != floating:
        raise ValueError(f"tensor {quoted(name)} holds floats where integers belong")
    return tensor.to(torch.float32 if floating else wanted.dtype)


def _give(
    module: nn.Module,
    state: Mapping[str, Tensor],
    taken: dict[str, Tensor],
    tied: Mapping[str, str],
) -> None:
    """Put into the module what was not written to it already, and see that nothing is left."""
    for inner, wanted in state.items():
        if inner.endswith(UNUSED):
            taken[inner] = torch.zeros(wanted.shape, dtype=torch.long)
        elif inner in tied:
            taken[inner] = taken.get(tied[inner], state[tied[inner]])
    module.load_state_dict(taken, strict=False, assign=True)
    left = [name for name, tensor in module.state_dict().items() if tensor.is_meta]
    if left:
        raise ValueError(f"nothing in the file for {quoted(left[0])}")


def _is_convolutional(module: nn.Module) -> bool:
    """Tell convolutional networks from transformers, whose only convolution makes the patches.

    Where there are convolutions over three dimensions, channels cannot be put last.
    """
    parts = list(module.modules())
    flat = sum(isinstance(part, nn.Conv2d) for part in parts) > 1
    return flat and not any(isinstance(part, nn.Conv3d) for part in parts)


def _probe(encoder: Encoder) -> None:
    """Embed grey images, so that an encoder that cannot do it is refused here."""
    path, size = located(encoder.provenance.path), encoder.image_size
    advice = "try another --image-size, or the --arch that fits"
    try:
        with torch.random.fork_rng(devices=[]):
            shape = tuple(encoder(torch.full((2, 3, size, size), 0.5)).shape)
            dimension = encoder.embedding_dim
    except Exception as error:
        raise LoadError(
            f"{path}: {encoder.provenance.architecture} fails on {size}x{size} images: "
            f"{reason(error)}; {advice}"
        ) from error
    if shape != (2, dimension) or dimension == 0:
        raise LoadError(
            f"{path}: {encoder.provenance.architecture} turns 2 images into {shape}, not into "
            f"one embedding each; {advice}"
        )
