"""The libraries' own models, built and run the libraries' own way: the truth to compare with."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from encodercheck.weights.build import split

BATCH_NORM = nn.modules.batchnorm._BatchNorm


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


def features(arch: str, model: nn.Module, images: Tensor) -> Tensor:
    """Return the features of normalised images by the library's own means, (N, D).

    A timm model loses its classifier, as :func:`timm.models.VisionTransformer.reset_classifier`
    takes it off.
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
    """Return the embedding by a model of the transformers library, with a head or without.

    ``kind`` says which of its outputs that is: the class token, the mean of all tokens or of the
    patches' alone, the library's own pooling, or what it compares with texts.
    """
    with torch.no_grad():
        if kind == "image features":
            output = model.get_image_features(images)
            made = getattr(output, "pooler_output", output)
        else:
            tower = getattr(model, "vision_model", model.base_model)
            if hasattr(tower.config, "mask_ratio"):
                tower.config.mask_ratio = 0.0
            output = tower(images)
            made = {
                "class token": lambda: output.last_hidden_state[:, 0],
                "mean": lambda: output.last_hidden_state.mean(1),
                "patch mean": lambda: output.last_hidden_state[:, 1:].mean(1),
                "pooled": lambda: output.pooler_output,
            }[kind]()
    features: Tensor = made.flatten(1)
    return features


def images(count: int, size: int, seed: int = 5) -> Tensor:
    """Return normalised images that differ at every scale, as noise alone would not after a pool.

    Noise of another seed is, to a deep network, the same image again.
    """
    generator = torch.Generator().manual_seed(seed)
    made = torch.zeros(count, 3, size, size)
    for side in (1, 4, 16, size):
        drawn = torch.randn(count, 3, side, side, generator=generator)
        made += interpolate(drawn, (size, size), mode="bilinear", antialias=False) / 2
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
        norms = [part for part in model.modules() if isinstance(part, BATCH_NORM)]
        for norm in norms:
            norm.momentum = 1.0
        if norms:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model.train()
                run: Any = getattr(model, "encode_image", model)
                run(images(4, size, seed=0))
                model.eval()


def _lively(name: str, drawn: Tensor) -> Tensor:
    """Return standard normal numbers scaled to what a parameter of that name could be."""
    positions = any(mark in name for mark in ("pos", "table", "bias", "token", "embedding"))
    if drawn.ndim in (2, 4) and not positions:
        return drawn / math.sqrt(math.prod(drawn.shape[1:]))
    if drawn.ndim == 1 and not positions:
        return 0.75 + 0.1 * drawn
    return 0.2 * drawn
