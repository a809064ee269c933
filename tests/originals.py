"""The libraries' own models, built and run the libraries' own way: the truth to compare with."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn


def full(arch: str, *, on_meta: bool = False, **options: Any) -> nn.Module:
    """Return the library's default model, classifier and text tower included."""
    library, _, name = arch.partition(":")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        if on_meta:
            try:
                with torch.device("meta"):
                    return _make(library, name, options)
            except Exception:
                pass  # some models compute with their weights
        return _make(library, name, options)


def shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the library's default model."""
    state = full(arch, on_meta=True).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def features(arch: str, model: nn.Module, images: Tensor) -> Tensor:
    """Return the features of normalised images by the library's own means, (N, D)."""
    library = arch.partition(":")[0]
    with torch.no_grad():
        if library == "open_clip":
            made: Tensor = model.encode_image(images)  # type: ignore[operator]
        elif library == "timm":
            model.reset_classifier(0)  # type: ignore[operator]
            made = model(images)
        else:
            made = _before_the_classifier(model, images)
    return made.flatten(1)


def _make(library: str, name: str, options: dict[str, Any]) -> nn.Module:
    if library == "torchvision":
        import torchvision

        model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    elif library == "timm":
        import timm

        model = timm.create_model(name, pretrained=False, **options)
    else:
        import open_clip

        config = open_clip.get_model_config(name)
        # A text tower of the transformers library would be fetched; it does not matter here.
        config["text_cfg"] = {
            "context_length": 4,
            "vocab_size": 64,
            "width": 32,
            "heads": 2,
            "layers": 1,
        }
        config["vision_cfg"].pop("timm_model_pretrained", None)
        config.pop("multimodal_cfg", None)
        kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
        model = kind(**config)
    return model.eval()


def _before_the_classifier(model: nn.Module, images: Tensor) -> Tensor:
    """Return what goes into torchvision's last linear layer."""
    last = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
    seen: list[Tensor] = []
    handle = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images)
    handle.remove()
    return seen[0]


def enliven(model: nn.Module, size: int) -> None:
    """Give a model weights that keep signals alive, and its norms statistics of their own."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            drawn = torch.randn(tensor.shape, generator=generator)
            if tensor.ndim in (2, 4) and "pos" not in name and "table" not in name:
                drawn /= math.sqrt(math.prod(tensor.shape[1:]))
            elif name.endswith("running_var"):
                drawn = drawn.abs() + 0.5
            elif tensor.ndim == 1 and not name.endswith(("bias", "running_mean")):
                drawn = 0.75 + 0.1 * drawn
            else:
                drawn *= 0.2
            tensor.copy_(drawn)
        norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            images = torch.randn(4, 3, size, size, generator=generator)
            model.train()
            model.encode_image(images) if hasattr(model, "encode_image") else model(images)  # type: ignore[operator]
            model.eval()
