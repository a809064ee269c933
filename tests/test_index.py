"""The index of known towers: what is saved is found, under any prefix and at any image size."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.weights import index, index_build
from encodercheck.weights.index import Entry, Shapes

NAMES = st.from_regex(r"[a-z]{1,4}(\.[0-9]{1,2})?\.(weight|bias)", fullmatch=True)
SHAPES = st.lists(st.integers(0, 9), max_size=4).map(tuple)
BODIES = st.dictionaries(NAMES, SHAPES, min_size=4, max_size=8)
PREFIXES = st.sampled_from(["", "module.", "module.encoder_q.", "student.backbone."])
NORM = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def entry(number: int, shapes: Shapes, **changes: object) -> Entry:
    values = {
        "arch": f"timm:tower_{number}",
        "shapes": shapes,
        "heads": frozenset({"fc.weight"}),
        "sized": frozenset[str](),
        "image_size": 224,
        "normalisations": (NORM,),
        "family": number,
        "function": 0,
    }
    return Entry(**{**values, **changes})  # type: ignore[arg-type]


@given(bodies=st.lists(BODIES, min_size=1, max_size=4), prefix=PREFIXES)
def test_what_is_saved_is_found_under_any_prefix(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[Shapes], prefix: str
) -> None:
    entries = [entry(number, body) for number, body in enumerate(bodies)]
    path = tmp_path_factory.mktemp("index") / "index.xz"
    index.save(entries, {"timm": "1"}, path)
    loaded = index.Index.read(path)
    assert list(loaded.entries()) == entries
    assert loaded.versions == {"timm": "1"}
    for one in entries:
        file = {f"{prefix}{name}": shape for name, shape in one.shapes.items()}
        assert (prefix, one.arch, 224) in {
            (hit.prefix, hit.entry.arch, hit.image_size) for hit in loaded.find(file)
        }
        assert loaded.nearest(file)[0][1] == 1.0


@given(
    patch=st.integers(1, 32),
    old=st.integers(2, 40),
    new=st.integers(2, 40),
    tokens=st.integers(0, 5),
)
def test_image_sizes_are_read_off_position_embeddings(
    patch: int, old: int, new: int, tokens: int
) -> None:
    size = old * patch
    tower = entry(
        0,
        {"pos_embed": (1, old * old + tokens, 8), "norm.weight": (8,)},
        sized=frozenset({"pos_embed"}),
        image_size=size,
    )
    file = {"pos_embed": (1, new * new + tokens, 8), "norm.weight": (8,)}
    found = index.fitting_size(tower, "", file)
    # More tokens than one grid explain may be read as another grid; the build will not confirm it.
    assert found == new * patch or found is None or tokens > 0 or old == new
    if tokens <= 1 and old > 5 and new > 5:
        assert found == new * patch
    grid = entry(0, {"pos": (1, 8, old, old)}, sized=frozenset({"pos"}), image_size=size)
    assert index.fitting_size(grid, "", {"pos": (1, 8, new, new)}) == new * patch


def test_other_shapes_do_not_fit() -> None:
    tower = entry(0, {"pos_embed": (1, 197, 8), "a": (3,)}, sized=frozenset({"pos_embed"}))
    for file in (
        {"pos_embed": (1, 197, 8), "a": (4,)},
        {"pos_embed": (1, 198, 8), "a": (3,)},
        {"pos_embed": (1, 577, 9), "a": (3,)},
        {"pos_embed": (577, 8), "a": (3,)},
    ):
        assert index.fitting_size(tower, "", file) is None
    hit = index.Hit("x.", tower, 384)
    assert (hit.resized, hit.arch) == (True, "timm:tower_0,img_size=384")


def test_the_shipped_index_knows_the_libraries() -> None:
    shipped = index.load()
    archs = [one.arch for one in shipped.entries()]
    assert len(archs) == len(set(archs)) == len(shipped) > 1500
    assert {arch.partition(":")[0] for arch in archs} == set(shipped.versions)
    assert index.PATH.stat().st_size < 700_000


@pytest.mark.parametrize(
    "arch", ["torchvision:resnet18", "timm:test_vit", "timm:test_resnet", "open_clip:RN50"]
)
def test_the_shipped_index_is_what_the_builder_makes(arch: str) -> None:
    shipped = index.load()
    owner = arch.partition(":")[0]
    if metadata.version(index_build.DISTRIBUTIONS[owner]) != shipped.versions[owner]:
        pytest.skip(f"the index was made with {owner} {shipped.versions[owner]}")
    made = index_build.entry_of(arch)
    kept = next(one for one in shipped.entries() if one.arch == arch)
    assert (made.shapes, made.heads, made.sized) == (kept.shapes, kept.heads, kept.sized)
    assert (made.image_size, made.normalisations[0]) == (kept.image_size, kept.normalisations[0])


def test_functions_are_told_apart_by_their_features(capsys: pytest.CaptureFixture[str]) -> None:
    archs = ["torchvision:resnet18", "timm:resnet18", "timm:resnetblur18"]
    towers = index_build.classify([index_build.entry_of(arch) for arch in archs])
    assert [(one.family, one.function) for one in towers] == [(0, 0), (0, 0), (0, 1)]
    assert "timm:resnetblur18=1" in capsys.readouterr().err


def test_an_index_of_another_schema_is_refused(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(index, "SCHEMA", 0)
    index.save([entry(0, {"a": (1,)})], {}, tmp_path / "index.xz")
    monkeypatch.undo()
    with pytest.raises(ValueError, match="index of schema 0"):
        index.Index.read(tmp_path / "index.xz")
