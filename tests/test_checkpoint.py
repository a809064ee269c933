"""Weights in shards, tensors that share memory, and those that lie in memory in another order."""

from __future__ import annotations

import hashlib
import json
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import entry, swollen, write
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from encodercheck.encoder import Encoder
from encodercheck.errors import LoadError
from encodercheck.loading import load
from encodercheck.weights.checkpoint import open_checkpoint
from encodercheck.weights.files import locate

State = dict[str, Tensor]
INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Tied(nn.Module):
    """Uses one convolution twice, and holds its weight a third time."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block = conv(3, 8), conv(8, 8)
        self.again = self.block
        self.third = conv(8, 8)
        self.third.weight = self.block.weight

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.block(self.stem(images).tanh()).tanh()
        hidden = self.third(self.again(hidden).tanh())
        return hidden.mean((2, 3))


class Strided(nn.Module):
    """Holds weights that are no plain rows of numbers in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8).to(memory_format=torch.channels_last)
        self.matrix = nn.Parameter(torch.randn(6, 8).t())
        self.register_buffer("scale", torch.randn(6, 2)[:, 0])

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.stem(images).mean((2, 3)).tanh()
        return (hidden @ self.matrix) * self.scale


def seeded(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def loaded(model: Path, kind: type[nn.Module]) -> Encoder:
    arch = f"{__name__}:{kind.__name__}"
    return load(
        model, arch=arch, image_size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), device="cpu"
    )


def assert_embeds_as(encoder: Encoder, source: nn.Module) -> None:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(encoder(images), source(images), atol=1e-6, rtol=1e-5)


# Shared and strided tensors.


def test_tensors_that_the_writer_left_out(tmp_path: Path) -> None:
    source = seeded(Tied)
    path = tmp_path / "model.safetensors"
    save_model(source, str(path))
    checkpoint = open_checkpoint(path)
    assert len(checkpoint.tensors) == 5
    assert len(checkpoint.aliases) == 3
    assert_embeds_as(loaded(path, Tied), source)


def test_tensors_that_the_module_ties(tmp_path: Path) -> None:
    """The file says nothing of the names that it lacks."""
    source = seeded(Tied)
    path = tmp_path / "model.safetensors"
    state = {
        name: part
        for name, part in source.state_dict().items()
        if not name.startswith("again") and name != "third.weight"
    }
    save_file(state, path)
    assert_embeds_as(loaded(path, Tied), source)
    save_file({name.replace("block", "again"): part for name, part in state.items()}, path)
    assert_embeds_as(loaded(path, Tied), source)


def test_all_names_of_shared_tensors(tmp_path: Path) -> None:
    source = seeded(Tied)
    path = tmp_path / "model.safetensors"
    save_file({name: part.clone() for name, part in source.state_dict().items()}, path)
    assert_embeds_as(loaded(path, Tied), source)


@pytest.mark.parametrize(
    "metadata", [{"again.weight": "stem.weight"}, {"again.weight": "nothing"}, {"stem.bias": "x"}]
)
def test_aliases_that_do_not_fit_are_no_help(tmp_path: Path, metadata: dict[str, str]) -> None:
    state = seeded(Strided).state_dict()
    del state["scale"]
    path = tmp_path / "model.safetensors"
    state = {name: part.contiguous() for name, part in state.items()}
    save_file(state, path, metadata={"scale": "matrix", **metadata})
    with pytest.raises(LoadError, match=r"1 tensor missing \(scale\)"):
        loaded(path, Strided)


def test_tensors_in_another_order_in_memory(tmp_path: Path) -> None:
    source = seeded(Strided)
    path = tmp_path / "model.safetensors"
    save_file({name: part.contiguous() for name, part in source.state_dict().items()}, path)
    encoder = loaded(path, Strided)
    assert not source.get_parameter("matrix").is_contiguous()
    assert_embeds_as(encoder, source)
    for name, part in source.state_dict().items():
        assert torch.equal(encoder.module.state_dict()[name], part)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
def test_narrow_floats(tmp_path: Path, dtype: torch.dtype) -> None:
    source = seeded(Strided)
    state = {name: part.contiguous().to(dtype) for name, part in source.state_dict().items()}
    path = tmp_path / "model.safetensors"
    save_file(state, path)
    source.load_state_dict({name: part.float() for name, part in state.items()})
    assert_embeds_as(loaded(path, Strided), source)


@pytest.mark.parametrize("scale", ["weight_scale", "weight_scale_inv", "scale_weight"])
def test_scaled_floats_are_refused(tmp_path: Path, scale: str) -> None:
    state = {
        name: part.contiguous().to(torch.float8_e4m3fn)
        for name, part in seeded(Strided).state_dict().items()
    }
    path = tmp_path / "model.safetensors"
    save_file({**state, f"stem.{scale}": torch.ones(())}, path)
    with pytest.raises(LoadError) as caught:
        loaded(path, Strided)
    assert str(caught.value) == (
        f"{path}: tensor 'stem.bias' is quantised (F8_E4M3 with scales); save the weights as "
        "bfloat16 or float32"
    )


# Shards.


def sharded(folder: Path, state: State, names: tuple[str, str] = (FIRST, SECOND)) -> dict[str, str]:
    """Write a state in two files, and the index of them."""
    keys = sorted(state)
    halves = {names[0]: keys[::2], names[1]: keys[1::2]}
    for name, half in halves.items():
        save_file({key: state[key].contiguous() for key in half}, folder / name)
    weight_map = {key: name for name, half in halves.items() for key in half}
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: Any) -> Path:
    path = folder / INDEX
    values = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    path.write_text(json.dumps(values, ensure_ascii=False))
    return path


def test_shards(tmp_path: Path) -> None:
    source = seeded(Strided)
    sharded(tmp_path, source.state_dict())
    for model in (tmp_path, tmp_path / INDEX):
        encoder = loaded(model, Strided)
        assert_embeds_as(encoder, source)
        assert encoder.provenance.path == str(tmp_path / INDEX)
    lines = [
        f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n"
        for name in (FIRST, SECOND)
    ]
    assert encoder.provenance.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_shards_in_any_letter_case(tmp_path: Path) -> None:
    source = seeded(Strided)
    sharded(tmp_path, source.state_dict(), ("A.SafeTensors", "b b é.SAFETENSORS"))
    (tmp_path / INDEX).rename(tmp_path / "Weights.SAFETENSORS.Index.JSON")
    assert_embeds_as(loaded(tmp_path, Strided), source)


def test_shards_as_transformers_saves_them(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
    )
    torch.manual_seed(0)
    model = transformers.ViTModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(locate(tmp_path).shards) > 2
    encoder = load(tmp_path, device="cpu")
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = model(images * 2 - 1).last_hidden_state[:, 0]
    torch.testing.assert_close(encoder(images), expected, atol=1e-5, rtol=1e-5)


def missing(folder: Path) -> None:
    (folder / SECOND).unlink()


def cut(folder: Path) -> None:
    path = folder / SECOND
    path.write_bytes(path.read_bytes()[:-1])


def lacking(folder: Path) -> None:
    save_file({"scale": torch.zeros(6)}, folder / FIRST)


def with_more(folder: Path) -> None:
    state = {name: torch.zeros(1) for name in ("matrix", "stem.bias", "more")}
    save_file(state, folder / FIRST)


def repeated(folder: Path) -> None:
    save_file(
        {name: torch.zeros(1) for name in ("scale", "stem.weight", "matrix")}, folder / SECOND
    )


def swapped(folder: Path) -> None:
    (folder / FIRST).rename(folder / "x")
    (folder / SECOND).rename(folder / FIRST)
    (folder / "x").rename(folder / SECOND)


def pickled(folder: Path) -> None:
    torch.save({"scale": torch.zeros(1)}, folder / SECOND)


def is_folder(folder: Path) -> None:
    (folder / SECOND).unlink()
    (folder / SECOND).mkdir()


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "missing": (missing, SECOND, "this shard is missing; download"),
    "cut": (cut, SECOND, "truncated: the tensors take"),
    "lacking": (lacking, FIRST, f"lacks tensor 'matrix' of {INDEX}; download"),
    "with more": (with_more, FIRST, f"holds, against the index, tensor 'more' of {INDEX}"),
    "repeated": (repeated, SECOND, "holds, against the index, tensor 'matrix'"),
    "swapped": (swapped, FIRST, "lacks tensor 'matrix'"),
    "pickled": (pickled, SECOND, "a pickle, which can run code"),
    "a folder": (is_folder, SECOND, "not a regular file"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_shards(tmp_path: Path, kind: str) -> None:
    damage, name, fault = BROKEN[kind]
    sharded(tmp_path, seeded(Strided).state_dict())
    damage(tmp_path)
    with pytest.raises(LoadError) as caught:
        loaded(tmp_path, Strided)
    assert str(caught.value).startswith(f"{tmp_path / name}: {fault}")
    assert str(caught.value).isprintable()


NO_SHARDS: dict[str, Any] = {
    "above": "../x.safetensors",
    "far above": "../../../../etc/x.safetensors",
    "absolute": "/etc/x.safetensors",
    "below": "inner/x.safetensors",
    "a drive": "C:x.safetensors",
    "backslashes": "..\\x.safetensors",
    "a share": "\\\\host\\x.safetensors",
    "NUL": "x.safetensors\0.safetensors",
    "an address": "https://host/x.safetensors",
    "a hub": "hf://org/x.safetensors",
    "a pickle": "pytorch_model.bin",
    "no suffix": "model",
    "only dots": "..",
    "nothing": "",
    "the index": INDEX,
    "control characters": "\x1b[2Jx.safetensors",
    "turned around": "\u202ex.safetensors",
    "lines": "a\nb.safetensors",
    "half a character": "\ud800.safetensors",
    "endless": "x" * 10**5 + ".safetensors",
    "a number": 3,
    "none": None,
    "a list": [FIRST],
    "an object": {"a.safetensors": FIRST},
}


@pytest.mark.parametrize("kind", NO_SHARDS)
def test_what_is_no_shard(tmp_path: Path, kind: str) -> None:
    weight_map = sharded(tmp_path, seeded(Strided).state_dict())
    name = NO_SHARDS[kind]
    values = {"weight_map": {**weight_map, "scale": name}}
    (tmp_path / INDEX).write_text(json.dumps(values))
    for model in (tmp_path, tmp_path / INDEX):
        with pytest.raises(LoadError) as caught:
            locate(model)
        line = str(caught.value)
        assert line.startswith(f"{tmp_path / INDEX}: names the shard '")
        assert line.endswith("of its own folder; do not trust this folder")
        assert line.isprintable()
        assert len(line) < 500


@pytest.mark.parametrize(
    ("weight_map", "fault"),
    [
        (None, "has no weight_map"),
        ({}, "has no weight_map"),
        ([["a", FIRST]], "has no weight_map"),
        (FIRST, "has no weight_map"),
        ({str(number): FIRST for number in range(20_001)}, "describes more than 20000 tensors"),
    ],
    ids=["null", "empty", "list", "text", "many"],
)
def test_an_index_of_nothing(tmp_path: Path, weight_map: Any, fault: str) -> None:
    write_index(tmp_path, weight_map)
    with pytest.raises(LoadError, match=fault):
        locate(tmp_path)


@pytest.mark.parametrize("kind", ["members", "wide members", "objects", "a string"])
def test_an_endless_index(tmp_path: Path, kind: str) -> None:
    path = tmp_path / INDEX
    path.write_bytes(swollen(kind, 10**6).replace(b'{"a"', b'{"weight_map"', 1))
    tracemalloc.start()
    began = time.process_time()
    try:
        with pytest.raises(LoadError) as caught:
            locate(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 90e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 2
    assert re.match(
        f"{re.escape(str(path))}: .*(too many|more than 60 MB|has no)", str(caught.value)
    )


def test_more_shards_than_they_say_are_not_read(tmp_path: Path) -> None:
    """The first that is not as the index says ends it."""
    names = [f"{number:05}.safetensors" for number in range(200)]
    tensors = {f"t{number}": entry(end=4 * 0, shape=(0,)) for number in range(5_000)}
    write(tmp_path / names[0], tensors)
    for name in names[1:]:
        (tmp_path / name).hardlink_to(tmp_path / names[0])
    write_index(tmp_path, {f"t{number}": name for number, name in enumerate(names)})
    began = time.process_time()
    with pytest.raises(LoadError, match=r"00000.safetensors: holds, against the index, tensor"):
        locate(tmp_path).open()
    assert time.process_time() - began < 1
