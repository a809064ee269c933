"""Vision transformers of any width and depth under timm's names, but for their number of heads."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

from encodercheck.weights.checkpoint import Checkpoint
from encodercheck.weights.match import MAX_ENCODERS, is_head
from encodercheck.weights.spec import Shape

BASE = "timm:vit_base_patch16_224"
START = "patch_embed.proj.weight"
# The widths of a head that are in use, the commonest first.
HEAD_WIDTHS = (64, 32, 80, 48, 96, 128, 16)
MAX_DEPTH = 200
WEIGHTS = ("weight", "bias")


def read_vit(checkpoint: Checkpoint) -> list[str]:
    """Return what a vision transformer in a file may be, a ``--arch`` for each number of heads.

    The list is empty where the file holds nothing of the kind. Width, depth, patch and image size
    are read off the shapes; how the width is divided among heads leaves no trace in them.
    """
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    prefixes = [name.removesuffix(START) for name in shapes if name.endswith(START)]
    for prefix in prefixes[:MAX_ENCODERS]:
        inside = {k[len(prefix) :]: v for k, v in shapes.items() if k.startswith(prefix)}
        options = _options(inside)
        if options and _explains(options, inside):
            width = int(options["embed_dim"])
            heads = [width // side for side in HEAD_WIDTHS if width % side == 0]
            return [_arch({**options, "num_heads": str(count)}) for count in heads]
    return []


def _options(shapes: Mapping[str, Shape]) -> dict[str, str]:
    patches = shapes["patch_embed.proj.weight"]
    positions = shapes.get("pos_embed", ())
    hidden = shapes.get("blocks.0.mlp.fc1.weight", ())
    if len(patches) != 4 or patches[1] != 3 or len(positions) != 3 or len(hidden) != 2:
        return {}
    width, patch = patches[0], patches[2]
    depth = len({key.split(".")[1] for key in shapes if re.match(r"blocks\.\d+\.attn\.qkv\.", key)})
    tokens = positions[1] - ("cls_token" in shapes)
    side = math.isqrt(max(tokens, 0))
    if side * side != tokens or not side or not width or not 1 <= depth <= MAX_DEPTH:
        return {}
    options = {
        "img_size": str(side * patch),
        "patch_size": str(patch),
        "embed_dim": str(width),
        "depth": str(depth),
    }
    if hidden[0] != 4 * width:
        options["mlp_ratio"] = str(hidden[0] / width)
    if "blocks.0.attn.qkv.bias" not in shapes:
        options["qkv_bias"] = "False"
    if "blocks.0.ls1.gamma" in shapes:
        options["init_values"] = "1.0"
    if "norm_pre.weight" in shapes:
        options["pre_norm"] = "True"
    if "cls_token" not in shapes:
        options |= {"class_token": "False", "global_pool": "avg"}
        if "fc_norm.weight" in shapes:
            return {}
    elif "fc_norm.weight" in shapes:
        options["global_pool"] = "avg"
    return options


def _explains(options: Mapping[str, str], names: Iterable[str]) -> bool:
    """Tell whether a transformer with these options has exactly these tensors, but for heads."""
    parts = [f"{name}.{part}" for name in ("norm1", "attn.proj", "norm2") for part in WEIGHTS]
    parts += [f"mlp.{name}.{part}" for name in ("fc1", "fc2") for part in WEIGHTS]
    parts += ["attn.qkv.weight"] if "qkv_bias" in options else [f"attn.qkv.{w}" for w in WEIGHTS]
    parts += ["ls1.gamma", "ls2.gamma"] if "init_values" in options else []
    expected = {f"blocks.{k}.{part}" for k in range(int(options["depth"])) for part in parts}
    expected |= {"pos_embed", *(f"patch_embed.proj.{part}" for part in WEIGHTS)}
    expected |= set() if "class_token" in options else {"cls_token"}
    norms = [*(["norm_pre"] if "pre_norm" in options else []), _final_norm(options)]
    expected |= {f"{norm}.{part}" for norm in norms for part in WEIGHTS}
    found = {name for name in names if name in expected or not is_head(name)}
    return found == expected


def _final_norm(options: Mapping[str, str]) -> str:
    """Return what timm calls the last norm: it follows the pool where there is a class token."""
    pooled = options.get("global_pool") == "avg" and "class_token" not in options
    return "fc_norm" if pooled else "norm"


def _arch(options: Mapping[str, str]) -> str:
    return ",".join([BASE, *(f"{key}={value}" for key, value in options.items())])
