"""Trained DeDe decoders, kept by model, clean images and settings: none is trained twice."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from encodercheck.cache import atomic_write_bytes, cache_dir, content_hash, make_folder
from encodercheck.encoder import Encoder
from encodercheck.errors import OutputError
from encodercheck.images.source import Further
from encodercheck.methods.decoders import DECODERS
from encodercheck.methods.dede import Dede, Fitted, Inspection, Settings
from encodercheck.methods.patches import PatchGrid
from encodercheck.methods.reconstruction import Reconstructor
from encodercheck.progress import Progress, silent

# Raised when a file of an earlier version of this code would mean something else.
FORMAT = 2
_DECODER = "decoder."
_HELD_BACK = "held_back."


def key(encoder: Encoder, clean: Further, settings: Settings) -> str:
    """Return what names the decoder: the encoder, the clean images, the settings and the device.

    One file can be read as several encoders, by ``--arch``, ``--tower`` or a second reading of what
    it claims. So the file's hash alone names none: what is built from it and the weights in that
    are part of the key.
    """
    return content_hash(
        {
            "format": FORMAT,
            "model": encoder.provenance.sha256,
            "architecture": encoder.provenance.architecture,
            "structure": encoder.structure,
            "weights": _weights_digest(encoder.module),
            "preprocessing": asdict(encoder.preprocessing),
            "images": clean.identity(),
            # Any score can be had from the same decoder.
            "settings": {**asdict(settings), "score": None},
            "device": encoder.device.type,
            "torch": torch.__version__,
        }
    )


def fit(
    encoder: Encoder,
    clean: Further,
    settings: Settings,
    *,
    rate: float,
    sigmas: float | None = None,
    progress: Progress = silent,
) -> Dede:
    """Return a decoder fitted to ``clean`` images, from the cache where it is there.

    An encoder that no file stands behind has no name, and its decoder is not kept.

    Raises:
        CheckInconclusive: embeddings are not finite, or say nothing about images.
        ImagesError: the clean images cannot be read.
        ValueError: there are too few images for the threshold.
    """
    dede = Dede(encoder.folded(), settings, rate=rate, sigmas=sigmas)
    if not encoder.provenance.sha256:
        return dede.fit(clean.parts(), progress=progress)
    path = cache_dir() / "dede" / f"{key(encoder, clean, settings)}.safetensors"
    fitted = _read(path, encoder, settings)
    if fitted is not None:
        # The rate is not the decoder's: an earlier run may have asked for another.
        dede.require_enough(len(fitted.held_back.error))
        return replace(dede, fitted=fitted)
    dede.fit(clean.parts(), progress=progress)
    # A cache that cannot be written costs time and nothing else.
    with suppress(OutputError):
        make_folder(path.parent)
        atomic_write_bytes(path, _bytes(dede.known))
    return dede


def _weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a module's weights and buffers, with their names."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        told = f"{name} {tensor.dtype} {tuple(tensor.shape)} "
        words = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(told.encode())
        digest.update(words.numpy().tobytes())
    return digest.hexdigest()


def _bytes(fitted: Fitted) -> bytes:
    made = fitted.reconstructor
    tensors = {
        "grid": torch.tensor([made.grid.side, made.grid.detail]),
        "centre": made.centre,
        "scale": made.scale,
        "rivals": made.rivals,
        **{_DECODER + name: tensor for name, tensor in made.decoder.state_dict().items()},
        **{_HELD_BACK + name: tensor for name, tensor in vars(fitted.held_back).items()},
    }
    return safetensors.torch.save({n: t.cpu().contiguous() for n, t in tensors.items()})


def _read(path: Path, encoder: Encoder, settings: Settings) -> Fitted | None:
    """Return what the file holds; None where there is none, or a damaged one."""
    try:
        tensors = safetensors.torch.load_file(path, device=str(encoder.device))
        side, detail = tensors.pop("grid").tolist()
        grid = PatchGrid(side, detail)
        # Random weights that are replaced at once.
        with torch.random.fork_rng(devices=[]):
            decoder = DECODERS[settings.decoder](len(tensors["centre"]), grid)
        decoder.load_state_dict(_under(tensors, _DECODER))
        reconstructor = Reconstructor(
            grid,
            decoder.to(encoder.device).eval().requires_grad_(False),
            tensors["centre"],
            tensors["scale"],
            tensors["rivals"],
        )
        return Fitted(reconstructor, Inspection(**_under(tensors, _HELD_BACK)))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError):
        return None


def _under(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
