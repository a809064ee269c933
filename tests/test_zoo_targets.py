"""Which models are meant: folders, patterns, lists, and the part of them that a shard has."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.errors import ConfigError
from encodercheck.walking import Walk
from encodercheck.zoo.targets import expand, parse_shard, read_list, shard, walk

NAMES = st.lists(st.text(min_size=1, max_size=30), max_size=40, unique=True)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()

    return make


def test_a_folder_that_is_one_model_stays_one(place):
    place("one/config.json", "one/a.safetensors", "one/b.safetensors")
    place("two/model.safetensors", "two/variant.safetensors", "two/onnx/model.safetensors")
    place("three/a.safetensors", "three/notes.txt")
    place("four/x-00001-of-00002.safetensors", "four/x.safetensors.index.json")
    place("five/x-00001-of-00002.safetensors", "five/x-00002-of-00002.safetensors")
    place("six/pytorch_model.bin")
    names = ["one", "two", "three", "four", "five", "six"]
    assert expand(names) == names


def test_a_folder_of_models_is_many(place):
    place("zoo/a.safetensors", "zoo/b.safetensors", "zoo/README.md")
    place("zoo/bert/config.json", "zoo/org/clip/open_clip_model.safetensors", "zoo/empty/notes")
    place("zoo/.cache/model.safetensors", "zoo/c-00001-of-00001.safetensors")
    place("zoo/c.safetensors.index.json")
    assert expand(["zoo"]) == [
        "zoo/a.safetensors",
        "zoo/b.safetensors",
        "zoo/bert",
        "zoo/c.safetensors.index.json",
        "zoo/org/clip",
    ]


def test_one_file_beside_folders_of_models_does_not_hide_them(place):
    place("zoo/a.safetensors", "zoo/bert/model.safetensors")
    assert expand(["zoo"]) == ["zoo/a.safetensors", "zoo/bert"]


def test_a_folder_of_nothing_is_for_its_scan_to_refuse(place):
    place("zoo/readme")
    assert expand(["zoo", "missing"]) == ["zoo", "missing"]


def test_patterns(place):
    place("zoo/a.safetensors", "zoo/deep/b.safetensors", "zoo/bert/config.json")
    place("zoo/bert/model.safetensors", "old/a.pt", "[x].safetensors")
    assert expand(["zoo/*.safetensors"]) == ["zoo/a.safetensors"]
    assert expand(["**/*.safetensors"]) == [
        "[x].safetensors",
        "zoo/a.safetensors",
        "zoo/bert/model.safetensors",
        "zoo/deep/b.safetensors",
    ]
    assert expand(["zoo/*"]) == ["zoo/a.safetensors", "zoo/bert", "zoo/deep"]
    assert expand(["old/*.pt"]) == ["old/a.pt"]
    # A file of this name is no pattern.
    assert expand(["[x].safetensors"]) == ["[x].safetensors"]


def test_links_to_folders_are_followed_where_they_are_named_and_nowhere_else(place, tmp_path):
    place("zoo/a.safetensors", "zoo/sub/b.safetensors", "away/c.safetensors")
    for link, target in (("one", "."), ("two", ".."), ("three", "../away")):
        (tmp_path / "zoo" / link).symlink_to(target)
    inside = ["zoo/a.safetensors", "zoo/sub/b.safetensors"]
    for names in (["zoo/**/*.safetensors"], ["**/*.safetensors", "zoo/*/*"]):
        walked = walk()
        assert [name for name in expand(names, walked) if name.startswith("zoo")] == inside
        assert "3 links to folders (zoo/one, zoo/three, zoo/two)" in walked.skipped()
    walked = walk()
    assert expand(["zoo"], walked) == ["zoo/a.safetensors", "zoo/sub"]
    assert walked.skipped() == "3 links to folders (zoo/one, zoo/three, zoo/two)"
    assert expand(["zoo/three/*.safetensors"]) == ["zoo/three/c.safetensors"]
    assert expand(["zoo/three"]) == ["zoo/three"]


def test_hidden_models_are_passed_over_and_said(place):
    place("zoo/a.safetensors", "zoo/.b.safetensors", "zoo/.c/d.safetensors", "zoo/.gitattributes")
    place("zoo/e.safetensors")
    for name in ("zoo", "zoo/*.safetensors", "zoo/**/*.safetensors"):
        walked = walk()
        assert expand([name], walked) == ["zoo/a.safetensors", "zoo/e.safetensors"]
        assert walked.skipped() == "2 hidden files or folders (zoo/.b.safetensors, zoo/.c)"
    with pytest.raises(ConfigError, match=r"passed over: .*zoo/\.c\)\); check it"):
        expand(["zoo/*/*.safetensors"])
    assert expand(["zoo/.c/*.safetensors"]) == ["zoo/.c/d.safetensors"]


def test_endings_in_upper_case_are_models_too(place):
    place("zoo/A.SAFETENSORS", "zoo/deep/b.SafeTensors", "zoo/b.txt")
    assert expand(["zoo/*.safetensors"]) == ["zoo/A.SAFETENSORS"]
    assert expand(["zoo/**/*.safetensors"]) == ["zoo/A.SAFETENSORS", "zoo/deep/b.SafeTensors"]
    assert expand(["zoo"]) == ["zoo/A.SAFETENSORS", "zoo/deep"]


def test_names_stay_as_they_were_typed(place, tmp_path):
    place("zoo/a.safetensors", "zoo/sub/b.safetensors")
    assert expand(["./zoo/*.safetensors"]) == ["zoo/a.safetensors"]
    assert expand([f"{tmp_path}/zoo/*.safetensors"]) == [f"{tmp_path}/zoo/a.safetensors"]
    assert expand(["zoo/../zoo/**/b.*"]) == ["zoo/../zoo/sub/b.safetensors"]
    assert expand(["zoo/*/"]) == ["zoo/sub"]


@pytest.mark.parametrize("name", ["zoo", "zoo/**", "zoo/**/**/*.safetensors"])
def test_a_walk_is_bounded(place, tmp_path, name):
    place(*(f"zoo/{number}.safetensors" for number in range(30)), "zoo/below/x.safetensors")
    with pytest.raises(ConfigError, match=r"zoo: more than 20 files and folders to look through"):
        expand([name], Walk(most=20))
    place("zoo/" + "d/" * 120 + "deep.safetensors")
    with pytest.raises(ConfigError, match="more than 100 folders deep; name a folder further down"):
        expand([name])


def test_a_pattern_that_matches_nothing_is_refused(place):
    place("zoo/notes")
    with pytest.raises(ConfigError, match=r"none/\*\.safetensors: no model matches"):
        expand(["a.safetensors", "none/*.safetensors"])


def test_a_model_is_meant_once(place):
    place("zoo/a.safetensors", "zoo/b.safetensors")
    names = ["zoo/b.safetensors", "zoo", "./zoo//b.safetensors", "hf://o/n", "hf://o/n"]
    assert expand(names) == ["zoo/b.safetensors", "zoo/a.safetensors", "hf://o/n"]


def test_lists(place, tmp_path):
    text = "\ufeff# of us\r\n\r\n zoo/a.safetensors \nhf://org/name@main\n"
    (tmp_path / "list.txt").write_text(text)
    assert read_list("list.txt") == ["zoo/a.safetensors", "hf://org/name@main"]
    (tmp_path / "none.txt").write_text("# nothing\n")
    for path, says in (("none.txt", "names no model"), ("gone.txt", "cannot be read")):
        with pytest.raises(ConfigError, match=says):
            read_list(path)


@given(NAMES, st.integers(1, 12))
def test_every_model_is_in_one_shard(names, n):
    shards = [shard(names, i, n) for i in range(1, n + 1)]
    assert sorted(name for part in shards for name in part) == sorted(names)


@given(NAMES, NAMES, st.integers(1, 12))
def test_models_that_come_move_none_of_the_others(names, more, n):
    for i in range(1, n + 1):
        assert set(shard(names, i, n)) <= set(shard(names + more, i, n))


def test_shards_are_of_like_size():
    names = [f"hf://org/model-{number}" for number in range(10_000)]
    assert all(900 < len(shard(names, i, 10)) < 1100 for i in range(1, 11))


def test_a_name_with_lone_surrogates_has_a_shard():
    assert shard(["\udcff.safetensors"], 1, 1)


@pytest.mark.parametrize("text", ["", "1", "0/2", "3/2", "1/0", "a/b", "1/2/3", "-1/2", "²/3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(ConfigError, match="write I/N"):
        parse_shard(text)
