"""Model folders: as timm, open_clip and transformers lay them out, and as an attacker would."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import shapes_only, swollen, write
from hypothesis import given
from hypothesis import strategies as st
from originals import enliven, images, shapes
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from encodercheck.encoder import Encoder
from encodercheck.errors import LoadError
from encodercheck.loading import Inspection, inspect, load
from encodercheck.planning import fitted
from encodercheck.weights import configs, folder
from encodercheck.weights.files import locate
from encodercheck.weights.metadata import Metadata

timm = pytest.importorskip("timm")
open_clip = pytest.importorskip("open_clip")

Embed = Callable[[Tensor], Tensor]
MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
VIT: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 4}


def write_json(path: Path, values: Any) -> Path:
    path.write_text(json.dumps(values))
    return path


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def assert_embeds_as(encoder: Encoder, embed: Embed, mean: list[float], std: list[float]) -> None:
    """Compare with the library's own module, which takes images normalised as it says."""
    assert encoder.preprocessing.mean == pytest.approx(mean)
    assert encoder.preprocessing.std == pytest.approx(std)
    pixels = images(2, encoder.image_size).sigmoid()
    shift, scale = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    with torch.no_grad():
        expected = embed((pixels - shift) / scale).flatten(1)
    assert expected.std() > 1e-2
    torch.testing.assert_close(encoder(pixels), expected, atol=1e-5, rtol=1e-5)


# timm.


def timm_folder(path: Path, name: str, size: int, **options: Any) -> nn.Module:
    """Save a model as timm does."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, **options).eval()
    enliven(model, size)
    timm.models.save_for_hf(model, path, safe_serialization=True)
    return model


def loaded_by_timm(path: Path) -> nn.Module:
    module: nn.Module = timm.create_model(f"local-dir:{path}", pretrained=True, num_classes=0)
    return module.eval()


TIMM: dict[str, tuple[str, int, dict[str, Any]]] = {
    "arguments": ("vit_tiny_patch16_224", 32, {**VIT, "num_classes": 5}),
    "other heads": ("vit_tiny_patch16_224", 32, {**VIT, "num_heads": 3}),
    "mean of tokens": ("vit_tiny_patch16_224", 32, {**VIT, "global_pool": "avg"}),
    "attention pool": ("vit_tiny_patch16_224", 32, {**VIT, "global_pool": "map"}),
    "another activation": ("vit_tiny_patch16_224", 32, {**VIT, "act_layer": "relu"}),
    "norm's options": ("vit_tiny_patch16_224", 32, {**VIT, "norm_layer": "layernorm"}),
    "fixed size": ("test_vit2", 96, {"img_size": 96}),
    "default size": ("test_vit2", 160, {}),
    "tag": ("test_vit2.r160_in1k", 160, {}),
    "dynamic size": ("test_vit2", 64, {"img_size": 64, "dynamic_img_size": True}),
    "convnet": ("test_resnet", 160, {"num_classes": 7}),
    "maximum pool": ("test_efficientnet", 160, {"num_classes": 0, "global_pool": "max"}),
    "convnet with a norm in the head": ("test_convnext", 160, {"num_classes": 3}),
    "windows": (
        "swin_tiny_patch4_window7_224",
        64,
        {
            "img_size": 64,
            "window_size": 4,
            "embed_dim": 24,
            "depths": (1, 1, 2, 1),
            "num_heads": (1, 2, 3, 4),
        },
    ),
}


@pytest.mark.parametrize("case", TIMM)
def test_timm_as_saved(tmp_path: Path, case: str) -> None:
    name, size, options = TIMM[case]
    timm_folder(tmp_path, name, size, **options)
    config = read_json(tmp_path / "config.json")["pretrained_cfg"]
    encoder = load(tmp_path, device="cpu")
    assert encoder.provenance.found_by == "config.json (timm)"
    assert encoder.image_size == config["input_size"][-1]
    assert_embeds_as(encoder, loaded_by_timm(tmp_path), config["mean"], config["std"])


def test_what_timm_is_told_can_be_told_as_arch(tmp_path: Path) -> None:
    timm_folder(tmp_path, "vit_tiny_patch16_224", 32, **VIT, num_classes=5)
    found = inspect(tmp_path)
    (tmp_path / "config.json").unlink()
    told = inspect(tmp_path, arch=found.architecture)
    assert (told.architecture, told.tensors) == (found.architecture, found.tensors)


def by_hand(path: Path, name: str, size: int, config: dict[str, Any], **options: Any) -> Path:
    """Save a model with a configuration as older versions, or people, write it."""
    timm_folder(path, name, size, **options)
    write_json(path / "config.json", config)
    return path


@pytest.mark.parametrize("fixed", [True, False])
def test_timms_configurations_by_hand(tmp_path: Path, fixed: bool) -> None:
    """Before 1.0.20, timm saved arguments only where it was given them."""
    name = "test_vit2" if fixed else "test_resnet"
    fields = {"input_size": [3, 96, 96], "fixed_input_size": fixed, "mean": MEAN, "std": STD}
    heads = {"first_conv": "conv1", "classifier": "head", "num_classes": 1000, "custom_load": False}
    config = {"architecture": name, "num_classes": 1000, "pretrained_cfg": {**fields, **heads}}
    by_hand(tmp_path, name, 96, config, **({"img_size": 96} if fixed else {}))
    encoder = load(tmp_path, device="cpu")
    assert encoder.image_size == 96
    assert encoder.provenance.architecture == f"timm:{name}"
    assert_embeds_as(encoder, loaded_by_timm(tmp_path), MEAN, STD)


def test_timms_oldest_configurations(tmp_path: Path) -> None:
    fields = {"input_size": [3, 64, 64], "mean": MEAN, "std": STD, "num_classes": 1000}
    config = {"architecture": "test_resnet", "num_features": 512, "crop_pct": 0.9, **fields}
    by_hand(tmp_path, "test_resnet", 64, {**config, "classifier": "fc", "labels": ["a", "b"]})
    encoder = load(tmp_path, device="cpu")
    assert encoder.image_size == 64
    assert_embeds_as(encoder, loaded_by_timm(tmp_path), MEAN, STD)


def test_a_classifier_of_an_unusual_name(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = timm.create_model("inception_resnet_v2").state_dict()
    tensors = {name: tuple(tensor.shape) for name, tensor in state.items() if tensor.ndim}
    assert "classif.weight" in tensors
    shapes_only(tmp_path / "model.safetensors", tensors)
    config = {"classifier": "classif", "input_size": [3, 299, 299]}
    write_json(
        tmp_path / "config.json", {"architecture": "inception_resnet_v2", "pretrained_cfg": config}
    )
    assert "ignored 2 tensors outside the encoder: classif.* (2)" in inspect(tmp_path).notes


def test_a_configuration_says_less_than_all(tmp_path: Path) -> None:
    """What it leaves open is the library's default for the architecture."""
    timm_folder(tmp_path, "test_vit2", 160)
    write_json(tmp_path / "config.json", {"architecture": "test_vit2"})
    found = inspect(tmp_path)
    assert found.preprocessing.image_size == 160
    assert found.preprocessing.mean == (0.5, 0.5, 0.5)
    assert found.preprocessing.summary() == "timm's test_vit2"


@pytest.mark.parametrize("size", [64, 160])
def test_position_embeddings_of_another_size(tmp_path: Path, size: int) -> None:
    """timm would resample them; what is scanned is the file as it is."""
    fields = {"input_size": [3, 96, 96], "fixed_input_size": True, "mean": MEAN, "std": STD}
    config = {"architecture": "test_vit2", "pretrained_cfg": fields}
    by_hand(tmp_path, "test_vit2", size, config, img_size=size)
    for values in (config, {**config, "model_args": {"img_size": 96, "num_heads": 2}}):
        write_json(tmp_path / "config.json", values)
        files = locate(tmp_path)
        checkpoint = files.open()
        said = [*configs.declared(files.configs, checkpoint)]
        assert [way.size for way in said] == [96, size]
        plans = [fitted(checkpoint, way.source, Metadata(), found_by="") for way in said]
        assert "of another shape (pos_embed is" in plans[0].describe()
        assert plans[1].architecture.startswith(f"timm:test_vit2,img_size={size}")
        assert plans[1].notes[0] == (
            f"config.json says 96 px, the position embeddings are for {size} px"
        )
        preprocessing = plans[1].preprocessing
        assert (preprocessing.image_size, list(preprocessing.mean)) == (size, MEAN)


def test_a_resized_file_loads(tmp_path: Path) -> None:
    fields = {"input_size": [3, 160, 160], "fixed_input_size": True, "mean": MEAN, "std": STD}
    config = {"architecture": "test_vit2", "pretrained_cfg": fields}
    source = timm_folder(tmp_path, "test_vit2", 64, img_size=64)
    write_json(tmp_path / "config.json", config)
    encoder = load(tmp_path, device="cpu")
    source.reset_classifier(0)  # type: ignore[operator]
    assert encoder.image_size == 64
    assert_embeds_as(encoder, source, MEAN, STD)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_narrow_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    source = timm_folder(tmp_path, "test_vit2", 160)
    path = tmp_path / "model.safetensors"
    state = {name: tensor.to(dtype) for name, tensor in load_file(path).items()}
    save_file(state, path)
    source.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    source.reset_classifier(0)  # type: ignore[operator]
    assert_embeds_as(load(tmp_path, device="cpu"), source, [0.5] * 3, [0.5] * 3)


# open_clip.

TEXT = {"context_length": 4, "vocab_size": 16, "width": 16, "heads": 2, "layers": 1}
VISION: dict[str, Any] = {
    "image_size": 48,
    "layers": 2,
    "width": 32,
    "head_width": 8,
    "patch_size": 16,
}


def clip_folder(path: Path, vision: dict[str, Any], config: dict[str, Any]) -> Embed:
    """Save a model as open_clip does, and return what embeds images as it does."""
    model_cfg = {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT, **config}
    kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
    torch.manual_seed(0)
    model = kind(**{key: value for key, value in model_cfg.items() if key != "custom_text"})
    enliven(model, vision.get("image_size", 224))
    path.mkdir(exist_ok=True)
    save_file(model.state_dict(), path / "open_clip_model.safetensors")
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic"}
    write_json(
        path / "open_clip_config.json", {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    )
    embed: Embed = open_clip.create_model(f"local-dir:{path}").eval().encode_image
    return embed


OPEN_CLIP: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "transformer": (VISION, {}),
    "quick GELU": (VISION, {"quick_gelu": True}),
    "no quick GELU": (VISION, {"quick_gelu": False}),
    "text tower apart": (VISION, {"custom_text": True}),
    "mean of tokens": ({**VISION, "pool_type": "avg", "no_ln_pre": True}, {}),
    "attention pool": (
        {**VISION, "attentional_pool": True, "attn_pooler_heads": 4, "attn_pooler_queries": 3},
        {},
    ),
    "sine positions": ({**VISION, "pos_embed_type": "sin_cos_2d", "mlp_ratio": 3.0}, {}),
    "own norm": ({**VISION, "norm_kwargs": {"eps": 1e-3}, "ls_init_value": 0.5}, {}),
    "resnet": ({"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}, {}),
    "timm trunk": (
        {
            "image_size": 160,
            "timm_model_name": "test_vit2",
            "timm_model_pretrained": True,
            "timm_pool": "",
            "timm_proj": "linear",
        },
        {"custom_text": True},
    ),
    "timm convnet": (
        {
            "image_size": 64,
            "timm_model_name": "test_resnet",
            "timm_pool": "avg",
            "timm_proj": "mlp",
        },
        {},
    ),
}


@pytest.mark.parametrize("case", OPEN_CLIP)
def test_open_clip_as_saved(tmp_path: Path, case: str) -> None:
    vision, config = OPEN_CLIP[case]
    # It is built here first, and that must not download anything.
    quiet = {**vision, "timm_model_pretrained": False} if "timm_pool" in vision else vision
    embed = clip_folder(tmp_path, quiet, config)
    written = read_json(tmp_path / "open_clip_config.json")
    written["model_cfg"]["vision_cfg"] = vision
    write_json(tmp_path / "open_clip_config.json", written)
    encoder = load(tmp_path, device="cpu")
    assert encoder.provenance.found_by == "open_clip_config.json (open_clip)"
    assert (encoder.image_size, encoder.embedding_dim) == (vision["image_size"], 24)
    assert_embeds_as(encoder, embed, MEAN, STD)


def test_open_clips_own_normalisation(tmp_path: Path) -> None:
    clip_folder(tmp_path, VISION, {})
    written = read_json(tmp_path / "open_clip_config.json")
    write_json(tmp_path / "open_clip_config.json", {"model_cfg": written["model_cfg"]})
    encoder = load(tmp_path, device="cpu")
    model = open_clip.create_model(f"local-dir:{tmp_path}").eval()
    mean, std = list(model.visual.image_mean), list(model.visual.image_std)
    assert mean[0] == pytest.approx(0.48145466)
    assert_embeds_as(encoder, model.encode_image, mean, std)
    assert "mean, std: open_clip's default" in encoder.preprocessing.summary()


def test_open_clip_of_another_size(tmp_path: Path) -> None:
    clip_folder(tmp_path, VISION, {})
    written = read_json(tmp_path / "open_clip_config.json")
    written["model_cfg"]["vision_cfg"]["image_size"] = 64
    write_json(tmp_path / "open_clip_config.json", written)
    files = locate(tmp_path)
    checkpoint = files.open()
    said = [*configs.declared(files.configs, checkpoint)]
    assert [way.size for way in said] == [64, 48]
    made = fitted(checkpoint, said[1].source, Metadata(), found_by="")
    assert made.preprocessing.image_size == 48


@pytest.fixture
def two_models(tmp_path: Path) -> tuple[Path, Embed, Embed]:
    """A folder with a model of transformers and another of open_clip."""
    transformers = pytest.importorskip("transformers")
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    tower |= {"num_attention_heads": 4}
    config = transformers.CLIPConfig(
        vision_config={**tower, "image_size": 32, "patch_size": 8, "hidden_act": "gelu"},
        text_config={**tower, "vocab_size": 50_000},
        projection_dim=12,
    )
    embed = clip_folder(tmp_path, VISION, {"quick_gelu": True})
    torch.manual_seed(0)
    model = transformers.CLIPModel(config).eval()
    model.save_pretrained(tmp_path)

    def features(pixels: Tensor) -> Tensor:
        made = model.get_image_features(pixels)
        projected: Tensor = getattr(made, "pooler_output", made)
        return projected

    return tmp_path, features, embed


def test_each_file_has_its_own_configuration(two_models: tuple[Path, Embed, Embed]) -> None:
    path, theirs, ours = two_models
    clip = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    with pytest.raises(LoadError, match="scan the file that you load"):
        load(path, device="cpu")
    encoder = load(path / "model.safetensors", device="cpu")
    assert (encoder.provenance.found_by, encoder.image_size) == ("config.json (transformers)", 32)
    assert_embeds_as(encoder, theirs, *clip)
    encoder = load(path / "open_clip_model.safetensors", device="cpu")
    assert encoder.provenance.found_by == "open_clip_config.json (open_clip)"
    assert_embeds_as(encoder, ours, MEAN, STD)
    # By a name that says nothing, whatever fits.
    (path / "open_clip_model.safetensors").rename(path / "weights.safetensors")
    assert load(path / "weights.safetensors", device="cpu").provenance.found_by == (
        "open_clip_config.json (open_clip)"
    )


# Which files of a folder are read.


def plain(path: Path, name: str = "model.safetensors") -> Path:
    """Write a file that its tensors tell."""
    return shapes_only(path / name, shapes("torchvision:alexnet"))


def test_other_weights_beside_those_that_are_read_are_refused(tmp_path: Path) -> None:
    """Who loads by another library gets the other file: one verdict would not be on both."""
    own, other = tmp_path / "model.safetensors", tmp_path / "open_clip_model.safetensors"
    for path in (own, other):
        save_file({"weight": torch.ones(3)}, path)
    assert locate(tmp_path).path == own
    save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(LoadError, match="holds weights that differ") as error:
        locate(tmp_path)
    assert str(error.value).endswith(
        "model.safetensors and open_clip_model.safetensors; scan the file that you load, or both"
    )


def test_weights_in_subfolders_are_named(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "inner").mkdir()
    plain(tmp_path / "inner", "other.safetensors")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert "not scanned: inner/other.safetensors, in subfolders" in inspect(tmp_path).notes


def test_subfolders_are_never_searched(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    plain(tmp_path / "inner")
    with pytest.raises(LoadError, match=r"no \.safetensors file in this folder"):
        inspect(tmp_path)
    (tmp_path / "other.safetensors").mkdir()
    (tmp_path / "config.json").mkdir()
    (tmp_path / "._weights.safetensors").write_bytes(b"Finder")
    plain(tmp_path, "weights.safetensors")
    assert inspect(tmp_path).path == str(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["MODEL.SafeTensors", "other.safetensors"], "MODEL.SafeTensors"),
        (["weights.SAFETENSORS"], "weights.SAFETENSORS"),
        (["b.safetensors", "open_clip_pytorch_model.safetensors"], None),
        (["model.safetensors", "model.safetensors.index.json"], "model.safetensors"),
        (["a-00001-of-00001.safetensors", "a.safetensors.INDEX.json"], "a.safetensors.INDEX.json"),
        (["config.json", "README.md"], ""),
    ],
)
def test_which_file_is_chosen(names: list[str], chosen: str | None) -> None:
    found = folder.choose(names)
    assert (found.weights if found else "") == (names[1] if chosen is None else chosen)


def test_shards_without_their_index(tmp_path: Path) -> None:
    for part in (1, 2):
        write(tmp_path / f"model-0000{part}-of-00002.safetensors", {})
    with pytest.raises(LoadError, match=r"shards \(.*\) without their index; download the file"):
        locate(tmp_path)


def test_configurations_that_are_about_something_else(tmp_path: Path) -> None:
    path = plain(tmp_path)
    for values in (
        {"learning_rate": 0.1, "model": "resnet18", "layers": [1, 2]},
        {"architecture": "our_net", "num_classes": 10, "optimizer": "sgd"},
        {"architecture": ["a", "b"]},
        {"model_type": "regression", "trees": 100},
        {"model_cfg": "small"},
        {},
    ):
        write_json(tmp_path / "config.json", values)
        assert inspect(path).architecture == "torchvision:alexnet"
        assert [*configs.declared([tmp_path / "config.json"])] == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architecture": "test_vit2", "pretrained_cfg": {}}, r"config.json \(timm\)"),
        ({"model_type": "vit"}, r"config.json \(transformers\)"),
        (
            {"model_cfg": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}},
            r"config.json \(open_clip\)",
        ),
    ],
)
def test_configurations_that_contradict_the_tensors(
    tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    path = plain(tmp_path)
    write_json(tmp_path / "config.json", values)
    with pytest.raises(LoadError) as caught:
        inspect(path)
    assert re.match(
        rf"{re.escape(str(path))}: {said} beside it says .* does not fit: .*; pass --arch$",
        str(caught.value),
    )
    assert inspect(path, arch="torchvision:alexnet").tensors == 14


# Hostile folders.


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """See that nobody asks the network."""
    asked: list[Any] = []
    monkeypatch.setattr(socket.socket, "connect", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *arguments, **options: asked.append(arguments)
    )
    yield
    assert not asked


def refusal(path: Path, act: Callable[[Path], object] = inspect) -> str:
    """Return the one line in which a model is refused; that takes no time."""
    began = time.process_time()
    with pytest.raises(LoadError) as caught:
        act(path)
    assert time.process_time() - began < 2
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 1_500
    return line


def vit(**options: Any) -> dict[str, Any]:
    return {"architecture": "vit_tiny_patch16_224", "model_args": options, "pretrained_cfg": {}}


def fed(**fields: Any) -> dict[str, Any]:
    return {"architecture": "test_resnet", "pretrained_cfg": fields}


def clip(vision: Any = None, **options: Any) -> dict[str, Any]:
    model = {"embed_dim": 24, "vision_cfg": VISION | (vision or {}), "text_cfg": TEXT}
    return {"model_cfg": {**model, **options}, "preprocess_cfg": {"mean": MEAN, "std": STD}}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


HUGE = 10**9
UNUSABLE: dict[str, tuple[Any, str]] = {
    "a name on a hub": (
        {"architecture": "hf-hub:org/x", "pretrained_cfg": {}},
        "timm has no architecture 'hf-hub:org/x'",
    ),
    "a folder": ({"architecture": "local-dir:/etc", "model_args": {}}, "has no architecture"),
    "a path": ({"architecture": "../../x", "pretrained_cfg": {}}, "has no architecture '../../x'"),
    "control characters": (
        {"architecture": "\x1b[2J\n\u202e", "pretrained_cfg": {}},
        r"has no architecture '\\x1b",
    ),
    "a long name": ({"architecture": "x" * 10**5, "pretrained_cfg": {}}, r"xxx\.\.\.'"),
    "no arguments": ({"architecture": "test_vit", "model_args": [1]}, "is not an object"),
    "checkpoint_path": (vit(checkpoint_path="/etc/passwd"), "it has the argument checkpoint_path"),
    "pretrained": (vit(pretrained=True), "it has the argument pretrained;"),
    "pretrained_cfg": (vit(pretrained_cfg={"url": "http://x"}), "the argument pretrained_cfg"),
    "overlay": (vit(pretrained_cfg_overlay={"file": "/x"}), "argument pretrained_cfg_overlay"),
    "weights": (vit(weights="DEFAULT"), "the argument weights"),
    "features_only": (vit(features_only=True), "the argument features_only"),
    "device": (vit(device="cpu", embed_dim=49152), "the argument device"),
    "device inside": (vit(norm_layer={"device": "cpu"}), "the argument device"),
    "a callable": (vit(act_layer="os.system"), "cannot build it"),
    "a class": (vit(block_fn="builtins.exec"), "cannot build it"),
    "an unknown argument": (vit(trust_remote_code=True), "cannot build it"),
    "the name twice": (vit(model_name="resnet18"), "cannot build it"),
    "great depth": (vit(depth=HUGE), r"depth is 1000000000 \(at most 1000\)"),
    "many blocks": (vit(depth=1000), "more than 6000 parts"),
    "many stages": (
        {
            "architecture": "convnext_tiny",
            "pretrained_cfg": {},
            "model_args": {"depths": [900] * 64, "dims": [8] * 64},
        },
        "more than 6000 parts",
    ),
    "great width": (vit(embed_dim=HUGE), "embed_dim is 1000000000"),
    "greatest width": (vit(embed_dim=2**16, num_heads=2), "does not fit"),
    "great images": (vit(img_size=HUGE), "img_size is 1000000000"),
    "large images": (vit(img_size=4096), r"img_size is 4096 \(at most 1024\)"),
    "no images": (vit(img_size=0), "img_size is no size of images"),
    "oblong images": (vit(img_size=[224, 192]), "reads images of 224x192 pixels, not square"),
    "images of text": (vit(img_size="224"), "img_size is no size of images"),
    "no patches": (vit(patch_size=0), "cannot build it"),
    "tiny patches": (vit(patch_size=1, img_size=256), "256 pixels a side have too many patches"),
    "negative patches": (vit(patch_size=-1), "cannot build it|does not fit"),
    "negative width": (vit(embed_dim=-192), "cannot build it"),
    "a depth in text": (vit(depth="12"), "cannot build it"),
    "heads in text": (vit(num_heads="3"), "cannot build it"),
    "a huge kernel": (
        {"architecture": "test_resnet", "pretrained_cfg": {}, "model_args": {"kernel_size": HUGE}},
        "kernel_size is 1000000000",
    ),
    "a huge window": (
        {
            "architecture": "tiny_vit_5m_224",
            "pretrained_cfg": {},
            "model_args": {"window_sizes": [200] * 4},
        },
        "window_sizes is 200",
    ),
    "huge tables": (
        {
            "architecture": "beit_base_patch16_224",
            "pretrained_cfg": {},
            "model_args": {"img_size": 1024},
        },
        r"takes \d+ numbers beside its weights",
    ),
    "a long list": (vit(block_args=[1] * 65), "'block_args' has 65 items"),
    "a long text": (vit(act_layer="x" * 101), "'act_layer' has 101 characters"),
    "deep arguments": (vit(norm_layer=nested(5)), "nested too deeply"),
    "great numbers": (vit(eps=-1e300), "eps is -1e.300"),
    "endless numbers": (b'{"architecture":"test_vit","model_args":{"eps":1e999}}', "eps is inf"),
    "one channel": (fed(input_size=[1, 224, 224]), "images of 1 channels, not RGB"),
    "four channels": (vit(in_chans=4), "images of 4 channels, not RGB"),
    "oblong input": (fed(input_size=[3, 224, 192]), "images of 224x192 pixels, not square"),
    "two sides": (fed(input_size=[224, 224]), r"input_size is not \[3, H, W\]"),
    "sides in text": (fed(input_size="224"), r"input_size is not \[3, H, W\]"),
    "no sides": (fed(input_size=[3, None, None]), "test_resnet"),
    "no input": (fed(input_size=[3, 0, 0]), "input_size is no size of images"),
    "std 0": (fed(std=[0.5, 0, 0.5]), "std is not positive"),
    "two means": (fed(mean=[0.5, 0.5]), "mean is not three numbers"),
    "a mean in text": (fed(mean=["0.5", "0.5", "0.5"]), "mean is not three numbers"),
    "a mean for all": (fed(mean=0.5), "mean is not three numbers"),
    "NaN": (b'{"architecture":"test_vit","mean":[NaN,0,0]}', "NaN is not JSON"),
    "code": (
        {"model_type": "x", "auto_map": {"AutoModel": "evil.Model"}},
        "code of its own, which encodercheck never runs",
    ),
    "an unknown type": ({"model_type": "llama", "architectures": ["L"]}, "is not supported"),
    "layers of transformers": ({"model_type": "vit", "num_hidden_layers": 900}, "6000 parts"),
}
UNUSABLE_CLIPS: dict[str, tuple[Any, str]] = {
    "none": ({}, "model_cfg or preprocess_cfg is missing"),
    "text": ({"model_cfg": "ViT-B-32"}, "model_cfg or preprocess_cfg is missing"),
    "no vision": ({"model_cfg": {"embed_dim": 8}}, "vision_cfg, embed_dim or quick_gelu is miss"),
    "quick_gelu in text": (clip(quick_gelu="false"), "vision_cfg, embed_dim or quick_gelu"),
    "a huge embedding": (clip(embed_dim=HUGE), "embed_dim is 1000000000"),
    "no embedding": (clip(embed_dim=True), "vision_cfg, embed_dim"),
    "a trunk on a hub": (clip({"timm_model_name": "hf-hub:org/x"}), "timm_model_name is no name"),
    "a trunk in a folder": (clip({"timm_model_name": "local-dir:/etc"}), "timm_model_name is no"),
    "a path for a trunk": (clip({"timm_model_name": "../x"}), "cannot build it"),
    "an unknown trunk": (clip({"timm_model_name": "nothing"}), "cannot build it"),
    "a trunk of a number": (clip({"timm_model_name": 3}), "timm_model_name is no name"),
    "another library's name": (clip({"hf_model_name": "org/x"}), "cannot build it"),
    "great depth": (clip({"layers": HUGE}), "layers is 1000000000"),
    "many layers": (clip({"layers": 1000}), "more than 6000 parts"),
    "many blocks": (clip({"layers": [1000] * 4}), "more than 6000 parts"),
    "great width": (clip({"width": HUGE}), "width is 1000000000"),
    "no head": (clip({"head_width": 0}), "cannot build it .ZeroDivisionError"),
    "no patches": (clip({"patch_size": 0}), "cannot build it"),
    "tiny patches": (clip({"patch_size": 1, "image_size": 512}), "too many patches of 1"),
    "no image": (clip({"image_size": []}), "image_size is no size of images"),
    "image of text": (clip({"image_size": "224"}), "image_size is no size of images"),
    "image of an object": (clip({"image_size": {"a": 1}}), "image_size is no size of images"),
    "large images": (clip({"image_size": [4096, 4096]}), "image_size is 4096"),
    "oblong images": (clip({"image_size": [224, 192]}), "224x192 pixels, not square"),
    "a device": (clip({"act_kwargs": {"device": "cpu"}}), "it has the argument device"),
    "unknown fields": (clip({"new": 1}), "cannot build it"),
    "two means": ({**clip(), "preprocess_cfg": {"mean": [1, 2]}}, "mean is not three numbers"),
    "std below 0": ({**clip(), "preprocess_cfg": {"std": [1, 1, -1]}}, "std is not positive"),
}


def write_config(path: Path, values: Any) -> Path:
    path.write_bytes(values if isinstance(values, bytes) else json.dumps(values).encode())
    return path


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("case", [*UNUSABLE, *(f"CLIP: {name}" for name in UNUSABLE_CLIPS)])
def test_configurations_that_cannot_be_meant(tmp_path: Path, case: str) -> None:
    of_clip = case.startswith("CLIP: ")
    values, fault = UNUSABLE_CLIPS[case[6:]] if of_clip else UNUSABLE[case]
    path = write_config(tmp_path / ("open_clip_config.json" if of_clip else "config.json"), values)
    model = plain(tmp_path)
    line = refusal(model)
    assert re.search(fault, line)
    assert line.startswith((f"{path}: ", f"{model}: {path.name}"))
    assert inspect(model, arch="torchvision:alexnet").tensors == 14


@pytest.mark.usefixtures("offline")
def test_what_only_weights_would_tell_is_never_fetched(tmp_path: Path) -> None:
    plain(tmp_path)
    values = vit(img_size=32) | {"hf_hub_id": "timm/x", "source": "hf-hub", "url": "http://x"}
    for name in ("vit_tiny_patch16_224.augreg_in21k", "tf_efficientnet_b0.ns_jft_in1k"):
        values["pretrained_cfg"] = {
            "hf_hub_id": "timm/x",
            "file": "/etc/passwd",
            "custom_load": "hf",
        }
        write_json(tmp_path / "config.json", values | {"architecture": name})
        refusal(tmp_path)


BROKEN: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"architecture: x", "not valid JSON"),
    "empty": (b"", "not valid JSON"),
    "a byte order mark": (b'\xef\xbb\xbf{"a": 1}', "not valid JSON"),
    "Latin-1": ('{"a": "é"}'.encode("latin-1"), "not valid JSON"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "not valid JSON"),
    "a list": (b"[]", "not a JSON object"),
    "a number": (b"3", "not a JSON object"),
    "null": (b"null", "not a JSON object"),
    "a name twice": (b'{"a": 1, "a": 2}', "occurs twice"),
    "a huge integer": (b'{"a": ' + b"9" * 5_000 + b"}", "out of range"),
    "great depth": (b'{"a":' * 10**5 + b"1" + b"}" * 10**5, "nested too deeply|more than 60 MB"),
    "brackets": (b"[" * 10**6, "more than 60 MB"),
    "lists": (swollen("lists", 300_000), "more than 60 MB of memory"),
    "wide members": (swollen("wide members", 90_000), "more than 60 MB of memory"),
    "a control character": (b'{"\x1b[2J": }', "not valid JSON"),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize(
    "name", ["config.json", "open_clip_config.json", "model.safetensors.index.json"]
)
def test_files_that_are_no_json(tmp_path: Path, name: str, kind: str) -> None:
    content, fault = BROKEN[kind]
    (tmp_path / name).write_bytes(content)
    if "index" not in name:
        plain(tmp_path)
    line = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / name}: ")
    assert re.search(fault, line)


@pytest.mark.parametrize("kind", ["lists", "members", "wide strings", "a wide string of escapes"])
@pytest.mark.parametrize("size", [2**20, 4 * 2**20, 8 * 2**20])
def test_reading_takes_little_memory(tmp_path: Path, kind: str, size: int) -> None:
    count = size // (len(swollen(kind, 2_000)) // 2_000 + 1)
    path = tmp_path / "a.json"
    path.write_bytes(swollen(kind, count)[:size])
    tracemalloc.start()
    try:
        with suppress(LoadError):
            folder.read_json(path, folder.MAX_INDEX)
        assert tracemalloc.get_traced_memory()[1] < 64e6 + 2 * size
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
def test_a_gigabyte_is_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"{")
    os.truncate(path, 2**30)
    if "index" not in name:
        plain(tmp_path)
    tracemalloc.start()
    try:
        assert re.search("1073741824 bytes are too many", refusal(tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 32e6
    finally:
        tracemalloc.stop()


def test_names_of_many_classes_are_read(tmp_path: Path) -> None:
    """Configurations of models for ImageNet-22k list them twice."""
    names = [f"class {number}, a thing of many words, rarely seen" for number in range(22_000)]
    labels = {str(number): name for number, name in enumerate(names)}
    path = write_json(
        tmp_path / "config.json",
        {"id2label": labels, "label2id": dict(zip(names, labels, strict=True))},
    )
    assert path.stat().st_size > 2**20
    assert len(folder.read_json(path)["id2label"]) == 22_000


MEMORY = """
import json, re, resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from encodercheck.errors import LoadError
from encodercheck.loading import inspect
from test_folders import UNUSABLE, UNUSABLE_CLIPS, plain, write_config

def refuse(name, values):
    folder = Path({folder!r})
    for old in folder.glob("*.json"):
        old.unlink()
    write_config(folder / name, values)
    try:
        inspect(folder)
    except LoadError:
        return
    raise AssertionError(values)

plain(Path({folder!r}))
for name, table in (("config.json", UNUSABLE), ("open_clip_config.json", UNUSABLE_CLIPS)):
    refuse(name, table["no patches"][0])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, table in (("config.json", UNUSABLE), ("open_clip_config.json", UNUSABLE_CLIPS)):
    for case, (values, _) in table.items():
        if re.search("great|huge|large|many|device|layers", case):
            refuse(name, values)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="others count in other units")
def test_configurations_take_little_memory(tmp_path: Path) -> None:
    script = MEMORY.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    # transformers is imported on the way.
    assert int(ended.stdout) < 300e6


# Random configurations.

KEYS = st.sampled_from(
    [
        *("architecture", "model_args", "pretrained_cfg", "model_type", "model_cfg", "vision_cfg"),
        *("embed_dim", "preprocess_cfg", "mean", "std", "input_size", "img_size", "image_size"),
        *("layers", "width", "depth", "patch_size", "hidden_size", "auto_map", "architectures"),
        *("in_chans", "num_classes", "classifier", "quick_gelu", "fixed_input_size", "image_mean"),
    ]
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["test_vit2", "test_resnet", "vit", "clip", "resnet", "test_vit2.r160_in1k"]),
    st.lists(st.integers(-1, 3), max_size=4),
)


def objects(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = KEYS | st.text(max_size=3)
    return st.dictionaries(names, values, max_size=6) | st.lists(values, max_size=3)


DOCUMENTS = st.recursive(VALUES, objects, max_leaves=12)
SHAPED = st.fixed_dictionaries(
    {},
    optional={
        "architecture": st.sampled_from(["test_vit2", "test_resnet", "nothing"]) | VALUES,
        "model_args": objects(VALUES),
        "pretrained_cfg": objects(VALUES),
        "model_type": st.sampled_from(["vit", "clip", "resnet", "swin"]) | VALUES,
        "model_cfg": st.fixed_dictionaries(
            {"embed_dim": st.integers(1, 64) | VALUES, "vision_cfg": objects(VALUES)}
        ),
        "input_size": st.just([3, 64, 64]) | VALUES,
        "mean": st.lists(st.floats(0, 1), min_size=3, max_size=3) | VALUES,
        "image_size": VALUES,
        "hidden_size": VALUES,
        "depths": VALUES,
    },
)


@pytest.fixture(scope="module")
def anyones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("anyones")
    plain(path)
    return path


@given(values=DOCUMENTS | SHAPED, name=st.sampled_from(["config.json", "open_clip_config.json"]))
def test_random_configurations_are_refused_or_used(anyones: Path, values: Any, name: str) -> None:
    path = write_json(anyones / name, values)
    try:
        found = inspect(anyones)
        assert isinstance(found, Inspection)
    except LoadError as error:
        assert str(error).isprintable()
        assert str(error).startswith(str(anyones))
    finally:
        path.unlink()


@given(content=st.binary(max_size=40) | st.from_regex(rb'\{["\[\]{}:,0-9eE\\u+-]{0,30}'))
def test_random_bytes_are_no_configuration(anyones: Path, content: bytes) -> None:
    path = anyones / "config.json"
    path.write_bytes(content)
    try:
        inspect(anyones)
    except LoadError as error:
        assert str(error).isprintable()
    finally:
        path.unlink()


# Links.


def secret(tmp_path: Path, name: str = "secret") -> Path:
    """Make a folder beside the model's, with files of every name."""
    path = tmp_path / name
    path.mkdir()
    plain(path)
    plain(path, "model-00001-of-00001.safetensors")
    write_json(path / "config.json", {"architecture": "test_vit2", "secret": "hunter2"})
    return path


LINKS: dict[str, Callable[[Path, Path], object]] = {
    "a file": lambda link, other: link.symlink_to(other / link.name),
    "a relative path": lambda link, other: link.symlink_to(f"../{other.name}/{link.name}"),
    "a chain": lambda link, other: (
        (link.parent / "hop").symlink_to(other / link.name),
        link.symlink_to("hop"),
    ),
    "a chain through a folder": lambda link, other: (
        (link.parent / "hop").symlink_to(other),
        link.symlink_to(f"hop/{link.name}"),
    ),
    "a device": lambda link, other: link.symlink_to("/dev/zero"),
    "a pipe elsewhere": lambda link, other: (
        os.mkfifo(other / "pipe"),
        link.symlink_to(other / "pipe"),
    ),
    "a pipe here": lambda link, other: (
        os.mkfifo(link.parent / "pipe"),
        link.symlink_to(link.parent / "pipe"),
    ),
    "a pipe": lambda link, other: os.mkfifo(link),
    "nothing": lambda link, other: link.symlink_to(other / "nothing"),
    "itself": lambda link, other: link.symlink_to(link.name),
    "a loop": lambda link, other: (
        link.symlink_to("hop"),
        (link.parent / "hop").symlink_to(link.name),
    ),
    "a process": lambda link, other: link.symlink_to("/proc/self/environ"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="needs links and pipes")
@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "model-00001-of-00001.safetensors"]
)
def test_links_out_of_the_folder(tmp_path: Path, name: str, kind: str) -> None:
    other = secret(tmp_path)
    inner = tmp_path / "model"
    inner.mkdir()
    if name == "config.json":
        plain(inner)
    elif "of" in name:
        names = shapes("torchvision:alexnet")
        write_json(
            inner / "model.safetensors.index.json", {"weight_map": dict.fromkeys(names, name)}
        )
    LINKS[kind](inner / name, other)
    line = refusal(inner)
    assert re.match(f"{re.escape(str(inner / name))}: ", line)
    assert "hunter2" not in line
    assert re.search("a symbolic link out of|not a regular file|cannot be read|no such file", line)


def test_links_inside_the_folder_and_to_a_named_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    plain(tmp_path / "data", "real.safetensors")
    (tmp_path / "model.safetensors").symlink_to("data/real.safetensors")
    assert inspect(tmp_path).architecture == "torchvision:alexnet"
    # What the user names is what the user means.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link.safetensors").symlink_to(tmp_path / "data/real.safetensors")
    assert inspect(tmp_path / "elsewhere/link.safetensors").architecture == "torchvision:alexnet"
    (tmp_path / "folder").symlink_to(tmp_path)
    assert inspect(tmp_path / "folder").architecture == "torchvision:alexnet"


COMMIT, HASH = "c" * 40, "ab" + "0" * 62


def cached(cache: Path, shared: bool = False, repository: str = "models--org--name") -> Path:
    """Lay out a snapshot as the hub's library does, and return its folder."""
    storage = cache / repository
    snapshot = storage / "snapshots" / COMMIT
    for path in (snapshot, storage / "blobs", cache / "blobs" / "ab"):
        path.mkdir(parents=True, exist_ok=True)
    if shared:
        (cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
        plain(cache / "blobs" / "ab", HASH)
        (storage / "blobs" / "etag").symlink_to(f"../../blobs/ab/{HASH}")
    else:
        plain(storage / "blobs", "etag")
    (snapshot / "model.safetensors").symlink_to("../../blobs/etag")
    return snapshot


@pytest.mark.parametrize("shared", [False, True])
def test_the_hubs_own_cache(tmp_path: Path, shared: bool) -> None:
    snapshot = cached(tmp_path / "hub", shared)
    assert inspect(snapshot).architecture == "torchvision:alexnet"
    (tmp_path / "home").symlink_to(tmp_path / "hub")
    assert inspect(tmp_path / "home" / snapshot.relative_to(tmp_path / "hub")).tensors == 14
    (snapshot / "vision").mkdir()
    (snapshot / "vision" / "model.safetensors").symlink_to("../../../blobs/etag")
    assert inspect(snapshot / "vision").tensors == 14


def unmarked(cache: Path) -> Path:
    snapshot = cached(cache, shared=True)
    (cache / "blobs" / ".huggingface-shared-blobs").unlink()
    return snapshot


def by_another_name(old: str, new: str) -> Callable[[Path], Path]:
    """Make a folder that only looks like the cache."""

    def make(cache: Path) -> Path:
        cached(cache)
        (cache / "models--org--name").rename(cache / new.split("/")[0])
        storage = cache / new.split("/")[0]
        snapshots = storage / "snapshots"
        (snapshots / COMMIT).rename(snapshots / "x")
        target = cache / new
        (snapshots / "x").rename(target) if not target.exists() else None
        return target

    return make


def linked(target: str) -> Callable[[Path], Path]:
    """Make a snapshot with a file that is another link than the cache's."""

    def make(cache: Path) -> Path:
        other = cached(cache, repository="models--other--name")
        snapshot = cached(cache)
        secret(cache)
        plain(other.parents[1], "top.safetensors")
        (snapshot / "model.safetensors").unlink()
        (snapshot / "model.safetensors").symlink_to(target.format(cache=cache))
        return snapshot

    return make


def blobs_elsewhere(cache: Path) -> Path:
    snapshot = cached(cache)
    path = secret(cache)
    plain(path, "etag")
    blobs = snapshot.parents[1] / "blobs"
    (blobs / "etag").unlink()
    blobs.rmdir()
    blobs.symlink_to(path)
    return snapshot


def blob_elsewhere(cache: Path) -> Path:
    snapshot = cached(cache)
    blob = snapshot.parents[1] / "blobs" / "etag"
    blob.unlink()
    blob.symlink_to(secret(cache) / "model.safetensors")
    return snapshot


FORGED: dict[str, Callable[[Path], Path]] = {
    "not marked": unmarked,
    "another repository": linked("../../../models--other--name/blobs/etag"),
    "above the blobs": linked("../../../models--other--name/top.safetensors"),
    "elsewhere": linked("{cache}/secret/model.safetensors"),
    "through the blobs": linked("../../blobs/../../secret/model.safetensors"),
    "blobs elsewhere": blobs_elsewhere,
    "a blob elsewhere": blob_elsewhere,
    "no commit": by_another_name(COMMIT, "models--org--name/snapshots/main"),
    "no snapshots": by_another_name("snapshots", f"models--org--name/{COMMIT}"),
    "no repository": by_another_name("models--org--name", "project/snapshots/main"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_what_only_looks_like_the_hubs_cache(tmp_path: Path, kind: str) -> None:
    snapshot = FORGED[kind](tmp_path / "hub")
    assert (snapshot / "model.safetensors").is_symlink()
    line = refusal(snapshot)
    assert re.search("a symbolic link out of the model folder|cannot be read: No such", line)
