"""The libraries' own models, built and run the libraries' own way: the truth to compare with."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from encodercheck.weights.build import split

# Of fewer images the statistics fit no others, and signals explode.
CALIBRATION = 8


def full(arch: str, *, on_meta: bool = False, **options: Any) -> nn.Module:
    """Return the library's default model, classifier and text tower included.

    Options may also follow the name: ``timm:vit_tiny_patch16_224,img_size=160``.
    """
    library, _, spec = arch.partition(":")
    name, named = split(spec)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        if on_meta:
            try:
                with torch.device("meta"):
                    return _make(library, name, {**named, **options})
            except Exception:
                pass  # some models compute with their weights
        return _make(library, name, {**named, **options})


def shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the library's default model."""
    state = full(arch, on_meta=True).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def image_size(arch: str, model: nn.Module) -> int:
    """Return the side of the images that a model of :func:`full` was built for."""
    library, _, spec = arch.partition(":")
    name, options = split(spec)
    if library == "open_clip":
        size: Any = model.visual.image_size  # type: ignore[union-attr]
    elif library == "timm":
        size = options.get("img_size") or model.pretrained_cfg["input_size"]  # type: ignore[index]
    else:
        import torchvision

        weights = next(iter(torchvision.models.get_model_weights(name)))
        size = options.get("image_size") or weights.transforms().crop_size
    return int(size if isinstance(size, int) else size[-1])


def encoder_names(arch: str, model: nn.Module) -> dict[str, str]:
    """Lead from a model's names of tensors to those that its image encoder has alone.

    A timm model loses its classifier.
    """
    library = arch.partition(":")[0]
    names = list(model.state_dict())
    if library == "open_clip":
        return {name: name[len("visual.") :] for name in names if name.startswith("visual.")}
    if library == "timm":
        model.reset_classifier(0)  # type: ignore[operator]
        return {name: name for name in model.state_dict()}
    last = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)][-1]
    return {name: name for name in names if not name.startswith(f"{last}.")}


def features(arch: str, model: nn.Module, images: Tensor) -> Tensor:
    """Return the features of normalised images by the library's own means, (N, D).

    A timm model loses its classifier.
    """
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


def transformers_features(kind: str, model: Any, images: Tensor) -> Tensor:
    """Return the embedding by a model of the transformers library, without a head.

    ``kind`` says which of its outputs that is: the class token, the mean of all tokens or of the
    patches' alone, the library's own pooling, or what it compares with texts.
    """
    if hasattr(model.config, "mask_ratio"):
        model.config.mask_ratio = 0.0
    with torch.no_grad():
        output = model.get_image_features(images) if kind == "image features" else model(images)
    made: Tensor
    if kind == "class token":
        made = output.last_hidden_state[:, 0]
    elif kind == "mean":
        made = output.last_hidden_state.mean(1)
    elif kind == "patch mean":
        made = output.last_hidden_state[:, 1:].mean(1)
    else:
        made = output.pooler_output
    return made.flatten(1)


def images(count: int, size: int, seed: int = 5) -> Tensor:
    """Return normalised images that differ at every scale.

    To a deep network, noise of every seed is the same image.
    """
    generator = torch.Generator().manual_seed(seed)
    made = torch.zeros(count, 3, size, size)
    for side in (1, 4, 16, size):
        drawn = torch.randn(count, 3, side, side, generator=generator)
        made += interpolate(drawn, (size, size), mode="bilinear") / 2
    return made


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
        config["vision_cfg"] |= options
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
    """Give a model weights that keep signals alive, and its norms statistics of their own.

    Buffers that a model computes by itself keep their values.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.numel():
                parameter.copy_(_lively(name, torch.randn(parameter.shape, generator=generator)))
        norms = batch_norms(model)
        for norm in norms:
            norm.momentum = 1.0
            if norm.affine:
                # Around zero, what rounds differently would grow from layer to layer.
                norm.weight *= 0.7
                norm.bias += 0.5
        if norms:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model.train()
                run: Any = getattr(model, "encode_image", model)
                run(images(CALIBRATION, size, seed=0))
                model.eval()


def batch_norms(model: nn.Module) -> list[Any]:
    """Return the parts of a model that have statistics."""
    return [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def _lively(name: str, drawn: Tensor) -> Tensor:
    """Return standard normal numbers scaled to what a parameter of that name could be."""
    if drawn.ndim in (2, 4) and not any(mark in name for mark in ("pos", "table", "bias")):
        return drawn / math.sqrt(math.prod(drawn.shape[1:]))
    if drawn.ndim == 1 and not any(mark in name for mark in ("bias", "token", "embedding")):
        return 0.75 + 0.1 * drawn
    return 0.2 * drawn
