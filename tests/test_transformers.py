"""Model folders of the transformers library: every type, as the library saves and runs it."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from encodercheck.errors import ConfigError, LoadError
from encodercheck.preprocessing import IMAGENET, Preprocessing
from encodercheck.weights import hf_transformers
from encodercheck.weights.build import Source, computes_on_meta
from encodercheck.weights.checkpoint import open_checkpoint
from encodercheck.weights.hf_transformers import BESIDE, SUPPORTED, processed, towers
from encodercheck.weights.match import Match, match, preferred, prefixes_of

SIZE = 24
TOKENS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIZE,
    "patch_size": 8,
}
VIT = {**TOKENS, "intermediate_size": 24}
DINOV2 = {**TOKENS, "mlp_ratio": 2}
STAGES: dict[str, Any] = {"hidden_sizes": [8, 16], "depths": [1, 2]}
SWIN: dict[str, Any] = {
    "image_size": SIZE,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [2, 1],
    "num_heads": [2, 4],
    "window_size": 3,
}
TEXT = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 50_000}
TOWERS: dict[str, Any] = {
    "vision_config": {**VIT, "hidden_act": "gelu"},
    "text_config": {**TEXT, "intermediate_size": 8},
}
PROJECTED: dict[str, Any] = {**TOWERS, "projection_dim": 12}

Reference = Callable[[Any, Tensor], Tensor]


def class_token(part: str = "") -> Reference:
    def embed(model: Any, images: Tensor) -> Tensor:
        model = getattr(model, part) if part else model
        token: Tensor = model(images).last_hidden_state[:, 0]
        return token

    return embed


def mean(part: str = "") -> Reference:
    def embed(model: Any, images: Tensor) -> Tensor:
        model = getattr(model, part) if part else model
        tokens: Tensor = model(images).last_hidden_state
        return tokens.mean(1)

    return embed


def patch_mean(part: str = "") -> Reference:
    def embed(model: Any, images: Tensor) -> Tensor:
        model = getattr(model, part) if part else model
        tokens: Tensor = model(images).last_hidden_state
        return tokens[:, 1:].mean(1)

    return embed


def pooled(part: str = "") -> Reference:
    def embed(model: Any, images: Tensor) -> Tensor:
        model = getattr(model, part) if part else model
        output: Tensor = model(images).pooler_output
        return output.flatten(1)

    return embed


def image_embeds(model: Any, images: Tensor) -> Tensor:
    embeds: Tensor = model(images).image_embeds
    return embeds


def image_features(model: Any, images: Tensor) -> Tensor:
    features = model.get_image_features(images)
    embeds: Tensor = getattr(features, "pooler_output", features)
    return embeds


def unmasked(part: str = "") -> Reference:
    def embed(model: Any, images: Tensor) -> Tensor:
        model = getattr(model, part) if part else model
        model.config.mask_ratio = 0.0
        token: Tensor = model(images).last_hidden_state[:, 0]
        return token

    return embed


@dataclass(frozen=True)
class Case:
    """A class of the library, a small config for it, and the embedding by the library itself."""

    model: str
    config: str
    values: dict[str, Any]
    embed: Reference
    saved: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join((self.model, *map(str, self.saved.values())))


RELATIVE = {"use_relative_position_bias": True}
SHARED = {"use_shared_relative_position_bias": True}
CASES = [
    Case("ViTModel", "ViTConfig", VIT, class_token()),
    Case("ViTForImageClassification", "ViTConfig", {**VIT, "qkv_bias": False}, class_token("vit")),
    Case("ViTForMaskedImageModeling", "ViTConfig", VIT, class_token("vit")),
    Case("DeiTModel", "DeiTConfig", VIT, class_token()),
    Case("DeiTForImageClassificationWithTeacher", "DeiTConfig", VIT, class_token("deit")),
    Case("ViTMAEModel", "ViTMAEConfig", VIT, unmasked()),
    Case(
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        {**VIT, "decoder_hidden_size": 16, "decoder_num_hidden_layers": 1},
        unmasked("vit"),
    ),
    Case("ViTMSNModel", "ViTMSNConfig", VIT, class_token()),
    Case("IJepaModel", "IJepaConfig", VIT, mean()),
    Case("IJepaForImageClassification", "IJepaConfig", VIT, mean("ijepa")),
    Case("Dinov2Model", "Dinov2Config", DINOV2, pooled()),
    Case(
        "Dinov2ForImageClassification",
        "Dinov2Config",
        {**DINOV2, "use_swiglu_ffn": True, "use_mask_token": False},
        pooled("dinov2"),
    ),
    Case("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", DINOV2, pooled()),
    Case(
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        {**DINOV2, "use_swiglu_ffn": True, "num_register_tokens": 2},
        pooled("dinov2_with_registers"),
    ),
    Case("DINOv3ViTModel", "DINOv3ViTConfig", {**VIT, "num_register_tokens": 3}, pooled()),
    Case(
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        {**VIT, "use_gated_mlp": True, "key_bias": True, "rope_theta": 10.0},
        pooled(),
    ),
    Case("DINOv3ConvNextModel", "DINOv3ConvNextConfig", {**STAGES, "depths": [1, 1]}, pooled()),
    Case("CLIPVisionModel", "CLIPVisionConfig", VIT, pooled()),
    Case(
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        {**VIT, "projection_dim": 12},
        image_embeds,
    ),
    Case("CLIPModel", "CLIPConfig", PROJECTED, image_features),
    Case("CLIPForImageClassification", "CLIPConfig", PROJECTED, pooled("vision_model")),
    Case("ChineseCLIPModel", "ChineseCLIPConfig", PROJECTED, image_features),
    Case("ChineseCLIPVisionModel", "ChineseCLIPVisionConfig", VIT, pooled()),
    Case("MetaClip2Model", "MetaClip2Config", PROJECTED, image_features),
    Case("MetaClip2VisionModel", "MetaClip2VisionConfig", VIT, pooled()),
    Case("SiglipVisionModel", "SiglipVisionConfig", VIT, pooled()),
    Case("SiglipVisionModel", "SiglipVisionConfig", {**VIT, "vision_use_head": False}, mean()),
    Case("SiglipModel", "SiglipConfig", TOWERS, image_features),
    Case("SiglipForImageClassification", "SiglipConfig", TOWERS, pooled("vision_model")),
    Case("ResNetModel", "ResNetConfig", {**STAGES, "embedding_size": 8}, pooled()),
    Case(
        "ResNetForImageClassification",
        "ResNetConfig",
        {**STAGES, "embedding_size": 8, "layer_type": "basic", "downsample_in_first_stage": True},
        pooled("resnet"),
    ),
    Case(
        "RegNetModel",
        "RegNetConfig",
        {**STAGES, "embedding_size": 8, "groups_width": 4, "layer_type": "y"},
        pooled(),
    ),
    Case("ConvNextModel", "ConvNextConfig", {**STAGES, "num_stages": 2}, pooled()),
    Case(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        {**STAGES, "num_stages": 2, "layer_scale_init_value": 0.0, "layer_norm_eps": 0.1},
        pooled("convnext"),
    ),
    Case("ConvNextV2Model", "ConvNextV2Config", {**STAGES, "num_stages": 2}, pooled()),
    Case("SwinModel", "SwinConfig", SWIN, pooled()),
    Case(
        "SwinForImageClassification",
        "SwinConfig",
        {**SWIN, "mlp_ratio": 2.0, "qkv_bias": False},
        pooled("swin"),
    ),
    Case("SwinForMaskedImageModeling", "SwinConfig", {**SWIN, "encoder_stride": 4}, mean("swin")),
    Case("Swinv2Model", "Swinv2Config", {**SWIN, "pretrained_window_sizes": [2, 2]}, pooled()),
    Case("Swinv2ForImageClassification", "Swinv2Config", SWIN, pooled("swinv2")),
    Case("BeitModel", "BeitConfig", {**VIT, **RELATIVE, "use_mask_token": True}, pooled()),
    Case(
        "BeitForImageClassification",
        "BeitConfig",
        {**VIT, **SHARED, "use_absolute_position_embeddings": True},
        pooled("beit"),
    ),
    Case(
        "BeitForMaskedImageModeling",
        "BeitConfig",
        {**VIT, **SHARED, "use_mean_pooling": False, "use_mask_token": True},
        class_token("beit"),
    ),
    Case("BeitForMaskedImageModeling", "BeitConfig", VIT, patch_mean("beit")),
    Case("Data2VecVisionModel", "Data2VecVisionConfig", {**VIT, **SHARED}, patch_mean()),
    Case(
        "Data2VecVisionForImageClassification",
        "Data2VecVisionConfig",
        {**VIT, **RELATIVE, "layer_scale_init_value": 0.0},
        pooled("data2vec_vision"),
    ),
]


@pytest.fixture(scope="module")
def library() -> Any:
    transformers = pytest.importorskip("transformers")
    transformers.logging.set_verbosity_error()
    return transformers


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest, library: Any) -> Case:
    chosen: Case = request.param
    if not hasattr(library, chosen.model):
        pytest.skip(f"transformers {library.__version__} has no {chosen.model}")
    return chosen


def images(size: int = SIZE) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(5))


def saved(library: Any, case: Case, folder: Path) -> nn.Module:
    """Save the library's model with random weights, norms and statistics included."""
    torch.manual_seed(0)
    config = getattr(library, case.config)(**copy.deepcopy(case.values))
    model: Any = getattr(library, case.model)(config).eval()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 2)
            elif tensor.is_floating_point():
                tensor.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.3)
    model.save_pretrained(folder)
    return model


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config


def matched(folder: Path, module: nn.Module) -> Match:
    checkpoint = open_checkpoint(folder / "model.safetensors")
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    prefix = preferred(prefixes_of(expected, checkpoint), checkpoint)
    return match(expected, checkpoint, prefix, heads=BESIDE)


def filled(folder: Path, module: nn.Module) -> nn.Module:
    found = matched(folder, module)
    assert found.complete, found.describe()
    tensors = load_file(folder / "model.safetensors")
    state = {inner: tensors[name] for name, inner in found.key_map.items()}
    for name in module.state_dict():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.long)
    module.load_state_dict(state, strict=True, assign=True)
    return module.eval()


@pytest.mark.parametrize("on_meta", [True, False], ids=["meta", "cpu"])
def test_embeds_as_the_library_does(
    case: Case, library: Any, on_meta: bool, tmp_path: Path
) -> None:
    model = saved(library, case, tmp_path)
    source = towers(config_of(tmp_path), "config.json")
    state = torch.random.get_rng_state()
    module = source.build(on_meta=on_meta)
    assert {tensor.is_meta for tensor in module.parameters()} == {on_meta}
    assert not computes_on_meta(module)
    module = filled(tmp_path, module)
    with torch.no_grad():
        embedding = module(images())
        assert torch.equal(torch.random.get_rng_state(), state)
        expected = case.embed(model, images())
    assert expected.ndim == 2 and expected.std() > 1e-3
    torch.testing.assert_close(embedding, expected, atol=1e-5, rtol=1e-5)


def test_a_tower_is_a_module_like_any_other(case: Case, library: Any, tmp_path: Path) -> None:
    saved(library, case, tmp_path)
    source = towers(config_of(tmp_path), "config.json")
    module = filled(tmp_path, source.build()).requires_grad_(False)
    inputs = images().requires_grad_()
    embedding = module(inputs)
    (gradient,) = torch.autograd.grad(embedding.square().sum(), inputs)
    assert gradient.isfinite().all() and (gradient.flatten(1).abs().amax(1) > 0).all()

    twin = copy.deepcopy(module)
    assert torch.equal(twin(images()), embedding.detach())
    names = [name for name, _ in twin.named_parameters()]
    state = twin.state_dict()
    assert set(names) <= set(state) and len(set(names)) == len(names)
    with torch.no_grad():
        twin.get_parameter(names[0]).add_(1)
    assert torch.equal(state[names[0]], module.state_dict()[names[0]] + 1)
    assert twin.to(torch.float64)(images().double()).dtype == torch.float64
    assert torch.equal(module(images()), embedding.detach())


def test_takes_images_of_another_size(case: Case, library: Any, tmp_path: Path) -> None:
    saved(library, case, tmp_path)
    module = filled(tmp_path, towers(config_of(tmp_path), "config.json").build())
    with torch.no_grad():
        assert module(images(2 * SIZE)).shape == module(images()).shape


def test_every_type_is_tested() -> None:
    stems = {family.stem for family in SUPPORTED.values()}
    tested = {case.model for case in CASES}
    for stem in stems:
        assert f"{stem}Model" in tested or f"{stem.removesuffix('Vision')}Model" in tested


# What the library reads besides: of training, of heads, of feature pyramids.
UNREAD = re.compile(
    r"initializer_.*|.*drop.*|encoder_stride|pooler_.*|layerscale_value|_?out_(features|indices)"
    r"|apply_layernorm|reshape_hidden_states|pos_embed_(shift|jitter|rescale)|decoder_.*|mask_ratio"
    r"|norm_pix_loss|vocab_size|pool_scales|.*auxiliary_.*|semantic_loss_.*|add_fpn|backbone.*"
    r"|segmentation_indices|problem_type"
)


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_every_field_of_the_library_is_known(library: Any, model_type: str) -> None:
    family = SUPPORTED[model_type]
    config = getattr(library, f"{family.stem}Config", None)
    if config is None:
        pytest.skip(f"transformers {library.__version__} has no {model_type}")
    if not is_dataclass(config):
        pytest.skip("only in recent versions do the classes list their fields")
    own = {item.name for item in fields(config)} - {
        item.name for item in fields(library.PretrainedConfig)
    }
    assert family.fields <= own
    assert {name for name in own - family.fields if not UNREAD.fullmatch(name)} == set()


def test_another_length_of_the_position_embeddings(library: Any, tmp_path: Path) -> None:
    case = CASES[0]
    model = saved(library, case, tmp_path)
    config = {**config_of(tmp_path), "image_size": 2 * SIZE}
    assert not matched(tmp_path, towers(config, "config.json").build()).complete
    source = towers(config, "config.json", image_size=SIZE)
    module = filled(tmp_path, source.build())
    with torch.no_grad():
        torch.testing.assert_close(module(images()), case.embed(model, images()))
    made = source.describe(module)
    assert made is not None and made.image_size == SIZE
    assert made.source_of("image_size") == "the position embeddings"


def test_names_of_older_files(library: Any, tmp_path: Path) -> None:
    """Files of earlier versions have prefixes and buffers that recent ones no longer write."""
    from safetensors.torch import save_file

    case = next(case for case in CASES if case.model == "CLIPVisionModel")
    saved(library, case, tmp_path)
    path = tmp_path / "model.safetensors"
    older = {
        f"vision_model.{name.removeprefix('vision_model.')}": tensor
        for name, tensor in load_file(path).items()
    }
    older["vision_model.embeddings.position_ids"] = torch.arange(10)[None]
    save_file(older, path)
    found = matched(tmp_path, towers(config_of(tmp_path), "config.json").build())
    assert found.complete and found.prefix == "vision_model."
    assert found.ignored == ("vision_model.embeddings.position_ids",)


def test_an_older_config_of_two_towers(library: Any) -> None:
    both = {"model_type": "clip", "vision_config": {"hidden_size": 512, "patch_size": 16}}
    older = {**both, "vision_config_dict": {"hidden_size": 384}, "projection_dim": 100}
    state = towers(older, "config.json").build().state_dict()
    # As the library reads it: the older part decides, its defaults included.
    assert state["vision_model.embeddings.patch_embedding.weight"].shape == (384, 3, 32, 32)
    assert state["visual_projection.weight"].shape == (100, 384)


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": 10**12}, "hidden_size is not an integer from 1 to 65536"),
    ({"hidden_size": -1}, "hidden_size"),
    ({"hidden_size": True}, "hidden_size"),
    ({"hidden_size": "768"}, "hidden_size"),
    ({"hidden_size": [[768]]}, "hidden_size"),
    ({"hidden_size": 65536, "num_hidden_layers": 10**9}, "num_hidden_layers"),
    ({"num_attention_heads": 0}, "num_attention_heads"),
    ({"num_attention_heads": 7.5}, "num_attention_heads"),
    ({"image_size": 5000}, "image_size"),
    ({"image_size": [224, 112]}, "image_size is not the side of a square"),
    ({"image_size": [[[224]]]}, "image_size"),
    ({"image_size": {"height": 224}}, "image_size"),
    ({"image_size": 4096, "patch_size": 1}, "patches"),
    ({"image_size": 8, "patch_size": 16}, "patches"),
    ({"hidden_act": "__import__('os')"}, "hidden_act is not a word"),
    ({"hidden_act": "no_such_activation"}, "cannot build"),
    ({"layer_norm_eps": float("nan")}, "layer_norm_eps"),
    ({"layer_norm_eps": "1e-6"}, "layer_norm_eps"),
    ({"qkv_bias": 1}, "qkv_bias is neither true nor false"),
    ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised"),
    ({"num_channels": 1}, "images of 1 channel; encodercheck scans RGB encoders (3 channels)"),
    ({"num_channels": 12}, "images of 12 channels;"),
    ({"model_type": "swin", "depths": [1] * 100}, "depths"),
    ({"model_type": "swin", "depths": [900, 900]}, "1800 layers"),
    ({"model_type": "swin", "depths": []}, "depths"),
    ({"model_type": "swin", "depths": [[2]]}, "depths"),
    ({"model_type": "swin", "depths": [2, 2], "window_size": 1000}, "window_size"),
    ({"model_type": "swin", "depths": [2, 2, 2], "num_heads": [3]}, "cannot build"),
    ({"model_type": "resnet", "layer_type": "no_such_type"}, "cannot build"),
    ({"model_type": "regnet", "groups_width": 4, "hidden_sizes": [8, 8, 8, 14]}, "cannot build"),
    ({"model_type": "clip", "vision_config": [1, 2]}, "vision_config"),
    ({"model_type": "clip", "vision_config": {"quantization_config": {}}}, "quantised"),
    ({"model_type": "clip", "projection_dim": 2**40}, "projection_dim"),
]


@pytest.mark.parametrize(("values", "fault"), HOSTILE, ids=lambda item: str(item)[:60])
def test_hostile_configs_are_refused_in_a_line(
    library: Any, values: dict[str, Any], fault: str
) -> None:
    with pytest.raises(LoadError) as caught:
        towers({"model_type": "vit", **values}, "folder/config.json")
    message = str(caught.value)
    assert message.startswith("folder/config.json: ") and fault in message
    assert "\n" not in message and len(message) < 500


def test_what_is_not_supported() -> None:
    for config, fault in (
        ({"model_type": "llava"}, r"model_type 'llava' is not supported \(supported: vit, "),
        ({}, "model_type 'None' is not supported"),
        ({"model_type": ["vit"]}, "is not supported"),
        ({"model_type": "x\n" * 90}, r"model_type 'x\\nx"),
        ({"model_type": "siglip2_vision_model"}, "siglip2_vision_model models take patches"),
        (
            {"model_type": "internvit", "auto_map": {"AutoModel": "code.Model"}},
            "needs code of its own, which encodercheck never runs; pass --arch package.module",
        ),
    ):
        with pytest.raises(LoadError, match=fault) as caught:
            towers(config, "config.json")
        assert "\n" not in str(caught.value)


def test_code_and_other_fields_never_reach_the_library(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[set[str]] = []

    def config(**values: Any) -> Any:
        given.append(set(values))
        return library.ViTConfig(**values)

    stand_in = SimpleNamespace(ViTConfig=config, ViTModel=library.ViTModel)
    monkeypatch.setattr(hf_transformers, "library", lambda name: stand_in)
    towers(
        {
            "model_type": "vit",
            **VIT,
            "auto_map": {"AutoModel": "code.Model"},
            "_name_or_path": "https://example.org",
            "torch_dtype": "float16",
            "attn_implementation": "someone/kernel",
            "_attn_implementation": "flash_attention_2",
            "output_attentions": True,
            "return_dict": False,
            "pruned_heads": {"0": [1]},
        },
        "config.json",
    ).build()
    assert given and all(names == set(VIT) for names in given)


def test_the_library_is_imported_only_to_build() -> None:
    code = (
        "import sys; from encodercheck.weights import hf_transformers as h\n"
        "assert 'transformers' not in sys.modules and 'torchvision' not in sys.modules\n"
        "sys.modules['transformers'] = None\n"
        "try: h.towers({'model_type': 'vit'}, 'config.json')\n"
        "except h.ConfigError as error: print(error)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.strip() == (
        "transformers is not installed: pip install encodercheck[transformers]"
    )


def test_a_library_too_old(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    older = SimpleNamespace(__version__="4.50.0")
    monkeypatch.setattr(hf_transformers, "library", lambda name: older)
    with pytest.raises(ConfigError, match=r"transformers 4\.50\.0 has no dinov3_vit: pip install"):
        towers({"model_type": "dinov3_vit"}, "config.json")


@contextmanager
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import socket

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the network was asked")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", refuse)
        patched.setattr(socket, "getaddrinfo", refuse)
        yield


def test_nothing_is_downloaded(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with _no_sockets(monkeypatch):
        for model_type, family in SUPPORTED.items():
            if hasattr(library, f"{family.stem}Model"):
                towers({"model_type": model_type, "_name_or_path": "google/vit"}, "c").build()


def described(values: Mapping[str, Any], processor: Mapping[str, Any] | None) -> Preprocessing:
    source: Source = towers({"model_type": "vit", **VIT, **values}, "config.json")
    if processor is not None:
        source = processed(source, processor, "folder/preprocessor_config.json")
    made = source.describe(source.build())
    assert made is not None
    return made


FILE = "preprocessor_config.json"


def test_preprocessing_without_a_processor(library: Any) -> None:
    made = described({}, None)
    assert made == Preprocessing(
        SIZE,
        (0.5, 0.5, 0.5),
        (0.5, 0.5, 0.5),
        "assumed: usual for vit",
        {"image_size": "config.json's image_size"},
    )
    made = described({"image_size": None}, None)
    assert made.image_size == 224
    assert made.source_of("image_size") == "assumed: transformers' default for vit"
    made = described({"model_type": "resnet"}, None)
    assert (made.mean, made.std) == IMAGENET and made.image_size == 224
    assert made.summary() == "assumed: usual for resnet"
    clip = {"model_type": "clip", "vision_config": {"image_size": 336, "patch_size": 14}}
    assert described(clip, None).image_size == 336


@pytest.mark.parametrize(
    ("processor", "size"),
    [
        ({"size": 40}, 40),
        ({"size": [40, 40]}, 40),
        ({"size": {"height": 40, "width": 40}}, 40),
        ({"size": {"shortest_edge": 40}}, 40),
        ({"size": {"shortest_edge": 50}, "crop_size": {"height": 40, "width": 40}}, 40),
        ({"size": 50, "crop_size": 40, "do_center_crop": True}, 40),
        ({"size": 40, "crop_size": 30, "do_center_crop": False}, 40),
        ({"size": 40, "do_resize": False}, SIZE),
        ({"image_processor": {"size": 40}}, 40),
        ({}, SIZE),
    ],
)
def test_the_processed_size(library: Any, processor: dict[str, Any], size: int) -> None:
    made = described({}, processor)
    assert made.image_size == size
    assert made.source_of("image_size") == (FILE if size == 40 else "config.json's image_size")


def test_the_processed_normalisation(library: Any) -> None:
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 1], "rescale_factor": 1 / 255}
    made = described({}, said)
    assert (made.mean, made.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 1.0))
    assert made.source_of("mean") == made.source_of("std") == FILE
    plain = described({}, {**said, "do_normalize": False})
    assert (plain.mean, plain.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    # The library's own sum, on pixels in [0, 255].
    for more, factor in (({"do_rescale": False}, 1), ({"rescale_factor": 1 / 127.5}, 1 / 127.5)):
        made = described({}, {**said, **more})
        for index, pixel in enumerate((0, 7, 255)):
            library_value = (pixel * factor - said["image_mean"][index]) / said["image_std"][index]
            ours = (pixel / 255 - made.mean[index]) / made.std[index]
            assert ours == pytest.approx(library_value)
    silent = described({}, {"size": 40})
    assert silent.source_of("mean") == silent.source_of("std") == "assumed: usual for vit"


@pytest.mark.parametrize(
    "processor",
    [
        {"image_mean": [0.5, 0.5]},
        {"image_mean": [0.5, 0.5, float("nan")]},
        {"image_mean": [0.5, 0.5, "0.5"]},
        {"image_std": [0.5, 0.5, 0]},
        {"image_std": 0.5},
        {"rescale_factor": 0},
        {"rescale_factor": "1/255"},
        {"size": {"height": 224, "width": 112}},
        {"size": 10**9},
        {"size": -1},
        {"size": {"longest_edge": 224}},
        {"size": [[224]]},
        {"size": True},
        {"image_processor": [1]},
    ],
    ids=str,
)
def test_hostile_processors_are_refused_in_a_line(library: Any, processor: dict[str, Any]) -> None:
    with pytest.raises(
        LoadError, match=r"^folder/preprocessor_config.json: .+; download"
    ) as caught:
        described({}, processor)
    assert "\n" not in str(caught.value)


# The library's default is another type's where types share an image processor; the models of these
# types come with ImageNet's, or the processor of a type is not the one of its models.
NOT_THE_LIBRARYS = {
    *("deit", "vit_mae", "vit_msn", "ijepa", "dinov2", "resnet", "regnet", "convnext"),
    *("convnextv2", "swin", "swinv2"),
}


def test_normalisations_are_the_librarys(library: Any) -> None:
    auto = pytest.importorskip("transformers.models.auto.image_processing_auto")
    compared = set()
    for model_type, family in SUPPORTED.items():
        named = auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type)
        if named is None or model_type in NOT_THE_LIBRARYS:
            continue
        names = named.values() if isinstance(named, dict) else named
        for name in filter(None, names):
            try:
                processor = getattr(library, name)()
            except ImportError:
                continue
            own = (tuple(processor.image_mean), tuple(processor.image_std))
            assert own == family.normalisation, model_type
            compared.add(model_type)
    assert {"vit", "clip", "siglip", "beit"} <= compared
