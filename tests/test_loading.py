import hashlib
import json
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hostile import shapes_only, write
from safetensors.torch import save_file
from torch import Tensor, nn

from encodercheck.encoder import Encoder
from encodercheck.errors import (
    AmbiguousArchitecture,
    ConfigError,
    LoadError,
    UnknownArchitecture,
)
from encodercheck.loading import inspect, load
from encodercheck.weights.files import locate
from encodercheck.weights.metadata import metadata_for
from encodercheck.weights.resnet import ResNet
from encodercheck.weights.spec import ResNetSpec, expected_shapes

State = dict[str, Tensor]
TINY = ResNetSpec("basic", (1, 1, 1), (4, 8, 12), stem_kernel=3, stem_stride=1, maxpool=False)
# What no tensor of TINY shows.
TINY_ARCH = "resnet,stem_stride=1,maxpool=False"


def saved(folder: Path, state: State, **options: Any) -> Path:
    path = folder / "model.safetensors"
    save_file({name: part.contiguous().clone() for name, part in state.items()}, path, **options)
    return path


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": part for name, part in state.items()}


def lively(module: nn.Module) -> nn.Module:
    """Give every norm layer statistics of its own, as training would."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.5, 1.5)  # type: ignore[arg-type]
            nn.init.uniform_(part.weight, 0.5, 1.0)
            nn.init.uniform_(part.bias, -0.1, 0.1)
    return module.eval()


def tiny(spec: ResNetSpec = TINY) -> ResNet:
    torch.manual_seed(0)
    module = lively(ResNet(spec))
    assert isinstance(module, ResNet)
    return module


def assert_same_features(encoder: Encoder, source: nn.Module, atol: float = 1e-5) -> None:
    size = encoder.image_size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (encoder.preprocessing.mean, encoder.preprocessing.std)
    )
    with torch.no_grad():
        expected = source.eval()((images - mean) / std).flatten(1)
    torch.testing.assert_close(encoder(images), expected, atol=atol, rtol=1e-4)


def headless(name: str) -> nn.Module:
    torch.manual_seed(0)
    module = lively(torchvision.models.get_model(name))
    module.fc = nn.Identity()
    return module


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnext50_32x4d", "wide_resnet50_2"]
)
def test_features_equal_torchvision(tmp_path: Path, name: str) -> None:
    source = headless(name)
    head = {"fc.weight": torch.zeros(10, 4), "fc.bias": torch.zeros(10)}
    path = saved(tmp_path, {**source.state_dict(), **head})
    encoder = load(path, arch=f"torchvision:{name}", image_size=64, device="cpu")
    assert encoder.provenance.architecture == f"torchvision:{name}"
    assert encoder.provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert_same_features(encoder, source)


def test_features_of_a_narrow_network_in_a_folder(tmp_path: Path) -> None:
    source = tiny()
    saved(tmp_path, source.state_dict())
    encoder = load(str(tmp_path), arch=TINY_ARCH, device="cpu")
    assert str(encoder.provenance.path).endswith("model.safetensors")
    assert encoder.provenance.architecture == (
        "resnet(basic, widths 4-8-12, depths 1-1-1, 3x3 stem stride 1)"
    )
    assert (encoder.image_size, encoder.embedding_dim) == (32, 12)
    assert_same_features(encoder, source)


class BadEncoder(nn.Module):
    """SimCLR's ResNet-18 for CIFAR-10 as BadEncoder writes it."""

    def __init__(self) -> None:
        super().__init__()
        children = []
        for name, child in torchvision.models.resnet18().named_children():
            if name == "conv1":
                child = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
            if not isinstance(child, nn.Linear | nn.MaxPool2d):
                children.append(child)
        self.f = nn.Sequential(*children)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.f(images)
        return features


def test_features_of_badencoders_sequential(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = lively(BadEncoder())
    head = nn.Sequential(nn.Linear(512, 512, bias=False), nn.BatchNorm1d(512), nn.Linear(512, 128))
    state = under("f.", source.state_dict()) | under("g.", head.state_dict())
    encoder = load(saved(tmp_path, state), device="cpu")
    assert encoder.provenance.architecture == "resnet18(3x3 stem stride 1)"
    assert encoder.preprocessing.mean == (0.4914, 0.4822, 0.4465)
    assert_same_features(encoder, source)


def test_features_of_a_sequential_with_max_pool(tmp_path: Path) -> None:
    children = [*headless("resnet18").children()][:-1]
    source = nn.Sequential(*children)
    path = saved(tmp_path, under("backbone.", source.state_dict()))
    encoder = load(path, arch="resnet18", image_size=64, device="cpu")
    assert encoder.provenance.architecture == "torchvision:resnet18"
    assert_same_features(encoder, source)


def test_the_query_encoder_goes_before_the_key_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key = tiny(), lively(ResNet(TINY))
    state = under("module.encoder_q.", query.state_dict())
    state |= under("module.encoder_k.", key.state_dict())
    state |= {"module.encoder_q.fc.0.weight": torch.zeros(12, 12), "queue": torch.zeros(2, 4)}
    write_factory(tmp_path, monkeypatch)
    for arch in (TINY_ARCH, "my_encoders:tiny"):
        encoder = load(saved(tmp_path, state), arch=arch, image_size=32, device="cpu")
        assert any("not 'module.encoder_k.'" in note for note in encoder.provenance.notes)
        for name, part in query.named_parameters():
            assert torch.equal(encoder.module.get_parameter(name), part)


def test_num_batches_tracked_may_be_missing(tmp_path: Path) -> None:
    source = tiny()
    state = {name: part for name, part in source.state_dict().items() if "num_batches" not in name}
    encoder = load(saved(tmp_path, state), arch=TINY_ARCH, device="cpu")
    assert_same_features(encoder, source)
    assert encoder.module.state_dict()["bn1.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2],
)
def test_other_floats_become_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    source = tiny()
    state = {
        name: part.to(dtype) if part.is_floating_point() else part
        for name, part in source.state_dict().items()
    }
    encoder = load(saved(tmp_path, state), arch=TINY_ARCH, device="cpu")
    assert {part.dtype for part in encoder.module.parameters()} == {torch.float32}
    source.load_state_dict({name: part.float() for name, part in state.items()})
    assert_same_features(encoder, source)


def test_metadata_decide_what_tensors_cannot(tmp_path: Path) -> None:
    spec = ResNetSpec(
        "basic", (1, 1, 1, 1), (4, 8, 16, 32), stem_kernel=3, stem_stride=2, maxpool=False
    )
    source = tiny(spec)
    metadata = metadata_for(spec, image_size=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))
    encoder = load(saved(tmp_path, source.state_dict(), metadata=metadata), device="cpu")
    assert encoder.preprocessing.image_size == 16
    assert encoder.preprocessing.mean == (0.1, 0.2, 0.3)
    assert_same_features(encoder, source)


def named(folder: Path, arch: object) -> Path:
    """Save TINY with metadata that say it is something else."""
    entry = {"architecture": arch, "image_size": 32}
    return saved(folder, tiny().state_dict(), metadata={"encodercheck": json.dumps(entry)})


def test_metadata_may_name_a_librarys_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = lively(torchvision.models.get_model("mobilenet_v3_small"))
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    arch = "torchvision:mobilenet_v3_small"
    metadata = metadata_for(arch, image_size=48, mean=mean, std=std)
    encoder = load(saved(tmp_path, source.state_dict(), metadata=metadata), device="cpu")
    assert encoder.provenance.architecture == arch
    assert encoder.provenance.found_by == "the file's metadata"
    assert (encoder.image_size, encoder.preprocessing.mean) == (48, mean)
    source.classifier[3] = nn.Identity()  # type: ignore[index, operator]
    assert_same_features(encoder, source)


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("my_encoders:tall", "does not begin with torchvision: or timm: or open_clip:"),
        ("os:getcwd", "does not begin with"),
        ("resnet50", "does not begin with"),
        ("", "does not begin with"),
        (5, "is invalid"),
        (["timm:resnet18"], "is invalid"),
        ("torchvision:resnet18", r"says torchvision:resnet18, which does not fit: .*; pass --arch"),
        ("torchvision:nothing", "names the model: .*unknown to torchvision"),
        ("torchvision", "does not begin with"),
        ("timm:vit_tiny_patch16_224,depth=100000", "depth is 100000 .at most 1000"),
        ("timm:vit_tiny_patch16_224,patch_size=1,img_size=512", "too many patches"),
        ("torchvision:resnet18,weights=DEFAULT", "'weights=DEFAULT' cannot be given"),
        ("torchvision:resnet18\n\x1b[31m", r"resnet18\\n\\x1b"),
    ],
)
def test_metadata_that_name_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: object, expected: str
) -> None:
    write_factory(tmp_path, monkeypatch)
    path = named(tmp_path, arch)
    for refuse in (load, inspect):
        with pytest.raises(LoadError, match=expected) as caught:
            refuse(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).isprintable()
    # A file must not choose which code is run.
    assert "my_encoders" not in sys.modules


def test_metadata_that_name_another_transformer(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    expected = r"model.safetensors: its metadata says timm:vit_base_patch16_224, which does not fit"
    with pytest.raises(LoadError, match=expected) as caught:
        load(named(tmp_path, "timm:vit_base_patch16_224"))
    assert str(caught.value).isprintable()


def test_arch_goes_before_what_metadata_name(tmp_path: Path) -> None:
    encoder = load(named(tmp_path, "torchvision:resnet18"), arch=TINY_ARCH, device="cpu")
    assert_same_features(encoder, tiny())


def test_nan_weights_load(tmp_path: Path) -> None:
    state = tiny().state_dict()
    state["layer1.0.conv1.weight"] = torch.full_like(state["layer1.0.conv1.weight"], torch.nan)
    encoder = load(saved(tmp_path, state), arch=TINY_ARCH, device="cpu")
    assert encoder(torch.rand(1, 3, 32, 32)).isnan().all()


def test_the_file_can_go_once_it_is_loaded(tmp_path: Path) -> None:
    path = saved(tmp_path, tiny().state_dict())
    encoder = load(path, arch=TINY_ARCH, device="cpu")
    before = encoder(torch.full((1, 3, 32, 32), 0.5))
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(encoder(torch.full((1, 3, 32, 32), 0.5)), before)


def test_loading_leaves_the_random_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, tiny().state_dict())
    write_factory(tmp_path, monkeypatch)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    load(path, arch=TINY_ARCH, device="cpu")
    load(path, arch="my_encoders:tiny", image_size=32, device="cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_inspect_agrees_with_load(tmp_path: Path) -> None:
    path = saved(tmp_path, tiny().state_dict())
    found = inspect(path, arch=TINY_ARCH, image_size=48)
    encoder = load(path, arch=TINY_ARCH, image_size=48, device="cpu")
    assert found.architecture == encoder.provenance.architecture
    assert found.preprocessing == encoder.preprocessing
    assert found.preprocessing.summary() == (
        "image_size: --image-size; mean, std: assumed from the 3x3 stem: CIFAR-10"
    )
    assert found.notes == encoder.provenance.notes
    assert found.parameters == encoder.parameters
    assert found.tensors == len(expected_shapes(TINY))


FACTORY = """
import torch
from torch import nn
from encodercheck.weights.resnet import ResNet
from encodercheck.weights.spec import ResNetSpec

class Headed(ResNet):
    def __init__(self):
        super().__init__(ResNetSpec("basic", (1, 1, 1), (4, 8, 12), stem_kernel=3, stem_stride=1,
                                    maxpool=False))
        self.fc = nn.Linear(12, 5)

    def forward(self, images):
        return self.fc(super().forward(images))

class Hidden(nn.Module):
    # Values that no file holds: they must not come from the meta device.
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.register_buffer("scale", torch.full((3,), 2.0), persistent=False)

    def forward(self, images):
        return images.mean((2, 3)) * self.weight * self.scale

tiny = Headed
hidden = Hidden
number = 3
def other(): return "no module"
def broken(): raise RuntimeError("two\\nlines")
def leaves(): raise SystemExit(3)
def flat(): return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(0), nn.Unflatten(0, (1, -1)))
def pair():
    class Pair(nn.Conv2d):
        def forward(self, images):
            return images, images
    return Pair(3, 4, 3)
"""


def write_factory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "my_encoders.py").write_text(FACTORY)
    monkeypatch.chdir(folder)
    monkeypatch.delitem(__import__("sys").modules, "my_encoders", raising=False)


def test_a_callable_may_have_a_head_that_the_file_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_factory(tmp_path, monkeypatch)
    source = tiny()
    path = saved(tmp_path, under("module.encoder.", source.state_dict()))
    encoder = load(path, arch="my_encoders:tiny", image_size=32, device="cpu")
    assert_same_features(encoder, source)
    assert "not in the file, so left out: fc" in encoder.provenance.notes
    assert (encoder.provenance.architecture, encoder.provenance.found_by) == (
        "my_encoders:tiny",
        "--arch",
    )


def test_buffers_that_no_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_factory(tmp_path, monkeypatch)
    path = saved(tmp_path, {"weight": torch.tensor([1.0, 2.0, 3.0])})
    encoder = load(
        path, arch="my_encoders:hidden", image_size=4, mean=(0, 0, 0), std=(1, 1, 1), device="cpu"
    )
    embedding = encoder(torch.ones(1, 3, 4, 4))
    assert embedding.tolist() == [[2.0, 4.0, 6.0]]
    assert encoder.preprocessing.summary() == "image_size: --image-size; mean: --mean; std: --std"


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("resnet5", "unknown to .*did you mean resnet50"),
        ("torchvision:fasterrcnn_resnet50_fpn", "unknown to torchvision"),
        ("timm:hf-hub:org/name", "unknown to timm|timm is not installed"),
        ("open_clip:hf-hub:org/name", "unknown to open_clip|open_clip is not installed"),
        ("no_such_package.module:make", "cannot be imported: ModuleNotFoundError"),
        ("my_encoders:nothing", "cannot be imported: AttributeError"),
        ("my_encoders:number", "is of type int, not a callable"),
        ("my_encoders:other", "returned str; it must return a torch.nn.Module"),
        ("my_encoders:broken", r"the call failed: RuntimeError: two\\nlines"),
        ("my_encoders:leaves", "the call failed: SystemExit: 3"),
        (":make", "expected package.module:callable"),
        ("my_encoders:", "expected package.module:callable"),
        ("", "unknown to"),
    ],
)
def test_arch_that_cannot_be_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str, expected: str
) -> None:
    write_factory(tmp_path, monkeypatch)
    with pytest.raises(ConfigError, match=expected) as caught:
        load(saved(tmp_path, tiny().state_dict()), arch=arch)
    assert str(caught.value).startswith("--arch")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("arch", "expected"),
    [
        ("my_encoders:flat", "turns 2 images into"),
        ("my_encoders:pair", "fails on 8x8 images: .*--image-size"),
    ],
)
def test_modules_that_embed_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arch: str, expected: str
) -> None:
    write_factory(tmp_path, monkeypatch)
    state = {"weight": torch.zeros(4, 3, 3, 3), "bias": torch.zeros(4)}
    with pytest.raises(LoadError, match=expected):
        load(saved(tmp_path, under("0.", state)), arch=arch, image_size=8)


def test_torchvision_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = lively(torchvision.models.get_model("mobilenet_v3_small"))
    path = saved(tmp_path, under("model.", source.state_dict()))
    encoder = load(path, arch="torchvision:mobilenet_v3_small", image_size=64, device="cpu")
    source.classifier[3] = nn.Identity()  # type: ignore[index, operator]
    assert_same_features(encoder, source)
    assert "torchvision's mobilenet_v3_small" in encoder.preprocessing.source


def test_timm_by_bare_name(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    source = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    encoder = load(saved(tmp_path, source.state_dict()), arch="vit_tiny_patch16_224", device="cpu")
    source.reset_classifier(0)
    assert_same_features(encoder, source)
    assert encoder.provenance.architecture == "timm:vit_tiny_patch16_224"
    assert encoder.preprocessing.mean == (0.5, 0.5, 0.5)


def test_a_tower_is_found_by_its_tensors_with_all_that_is_open(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    source = timm.create_model("vit_tiny_patch16_224", img_size=64)
    found = inspect(saved(tmp_path, under("module.", source.state_dict())))
    assert found.architecture == "timm:vit_tiny_patch16_224,img_size=64"
    assert found.found_by == "the index of known towers"
    assert found.preprocessing.image_size == 64
    notes = "\n".join(found.notes)
    assert "computes the same as" in notes
    assert "timm:deit_tiny_patch16_224,img_size=64 are also published for mean 0.485" in notes
    assert "stripped the prefix 'module.'" in notes


def test_convolutions_over_three_dimensions(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    source = lively(timm.create_model("lambda_resnet26t", num_classes=0))
    assert_same_features(load(saved(tmp_path, source.state_dict()), device="cpu"), source)


def test_moco_v3_divides_its_small_transformer_among_more_heads(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    state = timm.create_model("vit_small_patch16_224", num_classes=0).state_dict()
    path = saved(tmp_path, under("module.base_encoder.", state))
    with pytest.raises(AmbiguousArchitecture) as caught:
        inspect(path)
    plain, twelve = caught.value.candidates
    assert (plain, twelve) == ("timm:vit_small_patch16_224", f"{plain},num_heads=12")
    encoder = load(path, arch=twelve, device="cpu")
    source = timm.create_model("vit_small_patch16_224", num_classes=0, num_heads=12)
    source.load_state_dict(state)
    assert_same_features(encoder, source)
    assert inspect(saved(tmp_path, state)).architecture == plain


def test_timm_with_buffers_that_no_file_holds(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    source = timm.create_model("swinv2_cr_tiny_ns_224", num_classes=0)
    path = saved(tmp_path, source.state_dict())
    assert_same_features(load(path, arch="timm:swinv2_cr_tiny_ns_224", device="cpu"), source)


def test_open_clip_takes_the_image_tower(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    config = open_clip.get_model_config("RN50")
    tower = open_clip.model._build_vision_tower(config["embed_dim"], config["vision_cfg"]).eval()
    text = {"token_embedding.weight": torch.zeros(9, 4), "logit_scale": torch.zeros(())}
    path = saved(tmp_path, {**under("visual.", tower.state_dict()), **text})
    encoder = load(path, arch="open_clip:RN50", device="cpu")
    assert_same_features(encoder, tower, atol=1e-4)
    assert any("RN50-quickgelu" in note for note in encoder.provenance.notes)
    assert any("ignored 2 tensors" in note for note in encoder.provenance.notes)


def test_a_head_of_any_name_may_lie_beside_a_named_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = lively(torchvision.models.get_model("mobilenet_v3_small"))
    state = {**source.state_dict(), "bnneck.weight": torch.zeros(3)}
    path = saved(tmp_path, state)
    with pytest.raises(UnknownArchitecture, match="nearest are torchvision:mobilenet_v3_small"):
        load(path)
    encoder = load(path, arch="torchvision:mobilenet_v3_small", image_size=64, device="cpu")
    assert any("bnneck.* (1)" in note for note in encoder.provenance.notes)
    state["features.0.extra.weight"] = torch.zeros(3)
    with pytest.raises(LoadError, match=r"1 tensor unexpected \(features.0.extra.weight\)"):
        load(saved(tmp_path, state), arch="torchvision:mobilenet_v3_small")


def test_arch_that_does_not_fit(tmp_path: Path) -> None:
    path = shapes_only(tmp_path / "model.safetensors", expected_shapes(TINY))
    with pytest.raises(LoadError) as caught:
        load(path, arch="torchvision:resnet50")
    message = str(caught.value)
    assert message.startswith(f"--arch torchvision:resnet50 does not fit {path}: ")
    assert "tensors missing (" in message
    assert "of another shape (conv1.weight is 4x3x3x3, not 64x3x7x7" in message
    assert f"it would fit --arch {TINY_ARCH} or" in message


def test_arch_with_two_encoders_of_equal_standing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_factory(tmp_path, monkeypatch)
    state = under("left.", tiny().state_dict()) | under("right.", tiny().state_dict())
    with pytest.raises(AmbiguousArchitecture, match=r"left\., right\."):
        load(saved(tmp_path, state), arch="my_encoders:tiny")


def make_pickle(folder: Path) -> Path:
    torch.save({"conv1.weight": torch.zeros(1)}, folder / "model.pth")
    return folder / "model.pth"


def disguised_pickle(folder: Path) -> Path:
    return make_pickle(folder).rename(folder / "model.safetensors")


def old_pickle(folder: Path) -> Path:
    path = folder / "weights.safetensors"
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    return path


def truncated(folder: Path) -> Path:
    path = saved(folder, tiny().state_dict())
    path.write_bytes(path.read_bytes()[:-100])
    return path


def several(folder: Path) -> Path:
    for name in ("a", "b"):
        write(folder / f"{name}.safetensors", {})
    return folder


def sharded(folder: Path) -> Path:
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"):
        write(folder / name, {})
    (folder / "model.safetensors.index.json").write_text("{}")
    return folder


def bytes_at(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def shaped(shapes: dict[str, tuple[int, ...]], **options: Any) -> Callable[[Path], Path]:
    return lambda folder: shapes_only(folder / "model.safetensors", shapes, **options)


TEXT = {"text_model.embeddings.token_embedding.weight": (9, 4), "text_model.norm.weight": (4,)}
ONE_CHANNEL = {**expected_shapes(TINY), "conv1.weight": (4, 1, 3, 3)}
BAD_FILES: dict[str, tuple[Callable[[Path], Path | str], type[LoadError], str]] = {
    "missing": (lambda folder: folder / "none.safetensors", LoadError, "no such file"),
    "NUL in the path": (lambda folder: "no\0file", LoadError, "no such file|cannot be read"),
    "endless path": (lambda folder: "x" * 5_000, LoadError, "cannot be read: File name too long"),
    "empty folder": (lambda folder: folder, LoadError, "no .safetensors file in this folder"),
    "several": (several, LoadError, "2 .safetensors files .a.safetensors, b.safetensors.; pass"),
    "sharded": (sharded, LoadError, "has no weight_map; download the folder again"),
    "empty file": (bytes_at("a.safetensors", b""), LoadError, "the file is empty"),
    "truncated": (truncated, LoadError, "truncated: the tensors take"),
    "2^63": (
        bytes_at("a.safetensors", struct.pack("<Q", 2**63) + b"{}"),
        LoadError,
        "declares a header of 9223372036854775808 bytes",
    ),
    "pickle": (make_pickle, LoadError, "a pickle, which can run code .*save_file"),
    "folder of pickles": (
        lambda folder: make_pickle(folder).parent,
        LoadError,
        "model.pth: a pickle, .*weights_only=True",
    ),
    "pickle in disguise": (disguised_pickle, LoadError, "a pickle, which can run code"),
    "old pickle in disguise": (old_pickle, LoadError, "a pickle, which can run code"),
    "LFS": (
        bytes_at("a.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
        LoadError,
        "git lfs pull",
    ),
    "other suffix": (bytes_at("a.onnx", b"1234"), LoadError, "not a .safetensors file"),
    "text encoder": (shaped(TEXT), UnknownArchitecture, "looks like a text encoder"),
    "unknown": (shaped({"a.weight": (3, 3)}), UnknownArchitecture, "pass --arch"),
    "one channel": (shaped(ONE_CHANNEL), LoadError, "images of 1 channel"),
    "integers": (
        shaped(expected_shapes(ResNetSpec("basic", (1,), (4,))), dtype="I8"),
        LoadError,
        "integer weights",
    ),
    "bad metadata": (
        shaped(expected_shapes(TINY), metadata={"encodercheck": json.dumps({"std": "x"})}),
        LoadError,
        "metadata entry 'encodercheck' is invalid",
    ),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_one_clear_line(tmp_path: Path, name: str) -> None:
    make, kind, expected = BAD_FILES[name]
    path = make(tmp_path)
    for refuse in (load, inspect):
        with pytest.raises(LoadError, match=expected) as caught:
            refuse(path)
        assert type(caught.value) is kind
        assert str(caught.value).isprintable()


def test_names_that_look_like_escapes_stay_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "red\x1b[31m\n.safetensors"
    write(path, {})
    with pytest.raises(LoadError, match=r"red\\x1b\[31m\\n.safetensors: holds no tensors"):
        load(path)


def test_a_header_that_begins_like_a_pickle_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    text = b"{}".ljust(0x0280)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert locate(path).path == path


@pytest.mark.parametrize("content", [b"", None], ids=["truncated", "touched"])
def test_a_file_that_changes_after_its_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = saved(tmp_path, tiny().state_dict())
    build = ResNet.__init__

    def swap(module: ResNet, spec: ResNetSpec) -> None:
        path.write_bytes(path.read_bytes() if content is None else content)
        build(module, spec)

    monkeypatch.setattr(ResNet, "__init__", swap)
    with pytest.raises(LoadError, match="changed while it was read; try again"):
        load(path, arch=TINY_ARCH)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 0},
        {"image_size": 10**9},
        {"mean": (1.0, 2.0)},
        {"std": (1.0, 0.0, 1.0)},
        {"std": (1.0, float("nan"), 1.0)},
        {"device": "abacus"},
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^--"):
        load(saved(tmp_path, tiny().state_dict()), **options)
