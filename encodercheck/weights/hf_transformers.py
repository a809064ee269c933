"""Image towers in the layout of the transformers library: from a config.json to a module.

What an embedding is, by model type:

=========================================  =========================================================
vit, deit, vit_mae, vit_msn, dinov2,       the class token after the last norm (not ViT's
dinov2_with_registers, dinov3_vit          ``pooler.dense``, which few models train)
ijepa                                      the mean of the tokens after the last norm
clip, chinese_clip, metaclip_2, and their  ``image_embeds``: the pooled class token, projected, not
vision models with projection              scaled to length 1
their vision models without projection     ``pooler_output``: the pooled class token
siglip and its vision model                ``pooler_output`` of the attention head; the mean of the
                                           tokens where the config says that there is none
beit, data2vec-vision                      ``pooler_output``: the mean of the patch tokens, normed
                                           where the file has that norm; the class token where
                                           the config says so
resnet, regnet, convnext, convnextv2,      ``pooler_output``: the mean over all places
swin, swinv2
dinov3_convnext                            ``pooler_output``: that mean, normed
=========================================  =========================================================

Masked autoencoders see every patch. Nothing is downloaded, and no code but the library's own runs:
the classes follow from ``model_type`` by way of :data:`SUPPORTED`, and a config.json gives no more
than numbers, flags and words, for the fields listed there, within bounds. Whatever else it says,
such as ``auto_map`` or an attention implementation, never reaches the library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.overrides import TorchFunctionMode

from encodercheck.errors import ConfigError, LoadError
from encodercheck.preprocessing import IMAGENET, Preprocessing, Triple
from encodercheck.weights.build import Source, library
from encodercheck.weights.checkpoint import Checkpoint
from encodercheck.weights.folder import PROCESSOR
from encodercheck.weights.header import quoted, reason
from encodercheck.weights.metadata import MAX_IMAGE_SIZE, checked_image_size, checked_triple

MAX_SIZE = 2**16
MAX_LAYERS = 1_000
MAX_STAGES = 16
MAX_PATCHES_A_SIDE = 128
# Swin keeps an index of as many numbers per layer: the square of a window's area.
MAX_WINDOW_INDICES = 2**24

CLIP: tuple[Triple, Triple] = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
HALF: tuple[Triple, Triple] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

# Buffers that follow from the config; some versions of the library save them, others do not.
COMPUTED = frozenset({"position_ids", "relative_position_index", "relative_coords_table"})

Options = Callable[[Any, Tensor], dict[str, Any]]
Rule = Callable[[Any], Any]


class _Beside:
    """The names of what the library saves beside an image tower, without the tower's prefix."""

    pattern = re.compile(
        r"(text_model|text_projection|visual_projection|logit_scale|logit_bias|pooler|lm_head"
        r"|decoder|(cls_|distillation_)?classifier)(\..+)?"
        rf"|(.+\.)?(mask_token|{'|'.join(sorted(COMPUTED))})"
    )

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.pattern.fullmatch(name) is not None


BESIDE = _Beside()
"""The names that a file may have and its tower may lack: of heads, of the text tower, of buffers
that follow from the config."""


# What a model is given beside the images.


def _nothing(model: Any, images: Tensor) -> dict[str, Any]:
    return {}


def _interpolation(model: Any, images: Tensor) -> dict[str, Any]:
    return {"interpolate_pos_encoding": images.shape[-1] != model.config.image_size}


def _unmasked(model: Any, images: Tensor) -> dict[str, Any]:
    """Give the order of the patches, which would be drawn at random otherwise."""
    count = math.prod(side // model.config.patch_size for side in images.shape[-2:])
    order = torch.arange(count, dtype=torch.float32, device=images.device)
    return {**_interpolation(model, images), "noise": order.expand(len(images), -1)}


# What is taken of a model's outputs.


def _class_token(outputs: Any) -> Tensor:
    token: Tensor = outputs.last_hidden_state[:, 0]
    return token


def _mean(outputs: Any) -> Tensor:
    mean: Tensor = outputs.last_hidden_state.mean(dim=1)
    return mean


def _patch_mean(outputs: Any) -> Tensor:
    mean: Tensor = outputs.last_hidden_state[:, 1:].mean(dim=1)
    return mean


def _pooled(outputs: Any) -> Tensor:
    pooled: Tensor | None = outputs.pooler_output
    return _mean(outputs) if pooled is None else pooled.flatten(1)


@dataclass(frozen=True)
class Family:
    """How the image tower of a model type is built, and what its embedding is.

    ``stem`` begins the names of the library's classes. ``fields`` are read from the config, for
    types of two towers from its ``vision_config``; ``fixed`` are not read. ``normalisation`` is
    that of the type's best-known models. ``renames`` lead from the library's names of tensors to
    those in files, which recent versions convert between. ``pooling`` tells the model's class
    whether to build a pooling layer, None where it takes no such argument; ``pooled_in`` ends the
    names of the classes whose files have a pooling layer with weights. ``fused_gates`` tells that
    files have both inner matrices of a gated MLP in one.
    """

    stem: str
    fields: frozenset[str]
    embed: Callable[[Any], Tensor]
    normalisation: tuple[Triple, Triple]
    options: Options = _nothing
    renames: tuple[tuple[str, str], ...] = ()
    fixed: tuple[tuple[str, Any], ...] = ()
    pooling: bool | None = None
    pooled_in: tuple[str, ...] = ()
    fused_gates: bool = False
    two_towers: bool = False
    projects: bool = False

    def name_in_files(self, name: str) -> str:
        """Return the name in files of one of the model's tensors."""
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


_ATTENTION_NAMES = (
    (r"attention\.q_proj\.", "attention.attention.query."),
    (r"attention\.k_proj\.", "attention.attention.key."),
    (r"attention\.v_proj\.", "attention.attention.value."),
    (r"attention\.o_proj\.", "attention.output.dense."),
)
_MLP_NAMES = ((r"\.mlp\.fc1\.", ".intermediate.dense."), (r"\.mlp\.fc2\.", ".output.dense."))
_VIT_NAMES = ((r"^layers\.", "encoder.layer."), *_ATTENTION_NAMES, *_MLP_NAMES)
_BEIT_NAMES = (
    *_VIT_NAMES,
    (r"^(encoder\.layer\.\d+)\.relative_pos", r"\1.attention.attention.relative_pos"),
    (r"^shared_position_bias\.", "encoder.relative_position_bias."),
)
_SWIN_NAMES = (
    (r"attention\.q_proj\.", "attention.self.query."),
    (r"attention\.k_proj\.", "attention.self.key."),
    (r"attention\.v_proj\.", "attention.self.value."),
    (r"attention\.o_proj\.", "attention.output.dense."),
    (r"attention\.relative_position_bias\.", "attention.self."),
    *_MLP_NAMES,
)
_CLIP_NAMES = ((r"^vision_model\.", ""),)

_IMAGES = frozenset({"num_channels", "image_size"})
_TOKENS = _IMAGES | {"patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads"}
_BLOCKS = _TOKENS | {"hidden_act", "layer_norm_eps"}
_VIT = _BLOCKS | {"intermediate_size", "qkv_bias"}
_DINOV2 = _BLOCKS | {"mlp_ratio", "qkv_bias", "use_swiglu_ffn"}
_DINOV3 = _BLOCKS | {"intermediate_size", "use_gated_mlp", "num_register_tokens", "rope_theta"}
_DINOV3_BIASES = {"query_bias", "key_bias", "value_bias", "proj_bias", "mlp_bias"}
_BEIT = _BLOCKS | {"intermediate_size", "layer_scale_init_value", "use_mask_token"}
_BEIT_POSITIONS = {
    "use_absolute_position_embeddings",
    "use_relative_position_bias",
    "use_shared_relative_position_bias",
}
_STAGES = frozenset({"num_channels", "hidden_sizes", "depths", "hidden_act"})
_RESNET = _STAGES | {"embedding_size", "layer_type", "downsample_in_first_stage"}
_CONVNEXT = _STAGES | {"image_size", "patch_size", "num_stages", "layer_norm_eps"}
_SWIN = _IMAGES | {"patch_size", "embed_dim", "depths", "num_heads", "window_size", "mlp_ratio"}
_SWIN_BLOCKS = {"qkv_bias", "use_absolute_embeddings", "hidden_act", "layer_norm_eps"}

_vit = partial(Family, fields=_VIT, embed=_class_token, options=_interpolation, renames=_VIT_NAMES)
_dinov2 = partial(
    Family,
    embed=_class_token,
    normalisation=IMAGENET,
    renames=_ATTENTION_NAMES,
    fused_gates=True,
)
_convolutional = partial(Family, embed=_pooled, normalisation=IMAGENET)
_swin = partial(
    _convolutional, fields=_SWIN | _SWIN_BLOCKS, options=_interpolation, renames=_SWIN_NAMES
)
_beit = partial(
    Family,
    fields=_BEIT | _BEIT_POSITIONS | {"use_mean_pooling"},
    embed=_pooled,
    normalisation=HALF,
    options=_interpolation,
    renames=_BEIT_NAMES,
    pooling=True,
)
_language_image = partial(Family, embed=_pooled, options=_interpolation, renames=_CLIP_NAMES)
_clip = partial(
    _language_image,
    fields=_BLOCKS | {"intermediate_size", "projection_dim"},
    normalisation=CLIP,
    projects=True,
)
_siglip = partial(
    _language_image,
    stem="SiglipVision",
    fields=_BLOCKS | {"intermediate_size", "vision_use_head"},
    normalisation=HALF,
)

SUPPORTED: Mapping[str, Family] = {
    "vit": _vit("ViT", normalisation=HALF, pooling=False),
    "deit": _vit("DeiT", normalisation=IMAGENET, pooling=False),
    "vit_mae": _vit(
        "ViTMAE", normalisation=IMAGENET, options=_unmasked, fixed=(("mask_ratio", 0.0),)
    ),
    "vit_msn": _vit("ViTMSN", normalisation=IMAGENET),
    "ijepa": _vit("IJepa", normalisation=IMAGENET, embed=_mean, pooling=False),
    "dinov2": _dinov2("Dinov2", fields=_DINOV2 | {"use_mask_token"}),
    "dinov2_with_registers": _dinov2(
        "Dinov2WithRegisters", fields=_DINOV2 | {"num_register_tokens"}
    ),
    "dinov3_vit": Family(
        "DINOv3ViT",
        fields=_DINOV3 | _DINOV3_BIASES,
        embed=_class_token,
        normalisation=IMAGENET,
        renames=((r"^model\.layer\.", "layer."),),
    ),
    "dinov3_convnext": _convolutional(
        "DINOv3ConvNext",
        fields=_STAGES | {"image_size", "layer_norm_eps", "layer_scale_init_value"},
        renames=((r"^model\.stages\.", "stages."),),
    ),
    "clip": _clip("CLIPVision", two_towers=True),
    "clip_vision_model": _clip("CLIPVision"),
    "chinese_clip": _clip("ChineseCLIPVision", two_towers=True),
    "chinese_clip_vision_model": _clip("ChineseCLIPVision"),
    "metaclip_2": _clip("MetaClip2Vision", two_towers=True),
    "metaclip_2_vision_model": _clip("MetaClip2Vision"),
    "siglip": _siglip(two_towers=True),
    "siglip_vision_model": _siglip(),
    "resnet": _convolutional("ResNet", fields=_RESNET | {"downsample_in_bottleneck"}),
    "regnet": _convolutional("RegNet", fields=_RESNET | {"groups_width"}),
    "convnext": _convolutional("ConvNext", fields=_CONVNEXT | {"layer_scale_init_value"}),
    "convnextv2": _convolutional("ConvNextV2", fields=_CONVNEXT),
    "swin": _swin("Swin"),
    "swinv2": _swin(
        "Swinv2", fields=_SWIN | _SWIN_BLOCKS | {"pretrained_window_sizes"}, renames=()
    ),
    "beit": _beit("Beit", pooled_in=("BeitModel", "ForImageClassification")),
    "data2vec-vision": _beit("Data2VecVision", pooled_in=("ForImageClassification",)),
}
"""How the image tower of each supported ``model_type`` is built."""


@dataclass(frozen=True)
class _Recipe:
    """Everything that a tower is built from.

    ``where`` names the config in messages; ``size_source`` says where the image size came from.
    """

    model_type: str
    family: Family
    values: Mapping[str, Any]
    projected: bool
    where: str
    size_source: str

    def classes(self) -> tuple[Any, Any]:
        """Return the library's classes of the config and the model.

        Raises:
            ConfigError: the library is not installed, or too old to have them.
        """
        transformers = library("transformers")
        try:
            stem = self.family.stem
            return getattr(transformers, f"{stem}Config"), getattr(transformers, f"{stem}Model")
        except (AttributeError, ImportError) as error:
            raise ConfigError(
                f"transformers {transformers.__version__} has no {self.model_type}: "
                "pip install -U transformers"
            ) from error

    def make(self) -> nn.Module:
        """Build the tower, on whatever device is the default."""
        config_class, model_class = self.classes()
        pooling = self.family.pooling
        arguments = {} if pooling is None else {"add_pooling_layer": pooling}
        try:
            with _RealConstants():
                config = config_class(**self.values, **dict(self.family.fixed))
                model = model_class(config, **arguments)
                projection = (
                    nn.Linear(config.hidden_size, config.projection_dim, bias=False)
                    if self.projected
                    else None
                )
                return _Tower(model, self.family, projection)
        except Exception as error:
            raise LoadError(
                f"{self.where}: transformers cannot build this {self.model_type}: {reason(error)}; "
                "download the folder again, or update transformers"
            ) from error

    def describe(self, module: nn.Module) -> Preprocessing:
        """Return the preprocessing as far as the config knows it, and assume the rest."""
        mean, std = self.family.normalisation
        assumed = Preprocessing(mean=mean, std=std, source=f"assumed: usual for {self.model_type}")
        config = getattr(getattr(module, "model", None), "config", None)
        return assumed.replaced(self.size_source, image_size=getattr(config, "image_size", None))


def towers(config: Mapping[str, Any], where: str, image_size: int | None = None) -> Source:
    """Return how to build the image tower that a config.json describes.

    The module takes normalised (N, 3, H, W) images and returns (N, D) embeddings; its tensors have
    the names under which the library saves them, without a prefix. ``where`` names the config in
    messages. ``image_size`` goes before the config's, for position embeddings of another length.

    Raises:
        LoadError: the config describes nothing that is supported, or nothing that can be built.
        ConfigError: transformers is not installed, or too old.
    """
    recipe = _recipe(config, where, image_size)
    # Not on the meta device, where what a module makes as it is imported would stay.
    recipe.classes()
    # Here, so that what cannot be built is refused before anybody tries it with real memory.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        recipe.make()
    return Source(f"transformers:{recipe.model_type}", recipe.make, recipe.describe)


def mended(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with all of a tower under one prefix.

    ViTMSNForImageClassification, as transformers 5 saves it, has the layers outside "vit.".
    """
    names = checkpoint.tensors
    if (
        "vit.embeddings.cls_token" not in names
        or "encoder.layer.0.output.dense.weight" not in names
    ):
        return checkpoint
    originals = {
        f"vit.{name}" if name.startswith("encoder.layer.") else name: name for name in names
    }
    tensors = {new: names[old] for new, old in originals.items()}
    return replace(checkpoint, tensors=tensors, originals=originals)


def processed(source: Source, processor: Mapping[str, Any], where: str) -> Source:
    """Return the source with the preprocessing of a preprocessor_config.json going first.

    Raises:
        LoadError: it says something that cannot be meant; ``where`` names it.
    """
    preprocessing(processor, where, Preprocessing())

    def describe(module: nn.Module) -> Preprocessing:
        return preprocessing(processor, where, source.describe(module) or Preprocessing())

    return replace(source, describe=describe)


def preprocessing(
    processor: Mapping[str, Any], where: str, otherwise: Preprocessing
) -> Preprocessing:
    """Return the preprocessing of a preprocessor_config.json; what it leaves open is ``otherwise``.

    Raises:
        LoadError: it says something that cannot be meant; ``where`` names it.
    """
    # A processor_config.json has the same one level down.
    processor = processor.get("image_processor", processor)
    try:
        if not isinstance(processor, Mapping):
            raise ValueError("image_processor is not an object")
        size = _processed_size(processor)
        mean, std = _processed_normalisation(processor, otherwise)
    except ValueError as error:
        raise LoadError(
            f"{where}: {quoted(error, 200)}; download the folder again, or remove that file and "
            "pass --image-size, --mean and --std"
        ) from error
    return otherwise.replaced(PROCESSOR, image_size=size, mean=mean, std=std)


def _processed_size(processor: Mapping[str, Any]) -> int | None:
    """Return the side of the images after resizing and cropping, None where that is left open."""
    for key, active in (("crop_size", "do_center_crop"), ("size", "do_resize")):
        value = processor.get(key)
        if value is None or processor.get(active) is False:
            continue
        if isinstance(value, Mapping):
            sides = [value.get(side) for side in ("height", "width", "shortest_edge")]
            value = [side for side in sides if side is not None]
        try:
            return checked_image_size(_square(value))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return None


def _processed_normalisation(
    processor: Mapping[str, Any], otherwise: Preprocessing
) -> tuple[Triple | None, Triple | None]:
    """Return mean and standard deviation for pixels in [0, 1], None where they are left open."""
    mean = checked_triple("mean", processor.get("image_mean"))
    std = checked_triple("std", processor.get("image_std"))
    if processor.get("do_normalize") is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    factor = processor.get("rescale_factor")
    if processor.get("do_rescale") is False:
        factor = 1
    if factor is None:
        return mean, std
    # What the library normalises are pixels in [0, 255] times the factor.
    scale = 255 * _number(1e-6, 1e6)(factor)
    if math.isclose(scale, 1):
        return mean, std
    return _divided(mean or otherwise.mean, scale), _divided(std or otherwise.std, scale)


def _divided(values: Triple, divisor: float) -> Triple:
    return values[0] / divisor, values[1] / divisor, values[2] / divisor


def _recipe(config: Mapping[str, Any], where: str, image_size: int | None) -> _Recipe:
    """Return what to build, nothing of it left unchecked.

    Raises:
        LoadError: the config names nothing that is supported, or has values that cannot be meant.
    """
    model_type, family = _family(config, where)
    section = _vision_section(config, where) if family.two_towers else config
    _check_unquantised(config, section, where)
    size_source = f"assumed: transformers' default for {model_type}"
    if section.get("image_size") is not None:
        size_source = "config.json's image_size"
    if image_size is not None:
        section, size_source = {**section, "image_size": image_size}, "the position embeddings"
    values = _values(section, family.fields, where)
    _check_extent(values, where)
    saved_from = _architecture(config) or f"{family.stem}Model"
    projected = family.projects and (
        saved_from.endswith("WithProjection")
        or (family.two_towers and not saved_from.endswith("ForImageClassification"))
    )
    normed = family.pooled_in and values.get("use_mean_pooling", True)
    if normed and not saved_from.endswith(family.pooled_in):
        family = replace(family, pooling=False, embed=_patch_mean)
    return _Recipe(model_type, family, values, projected, where, size_source)


def _family(config: Mapping[str, Any], where: str) -> tuple[str, Family]:
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in SUPPORTED:
        return model_type, SUPPORTED[model_type]
    if config.get("auto_map") is not None:
        raise LoadError(
            f"{where}: the model needs code of its own, which encodercheck never runs; pass --arch "
            "package.module:callable"
        )
    if model_type in ("siglip2", "siglip2_vision_model"):
        raise LoadError(
            f"{where}: {model_type} models take patches of images of any shape, which is not "
            "supported; those that take square images have the model_type siglip"
        )
    raise LoadError(
        f"{where}: model_type '{quoted(model_type)}' is not supported (supported: "
        f"{', '.join(SUPPORTED)}); pass --arch package.module:callable"
    )


def _check_unquantised(config: Mapping[str, Any], section: Mapping[str, Any], where: str) -> None:
    for part in (config, section):
        if part.get("quantization_config") is not None:
            raise LoadError(
                f"{where}: the weights are quantised, which is not supported; save the model as "
                "bfloat16 or float32"
            )


def _vision_section(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Return the part of a two-tower config that describes the image tower."""
    # The library lets this older part, where it is there, decide everything.
    section = config.get("vision_config_dict")
    if section is None:
        section = config.get("vision_config")
    if section is None:
        section = {}
    if not isinstance(section, Mapping):
        raise LoadError(f"{where}: vision_config is not an object; download the folder again")
    return {**section, "projection_dim": config.get("projection_dim")}


def _architecture(config: Mapping[str, Any]) -> str:
    """Return the name of the class that the weights were saved from, "" where there is none."""
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    return first if isinstance(first, str) else ""


def _values(section: Mapping[str, Any], fields: frozenset[str], where: str) -> dict[str, Any]:
    values = {}
    for field in sorted(fields):
        value = section.get(field)
        if value is None:
            continue
        try:
            values[field] = RULES[field](value)
        except ValueError as error:
            raise LoadError(f"{where}: {field} {error}; download the folder again") from error
    channels = values.get("num_channels", 3)
    if channels != 3:
        raise LoadError(
            f"{where}: the encoder reads images of {channels} channel{'' if channels == 1 else 's'}"
            "; encodercheck scans RGB encoders (3 channels)"
        )
    return values


def _check_extent(values: Mapping[str, Any], where: str) -> None:
    """Refuse sizes that are plausible each by itself, but not together."""
    # Where the config is silent, the library has as many layers at most.
    depths = values.get("depths", [24])
    image, patch = values.get("image_size"), values.get("patch_size")
    fault = None
    if sum(depths) > MAX_LAYERS:
        fault = f"it has {sum(depths)} layers (at most {MAX_LAYERS})"
    elif image is not None and patch is not None and not 1 <= image // patch <= MAX_PATCHES_A_SIDE:
        fault = f"images of {image} pixels a side have no sensible number of patches of {patch}"
    elif sum(depths) * values.get("window_size", 1) ** 4 > MAX_WINDOW_INDICES:
        fault = f"a window_size of {values['window_size']} takes too much memory"
    if fault is not None:
        raise LoadError(f"{where}: {fault}; download the folder again")


def _integer(low: int, high: int) -> Rule:
    def rule(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"is not an integer from {low} to {high}")
        return value

    return rule


def _number(low: float, high: float) -> Rule:
    def rule(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise ValueError(f"is not a number from {low:g} to {high:g}")
        return float(value)

    return rule


def _integers(low: int, high: int) -> Rule:
    def rule(value: Any) -> list[int]:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_STAGES:
            raise ValueError(f"is not a list of 1 to {MAX_STAGES} integers")
        return [_integer(low, high)(item) for item in value]

    return rule


def _square(value: Any) -> int:
    sides = value if isinstance(value, list) else [value]
    if not 1 <= len(sides) <= 2 or len({*map(repr, sides)}) > 1:
        raise ValueError("is not the side of a square")
    side: int = _integer(1, MAX_IMAGE_SIZE)(sides[0])
    return side


def _ratio(value: Any) -> int | float:
    # The library tells integers from floats here, and not the same for every type.
    _number(1 / 64, 64)(value)
    ratio: int | float = value
    return ratio


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"\w{1,40}", value, re.ASCII):
        raise ValueError("is not a word")
    return value


_size, _count = _integer(1, MAX_SIZE), _integer(1, MAX_LAYERS)
RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("image_size", "patch_size"), _square),
    **dict.fromkeys(("hidden_size", "intermediate_size", "projection_dim", "num_channels"), _size),
    **dict.fromkeys(("embedding_size", "embed_dim", "groups_width", "window_size"), _size),
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_stages"), _count),
    "num_register_tokens": _integer(0, MAX_LAYERS),
    "hidden_sizes": _integers(1, MAX_SIZE),
    **dict.fromkeys(("depths", "num_heads"), _integers(1, MAX_LAYERS)),
    "pretrained_window_sizes": _integers(0, MAX_LAYERS),
    "layer_norm_eps": _number(0, 1),
    "layer_scale_init_value": _number(-1e6, 1e6),
    "mlp_ratio": _ratio,
    "rope_theta": _number(1e-6, 1e9),
    **dict.fromkeys(("hidden_act", "layer_type"), _word),
    **dict.fromkeys(("qkv_bias", "use_swiglu_ffn", "use_gated_mlp", "use_mask_token"), _flag),
    **dict.fromkeys(("downsample_in_first_stage", "downsample_in_bottleneck"), _flag),
    **dict.fromkeys(("use_absolute_embeddings", "vision_use_head", "use_mean_pooling"), _flag),
    **dict.fromkeys((*_DINOV3_BIASES, *_BEIT_POSITIONS), _flag),
}
"""What each field of a config may be: a function that returns the value or raises ValueError."""


class _RealConstants(TorchFunctionMode):
    """Keeps on the CPU what positions are computed from, and so the buffers that no file has."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.arange, torch.linspace):
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


class _FusedSwiGLU(nn.Module):
    """A gated MLP with both inner matrices in one, as files have it."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.weights_in = nn.Linear(width, 2 * inner)
        self.weights_out = nn.Linear(inner, width)

    def forward(self, hidden: Tensor) -> Tensor:
        gate, value = self.weights_in(hidden).chunk(2, dim=-1)
        fused: Tensor = self.weights_out(silu(gate) * value)
        return fused


class _Tower(nn.Module):
    """A model of the library, called on images, its tensors under their names in files."""

    def __init__(self, model: nn.Module, family: Family, projection: nn.Module | None) -> None:
        super().__init__()
        if family.fused_gates:
            _fuse_gates(model)
        _forget_computed(model)
        prefix = "" if projection is None else "vision_model."
        # From names here to names in files.
        self.names = {
            f"model.{name}": prefix + family.name_in_files(name) for name in model.state_dict()
        }
        self.family = family
        self.model = model
        self.visual_projection = projection
        self.register_state_dict_post_hook(_to_file_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_from_file_names)  # type: ignore[no-untyped-call]

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.model(images, **self.family.options(self.model, images))
        embedding = self.family.embed(outputs)
        if self.visual_projection is not None:
            embedding = self.visual_projection(embedding)
        return embedding

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in super().named_parameters("", recurse, remove_duplicate):
            yield self._named(prefix, name), parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        for name, buffer in super().named_buffers("", recurse, remove_duplicate):
            yield self._named(prefix, name), buffer

    def get_parameter(self, target: str) -> nn.Parameter:
        named = dict(self.named_parameters())
        if target not in named:
            raise AttributeError(f"no parameter has the name {target}")
        return named[target]

    def _named(self, prefix: str, name: str) -> str:
        return f"{prefix}{'.' if prefix else ''}{self.names.get(name, name)}"


def _to_file_names(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for name, in_files in module.names.items():
        state[prefix + in_files] = state.pop(prefix + name)


def _from_file_names(module: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    for name, in_files in module.names.items():
        if prefix + in_files in state:
            state[prefix + name] = state.pop(prefix + in_files)


def _fuse_gates(model: nn.Module) -> None:
    """Replace gated MLPs that have their inner matrices apart."""
    for name, part in list(model.named_modules()):
        if hasattr(part, "gate_proj") and hasattr(part, "up_proj"):
            gate: Any = part.gate_proj
            owner, _, attribute = name.rpartition(".")
            fused = _FusedSwiGLU(gate.in_features, gate.out_features)
            setattr(model.get_submodule(owner), attribute, fused)


def _forget_computed(model: nn.Module) -> None:
    """Take out of the model's state what it computes by itself."""
    for part in model.modules():
        for name, buffer in list(part.named_buffers(recurse=False)):
            if name in COMPUTED:
                part.register_buffer(name, buffer, persistent=False)
