import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from hostile import shapes_only
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encodercheck.errors import AmbiguousArchitecture, LoadError, UnknownArchitecture
from encodercheck.weights.build import split
from encodercheck.weights.checkpoint import open_checkpoint
from encodercheck.weights.identify import refuse_early
from encodercheck.weights.index import load as load_index
from encodercheck.weights.metadata import metadata_for, read_metadata
from encodercheck.weights.read_resnet import Identified, read_resnet
from encodercheck.weights.resnet import ResNet
from encodercheck.weights.spec import ResNetSpec, expected_shapes

Shapes = dict[str, tuple[int, ...]]
VIT = next(e for e in load_index().entries() if e.arch == "timm:vit_tiny_patch16_224").shapes
NARROW = ResNetSpec("basic", (1, 1), (4, 8), stem_kernel=3, stem_stride=1, maxpool=False)


def identified(folder: Path, shapes: Shapes, **options: Any) -> Identified:
    """Read a ResNet off such a file, as the first candidate where a stem leaves a choice."""
    checkpoint = open_checkpoint(shapes_only(folder / "model.safetensors", shapes, **options))
    metadata = read_metadata(checkpoint)
    try:
        return read_resnet(checkpoint, metadata)
    except AmbiguousArchitecture as error:
        if not error.candidates:
            raise
        return read_resnet(checkpoint, metadata, split(error.candidates[0])[1])


def shapes_of(module: nn.Module, prefix: str = "") -> Shapes:
    return {f"{prefix}{name}": tuple(part.shape) for name, part in module.state_dict().items()}


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return torchvision.models.get_model(name)


def under(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}{name}": shape for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet34",
        "resnet50",
        "resnet101",
        "resnet152",
        "resnext50_32x4d",
        "resnext101_64x4d",
        "wide_resnet50_2",
    ],
)
def test_torchvision_resnets_are_named(tmp_path: Path, name: str) -> None:
    found = identified(tmp_path, shapes_of(on_meta(name)))
    assert str(found.spec) == name
    assert found.found_by == "read off the tensors"
    assert (found.preprocessing.image_size, found.preprocessing.mean[0]) == (224, 0.485)
    assert any("ignored 2 tensors" in note and "fc.* (2)" in note for note in found.notes)
    assert any("strides are not in a weights file" in note for note in found.notes)
    assert not any("num_batches_tracked" in key for key in found.key_map)


@st.composite
def specs(draw: st.DrawFn) -> ResNetSpec:
    stages = draw(st.integers(1, 5))
    bottleneck = draw(st.booleans())
    widths = st.sampled_from([4, 8, 12, 16])
    kernel = draw(st.sampled_from([3, 7]))
    naming = draw(st.sampled_from(["torchvision", "sequential"]))
    return ResNetSpec(
        "bottleneck" if bottleneck else "basic",
        tuple(draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages))),
        tuple(draw(st.lists(widths, min_size=stages, max_size=stages))),
        stem_width=draw(widths),
        stem_kernel=kernel,
        stem_stride=2 if kernel == 7 else 1,
        maxpool=draw(st.booleans()) if naming == "sequential" else kernel == 7,
        groups=draw(st.sampled_from([1, 2])) if bottleneck else 1,
        base_width=draw(st.sampled_from([32, 64, 128])) if bottleneck else 64,
        naming=naming,
    )


@given(spec=specs())
def test_any_spec_is_read_off_its_own_tensors(
    tmp_path_factory: pytest.TempPathFactory, spec: ResNetSpec
) -> None:
    shapes = under("module.encoder.", {named(spec, n): s for n, s in expected_shapes(spec).items()})
    found = identified(tmp_path_factory.mktemp("spec"), shapes)
    assert found.spec == spec
    for name in expected_shapes(spec):
        assert found.key_map[f"module.encoder.{named(spec, name)}"] == name
    assert ResNetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    with torch.device("meta"):
        module = ResNet(spec)
    built = {name: shape for name, shape in shapes_of(module).items() if "num_batches" not in name}
    assert built == expected_shapes(spec)


def named(spec: ResNetSpec, name: str) -> str:
    """Return a torchvision name as BadEncoder's Sequential calls it."""
    if spec.naming == "torchvision":
        return name
    first, _, rest = name.partition(".")
    offset = 3 if spec.maxpool else 2
    positions = {"conv1": 0, "bn1": 1} | {f"layer{k}": k + offset for k in range(1, 9)}
    return f"{positions[first]}.{rest}"


def test_badencoder_naming_with_projection_head(tmp_path: Path) -> None:
    spec = ResNetSpec(
        "basic",
        (2, 2, 2, 2),
        (64, 128, 256, 512),
        stem_kernel=3,
        stem_stride=1,
        maxpool=False,
        naming="sequential",
    )
    shapes = under(
        "f.f.", {named(spec, name): shape for name, shape in expected_shapes(spec).items()}
    )
    shapes |= {"f.g.0.weight": (512, 512), "g.0.weight": (512, 512), "g.1.running_mean": (512,)}
    found = identified(tmp_path, shapes)
    assert found.spec == spec
    assert str(found.spec) == "resnet18(3x3 stem stride 1)"
    assert found.key_map["f.f.3.0.conv1.weight"] == "layer1.0.conv1.weight"
    assert found.preprocessing.image_size == 32
    assert "CIFAR-10" in found.preprocessing.source
    assert any("g.* (2)" in note for note in found.notes)


def test_a_projector_behind_the_pool_of_a_sequential_is_no_obstacle(tmp_path: Path) -> None:
    spec = ResNetSpec("basic", (1, 1), (4, 8), naming="sequential")
    shapes = {named(spec, name): shape for name, shape in expected_shapes(spec).items()}
    found = identified(tmp_path, under("backbone.", {**shapes, "8.weight": (8, 8)}))
    assert found.spec == spec
    assert found.spec.maxpool


def test_cifar_shortcuts_are_downsamples(tmp_path: Path) -> None:
    shapes = {
        name.replace("downsample", "shortcut"): shape
        for name, shape in expected_shapes(NARROW).items()
    }
    found = identified(tmp_path, {**shapes, "linear.weight": (10, 8)})
    assert found.spec == NARROW
    assert found.key_map["layer2.0.shortcut.0.weight"] == "layer2.0.downsample.0.weight"


@pytest.mark.parametrize(
    ("taken", "passed"),
    [
        ("module.encoder_q.", "module.encoder_k."),
        ("student.backbone.", "teacher.backbone."),
        ("online_encoder.", "target_encoder."),
        ("", "momentum_encoder."),
        ("backbone.", "backbone_momentum."),
    ],
)
def test_the_student_goes_before_the_teacher(tmp_path: Path, taken: str, passed: str) -> None:
    shapes = under(passed, expected_shapes(NARROW)) | under(taken, expected_shapes(NARROW))
    found = identified(tmp_path, {**shapes, "queue": (128, 64)})
    assert set(found.key_map) == set(under(taken, expected_shapes(NARROW)))
    assert any(f"took '{taken}', not '{passed}'" in note for note in found.notes)


def test_two_encoders_of_equal_standing_are_ambiguous(tmp_path: Path) -> None:
    shapes = under("left.", expected_shapes(NARROW)) | under("right.", expected_shapes(NARROW))
    with pytest.raises(
        AmbiguousArchitecture, match=r"2 encoders of equal standing \(left., right.\)"
    ):
        identified(tmp_path, shapes)


def test_only_the_teacher_is_good_enough(tmp_path: Path) -> None:
    found = identified(tmp_path, under("teacher.", expected_shapes(NARROW)))
    assert found.spec == NARROW


STEM = {"conv1.weight": (4, 3, 3, 3)}
UNKNOWN = {
    "attention in a block": ({"layer1.0.se.fc1.weight": (2, 4, 1, 1)}, "layer1.0.se.fc1.weight"),
    "layer scale": ({"layer1.0.gamma": (4,)}, "unexpected \\(layer1.0.gamma\\)"),
    "convolution bias": ({"conv1.bias": (4,)}, "unexpected \\(conv1.bias\\)"),
    "attention pool": ({"attnpool.c_proj.weight": (8, 8)}, "attnpool.c_proj.weight"),
    "another kernel": ({"conv1.weight": (4, 3, 5, 5)}, "stem is not 3x3 or 7x7"),
    "no convolution": ({"conv1.weight": (4, 3)}, "conv1.weight is no convolution"),
    "empty": ({"layer1.0.conv1.weight": (0, 4, 3, 3)}, "no convolution"),
    "other width inside": ({"layer2.0.conv2.weight": (8, 4, 3, 3)}, "8x4x3x3, not 8x8x3x3"),
    "grouped to nothing": ({"layer1.0.conv3.weight": (16, 4, 1, 1)}, "another architecture|fit it"),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_relatives_that_are_something_else(tmp_path: Path, name: str) -> None:
    changes, expected = UNKNOWN[name]
    with pytest.raises(UnknownArchitecture, match=expected) as caught:
        identified(tmp_path, {**expected_shapes(NARROW), **changes})
    assert "--arch" in str(caught.value)


def test_a_deep_stem_is_another_architecture(tmp_path: Path) -> None:
    shapes: Shapes = {**expected_shapes(NARROW), "conv1.0.weight": (4, 3, 3, 3)}
    del shapes["conv1.weight"]
    with pytest.raises(UnknownArchitecture, match=r"conv1.weight is missing \(conv1.0.weight\)"):
        identified(tmp_path, shapes)


def test_missing_tensors_are_named(tmp_path: Path) -> None:
    shapes = expected_shapes(NARROW)
    del shapes["layer2.0.bn1.running_var"]
    with pytest.raises(UnknownArchitecture, match="1 tensor missing"):
        identified(tmp_path, shapes)


def test_one_channel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="images of 1 channel; encodercheck scans RGB"):
        identified(tmp_path, {**expected_shapes(NARROW), "conv1.weight": (4, 1, 3, 3)})


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"embeddings.word_embeddings.weight": (99, 8)}, "looks like a text encoder"),
        ({"wte.weight": (99, 8), "h.0.attn.weight": (8, 8)}, "looks like a text encoder"),
        (
            {"features.0.weight": (8, 3, 3, 3)},
            "no known architecture fits its tensors .features.0.weight",
        ),
        (
            {"vit.embeddings.patch_embeddings.projection.weight": (8, 3, 4, 4)},
            "names of a model of the transformers library, which only its config.json describes",
        ),
        (
            {k: v for k, v in VIT.items() if k != "blocks.3.norm1.weight"},
            r"nearest are timm:(deit|vit)_tiny_patch16_224 \(99% alike\)",
        ),
    ],
)
def test_what_is_unknown(tmp_path: Path, shapes: Shapes, expected: str) -> None:
    checkpoint = open_checkpoint(shapes_only(tmp_path / "model.safetensors", shapes))
    with pytest.raises(UnknownArchitecture, match=expected):
        refuse_early(checkpoint)


def test_what_a_files_metadata_name_is_not_refused_early(tmp_path: Path) -> None:
    # One block more than any known name has.
    deeper = VIT | {k.replace(".11.", ".12."): v for k, v in VIT.items() if ".11." in k}
    path = tmp_path / "model.safetensors"
    with pytest.raises(AmbiguousArchitecture, match="number of heads"):
        refuse_early(open_checkpoint(shapes_only(path, deeper)))
    arch = "timm:vit_tiny_patch16_224,depth=13"
    known = metadata_for(arch, image_size=224, mean=(0.5,) * 3, std=(0.5,) * 3)
    refuse_early(open_checkpoint(shapes_only(path, deeper, metadata=known)))


def test_integers_do_not_convert(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="integer weights"):
        identified(tmp_path, expected_shapes(NARROW), dtype="I8")


STRIDED = ResNetSpec("basic", (1, 1), (4, 8), stem_kernel=3, stem_stride=2, maxpool=False)


def test_metadata_say_what_tensors_cannot(tmp_path: Path) -> None:
    metadata = metadata_for(STRIDED, image_size=48, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    found = identified(tmp_path, expected_shapes(STRIDED), metadata=metadata)
    assert found.spec == STRIDED
    assert str(found.spec) == "resnet(basic, width 4, depths 1-1, 3x3 stem stride 2)"
    assert found.found_by == "the file's metadata"
    assert found.preprocessing.image_size == 48
    assert found.preprocessing.summary() == "the file's metadata"
    assert found.notes == ()


def entry_of(**changes: Any) -> str:
    return json.dumps({"architecture": {**STRIDED.to_dict(), **changes}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nope", "is invalid"),
        ("[]", "not an object"),
        ("[" * 5_000, "nested too deeply|is invalid"),
        (" " * 20_000, "longer than 10000"),
        ('{"architecture": "os.system"}', "architecture does not begin with torchvision: or timm:"),
        (entry_of(auto_map="x"), "unknown field 'auto_map'"),
        (entry_of(block="evil"), "block is none of"),
        (entry_of(depths=[]), "depths are not 1 to 8 stages"),
        (entry_of(depths=[1, True]), "depths is not a list of integers"),
        (entry_of(maxpool=1), "maxpool is not bool"),
        (entry_of(widths=[4, 10**9]), "a width is out of range"),
        (entry_of(stem_stride=0), "a stride is not 1 or 2"),
        (entry_of(groups=2), "basic blocks have one group"),
        (entry_of(widths=[4, 16]), "metadata say resnet.*widths|metadata say"),
        (entry_of(naming="sequential"), "metadata say .*sequential names"),
        ('{"image_size": 0}', "image_size is not an integer"),
        ('{"image_size": 1e999}', "image_size is not an integer"),
        ('{"mean": [0, 0]}', "mean is not three numbers"),
        ('{"std": [0, 1, 1]}', "std is not positive"),
        ('{"std": [1, 1, 1e999]}', "std is not three numbers"),
        ('{"mean": [1, 1, "\\u001b"]}', "mean is not three numbers"),
    ],
)
def test_untrusted_metadata(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(LoadError, match=expected) as caught:
        identified(tmp_path, expected_shapes(STRIDED), metadata={"encodercheck": text})
    assert str(caught.value).isprintable()


def test_partial_metadata(tmp_path: Path) -> None:
    metadata = {"encodercheck": '{"image_size": 64, "later": true}'}
    found = identified(tmp_path, expected_shapes(NARROW), metadata=metadata)
    assert found.preprocessing.image_size == 64
    assert found.preprocessing.mean[0] == 0.4914
    assert found.preprocessing.summary() == (
        "image_size: the file's metadata; mean, std: assumed from the 3x3 stem: CIFAR-10"
    )


@given(
    names=st.dictionaries(
        st.lists(
            st.sampled_from(["layer1", "0", "3", "conv1", "bn1", "weight", "f", "fc", "x\n", ""]),
            max_size=4,
        ).map(".".join),
        st.lists(st.integers(0, 8), max_size=5).map(tuple),
        max_size=12,
    ),
    complete=st.booleans(),
)
def test_no_file_gets_another_exception(
    tmp_path_factory: pytest.TempPathFactory, names: Shapes, complete: bool
) -> None:
    shapes = {**(expected_shapes(NARROW) if complete else {}), **names}
    try:
        identified(tmp_path_factory.mktemp("any"), shapes)
    except LoadError as error:
        assert str(error).isprintable()
