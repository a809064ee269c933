"""Features of loaded encoders against those of the libraries' own models.

A few architectures of each source here; all of them in ``python -m benchmarks.oracle``.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

pytest.importorskip("timm")
pytest.importorskip("open_clip")
pytest.importorskip("transformers")

import originals
import wrappers

from benchmarks import oracle

FOLDERS = ("base model", "with a head", "bfloat16", "sharded", "module.")
FEW = {
    "torchvision:resnet18": ("plain", "MoCo v2", "lightly, Sequential"),
    "torchvision:mobilenet_v3_small": ("DataParallel", "DINO", "BadEncoder"),
    "torchvision:shufflenet_v2_x0_5": ("plain", "BYOL", "torch.compile"),
    "timm:vit_tiny_patch16_224": ("plain", "MAE", "DINO"),
    "timm:vit_small_patch16_224,img_size=96": ("SimCLR", "MoCo v3", "MAE"),
    "timm:deit_tiny_distilled_patch16_224": ("plain", "lightly", "MoCo v2"),
    "timm:xcit_nano_12_p16_224,img_size=160": ("plain", "solo-learn", "Lightning"),
    "timm:levit_128s": ("plain", "BYOL", "BadEncoder"),
    "timm:convnext_atto": ("DataParallel", "MoCo v2", "MAE"),
    "timm:mobilenetv3_small_050": ("plain", "DINO", "lightly"),
    "open_clip:ViT-S-32-alt": ("plain", "DataParallel", "BadEncoder"),
    "transformers:ViTModel": FOLDERS,
    "transformers:CLIPModel": FOLDERS,
    "transformers:ResNetModel": FOLDERS,
    "transformers:Swinv2Model": FOLDERS,
}
AMBIGUOUS = {
    ("torchvision:resnet18", "plain"),
    ("torchvision:resnet18", "MoCo v2"),
    ("torchvision:resnet18", "lightly, Sequential"),
    ("timm:vit_small_patch16_224,img_size=96", "MoCo v3"),
}


@pytest.mark.parametrize("arch", FEW)
def test_features_are_the_librarys(arch: str) -> None:
    rows = oracle.rows_of(arch, FEW[arch])
    assert [row["wrapper"] for row in rows if oracle.failed(row)] == [], rows
    assert {row["wrapper"] for row in rows} == set(FEW[arch])
    found = {(arch, row["wrapper"]) for row in rows if row["outcome"] == "ambiguous"}
    assert found == {(name, wrapper) for name, wrapper in AMBIGUOUS if name == arch}


def test_a_vit_small_of_moco_v3() -> None:
    arch = "timm:vit_small_patch16_224,num_heads=12,img_size=96"
    (row,) = oracle.rows_of(arch, ["MoCo v3"])
    assert row["outcome"] == "ambiguous" and not oracle.failed(row), row


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_features_are_the_librarys_for_the_whole_table() -> None:
    rows = [row for arch in oracle.table() for row in oracle.rows_of(arch)]
    assert len({row["arch"] for row in rows}) >= 60
    assert [oracle.fault(row) for row in rows if oracle.failed(row)] == []


def test_the_oracle_sees_what_differs(tmp_path: Path) -> None:
    arch = "timm:mobilenetv3_small_050"
    model = originals.full(arch)
    originals.enliven(model, 224)
    path = tmp_path / "model.safetensors"
    save_file(wrappers.WRAPPERS["MoCo v2"](dict(model.state_dict())), path)

    def original(made: nn.Module, name: str = arch) -> oracle.Original:
        return oracle.Original(name, lambda images: originals.features(arch, made, images))

    assert not oracle.failed(oracle.judge(path, original(model), text_tower=False))
    row = oracle.judge(path, original(model), text_tower=True)
    assert row["faults"] == ["a text tower overlooked"]
    row = oracle.judge(path, original(model, "timm:tinynet_e"), text_tower=False)
    assert (row["outcome"], row["answer"]) == ("wrong", arch)
    with torch.no_grad():
        model.conv_head.weight.mul_(1.001)
    row = oracle.judge(path, original(model), text_tower=False)
    assert row["outcome"] == "identified" and row["faults"] == ["other features"]
    row = oracle.judge(tmp_path / "none.safetensors", original(model), text_tower=False)
    assert row["outcome"] == "missed" and oracle.failed(row)


def test_names_of_one_function() -> None:
    assert oracle.same("timm:vit_tiny_patch16_224,img_size=96", "timm:vit_tiny_patch16_384")
    assert not oracle.same("timm:vit_small_patch16_224,num_heads=12", "timm:vit_small_patch16_224")
    assert not oracle.same("open_clip:ViT-B-32", "open_clip:ViT-B-32-quickgelu")
