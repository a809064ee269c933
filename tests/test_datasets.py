"""Data sets on the disk: every format gives the same images, and hostile files give one line."""

import builtins
import contextlib
import json
import math
import os
import pickle
import struct
import tracemalloc
import zlib
from pathlib import Path

import models
import numpy as np
import pictures
import pytest
import scipy.io
import sets
import torch
import torchvision.datasets
from commands import run
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from encodercheck import screening
from encodercheck.errors import ImagesError
from encodercheck.images import datasets, folder, pickled, procedural, source
from encodercheck.images.labelled import Arrays, Files, Labelled
from encodercheck.methods.dede import Settings

TEN = sets.both(23, 17, 10)
HUNDRED = sets.both(9, 8, 100)
LARGE = sets.both(5, 4, 10, side=96)
SIGNS = sets.both(60, 20, 43, side=20)
# torchvision wants a picture of every class.
SIGNS["train"] = (SIGNS["train"][0], np.arange(60) * 5 % 43)
WRITERS = {
    **{f"cifar10 {how}": (sets.cifar10, TEN, how) for how in sets.CIFAR},
    "cifar100 binary": (sets.cifar100, HUNDRED, "binary"),
    "cifar100 python": (sets.cifar100, HUNDRED, "python"),
    "stl10": (sets.stl10, {**LARGE, "unlabeled": sets.random(3, 10, 96, 3)}),
    "svhn": (sets.svhn, {**TEN, "extra": sets.random(3, 10, 32, 3)}),
    "gtsrb": (sets.gtsrb, SIGNS),
}


def written(how, root):
    write, splits, *options = WRITERS[how]
    return write(root, splits, *options), splits


def says(error):
    """Return an error's message, which must be one line and printable."""
    text = str(error.value)
    assert text.isprintable(), text
    assert len(text) < 600
    return text


# What is read


@pytest.mark.parametrize("how", WRITERS)
def test_every_split_of_every_format_is_what_was_written(tmp_path, how):
    root, splits = written(how, tmp_path / "root")
    found = datasets.open(f"{how.split()[0]}:{root}")
    for split, (pixels, labels) in splits.items():
        read = found.split(split)
        order = range(len(pixels))
        if how == "gtsrb" and split == "train":
            # By class, as torchvision has them.
            order = np.argsort(labels, kind="stable")
        expected = torch.from_numpy(pixels[order])
        assert len(read) == len(pixels)
        assert torch.equal(read.pixels(range(len(read)), pixels.shape[-1]), expected)
        if split == "unlabeled":
            assert read.labels.tolist() == [-1] * len(read)
        else:
            assert read.labels.tolist() == labels[order].tolist()
            assert read.labels.dtype == torch.int64
        assert (read.name, read.split) == (how.split()[0], split)
        assert read.classes == {"cifar100": 100, "gtsrb": 43}.get(read.name, 10)


@pytest.mark.parametrize("how", WRITERS)
def test_the_inner_folder_does_as_well(tmp_path, how):
    root, splits = written(how, tmp_path / "root")
    folders = [path for path in root.iterdir() if path.is_dir()]
    if how == "gtsrb":
        folders += [root / "gtsrb" / "GTSRB"]
    for inner in folders:
        assert len(datasets.open(f"{how.split()[0]}:{inner}").test) == len(splits["test"][0])


@pytest.fixture
def unchecked(monkeypatch):
    """Have torchvision, which knows the checksums of the real files, read these as well."""
    for module in (torchvision.datasets.cifar, torchvision.datasets.svhn):
        monkeypatch.setattr(module, "check_integrity", lambda *_: True)
    monkeypatch.setattr(torchvision.datasets.STL10, "_check_integrity", lambda _: True)


def by_torchvision(name, root, split):
    kind = getattr(torchvision.datasets, name.upper())
    if not name.startswith("cifar"):
        return kind(root, split=split)
    (root / kind.base_folder / kind.meta["filename"]).write_bytes(
        pickle.dumps({kind.meta["key"]: []})
    )
    return kind(root, train=split == "train")


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("how", ["cifar10 python 2", "cifar100 python", "stl10", "svhn", "gtsrb"])
def test_torchvision_reads_the_same(tmp_path, unchecked, how, split):
    root, _ = written(how, tmp_path / "root")
    name = how.split()[0]
    expected = by_torchvision(name, root, split)
    found = datasets.open(f"{name}:{root}").split(split)
    assert len(found) == len(expected)
    for number, (image, label) in enumerate(expected):
        assert np.array_equal(np.asarray(image), np.asarray(found.pictures.open(number)))
        assert label == found.labels[number]


@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_random_batches_are_the_same_in_every_format(tmp_path_factory, seed, count):
    splits = {"test": sets.random(count, 10, seed=seed)}
    place = tmp_path_factory.mktemp("cifar")
    read = {
        how: datasets.open(f"cifar10:{sets.cifar10(place / how, splits, how)}").test
        for how in sets.CIFAR
    }
    for split in read.values():
        assert torch.equal(split.pixels(range(count), 32), torch.from_numpy(splits["test"][0]))
        assert split.labels.tolist() == splits["test"][1].tolist()
    assert len({split.digest() for split in read.values()}) == 1


def test_labels_of_a_batch_may_be_many():
    """pickle appends a thousand at a time, and one alone in another way."""
    pixels = np.zeros((2001, 3, 32, 32), dtype=np.uint8)
    labels = np.arange(2001) % 10
    for protocol in (0, 2, 5):
        content = {"labels": labels.tolist(), "data": pixels[:, 0, 0, :2]}
        assert pickled.read(pickle.dumps(content, protocol))["labels"] == labels.tolist()
    assert pickled.read(sets.python_2(pixels, labels))["labels"] == labels.tolist()


def test_our_python_2_is_what_pickle_reads_as_well():
    """torchvision reads the archive with encoding latin1."""
    pixels, labels = TEN["test"]
    content = pickle.loads(sets.python_2(pixels, labels), encoding="latin1")
    assert np.array_equal(content["data"].reshape(pixels.shape), pixels)
    assert content["labels"] == labels.tolist()


def test_images_are_resized_as_those_of_a_folder_are(tmp_path):
    pixels, _ = LARGE["test"]
    test = datasets.open(f"stl10:{sets.stl10(tmp_path / 'set', LARGE)}").test
    for number, image in enumerate(pixels):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"{number}.png")
        expected = folder.read(tmp_path / f"{number}.png", 40)
        assert torch.equal(test.images([number], 40)[0], expected)
    images = test.images(torch.tensor([3, 0, 3]), 40)
    assert images.shape == (3, 3, 40, 40)
    assert torch.equal(images[0], images[2])
    assert 0 <= float(images.min()) < float(images.max()) <= 1


def test_numbers_of_no_image_are_an_index_error(tmp_path):
    test = datasets.open(f"cifar10:{sets.cifar10(tmp_path, TEN)}").test
    assert test.images([], 8).shape == (0, 3, 8, 8)
    for wrong in (-1, 17):
        with pytest.raises(IndexError, match=f"cifar10 has 17 test images, not {wrong}"):
            test.images([0, wrong], 8)


def test_there_are_no_other_splits(tmp_path):
    found = datasets.open(f"cifar10:{sets.cifar10(tmp_path, TEN)}")
    with pytest.raises(ValueError, match="CIFAR-10 has train, test, and no split 'extra'"):
        found.split("extra")


def test_unlabelled_images_are_not_read_before_they_are_asked_for(tmp_path):
    """100,000 of them are 2.7 GB."""
    place = tmp_path / "stl10_binary"
    place.mkdir()
    with (place / "unlabeled_X.bin").open("wb") as file:
        file.truncate(100_000 * 3 * 96 * 96)
    split = datasets.open(f"stl10:{tmp_path}").split("unlabeled")
    assert len(split) == 100_000
    assert not split.images([99_999], 96).any()
    assert len(split.digest()) == 64


# Digests


def test_a_digest_is_the_same_wherever_the_files_are(tmp_path):
    found = [
        datasets.open(f"svhn:{sets.svhn(tmp_path / name, TEN)}").test.digest() for name in "ab"
    ]
    assert found[0] == found[1]
    assert len(found[0]) == 64


def test_a_digest_tells_apart_what_differs():
    def digest(name="a", split="test", labels=(0, 1), classes=2, change=0):
        pixels = np.zeros((2, 3, 4, 4), dtype=np.uint8)
        pixels[1, 2, 3, 3] = change
        return Labelled(name, split, classes, torch.tensor(labels), Arrays(pixels)).digest()

    others = [
        digest("b"),
        digest(split="train"),
        digest(labels=(1, 1)),
        digest(classes=3),
        digest(change=1),
    ]
    assert len({digest(), *others}) == 6


def test_parts_are_one_after_another():
    parts = [np.full((n, 3, 2, 2), n, dtype=np.uint8) for n in (1, 2, 3)]
    arrays = Arrays(*parts)
    assert len(arrays) == 6
    assert [arrays.open(i).getpixel((0, 0))[0] for i in range(6)] == [1, 2, 2, 3, 3, 3]


# What a source means


def test_a_folder_that_exists_is_one_whatever_it_is_called(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar10:photos").mkdir()
    for number in range(4):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(tmp_path / "cifar10:photos" / f"{number}.png")
    found = source.collect("cifar10:photos", 4, size=8, seed=0)
    assert found.describe() == {
        "source": "cifar10:photos",
        "digest": found.digest,
        "count": 4,
        "unreadable": 0,
    }
    assert found.digest is not None
    assert datasets.parse("cifar10:photos") is None
    assert datasets.parse("cifar10:data") == ("cifar10", Path("data"))


@pytest.mark.parametrize("name", ["C:/photos", r"C:\photos", "photos", "a b:c", ":x", "/a:b"])
def test_other_colons_are_part_of_a_folder_s_name(name):
    with pytest.raises(ImagesError, match=r"no such folder$"):
        source.collect(name, 4, size=8, seed=0)


def test_data_sets_that_there_are_not_are_named_beside_those_that_there_are():
    with pytest.raises(ImagesError) as caught:
        source.collect("imagenet:data", 4, size=8, seed=0)
    assert says(caught) == (
        "--images imagenet:data: no such folder, and no data set; those are cifar10:DIR, "
        "cifar100:DIR, stl10:DIR, svhn:DIR, gtsrb:DIR"
    )


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.parse("svhn:~/data") == ("svhn", tmp_path / "data")


PICTURES = (procedural.images(320, size=32, seed=1) * 255).to(torch.uint8).numpy()
MANY = {"train": sets.random(5, 10), "test": (PICTURES, np.arange(320) % 10)}


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    root = tmp_path_factory.mktemp("many")
    return f"cifar10:{sets.cifar10(root, MANY, 'python 2')}"


def test_a_scan_takes_test_images_by_the_seed(cifar):
    found = source.collect(cifar, 300, size=32, seed=3)
    assert found.describe() == {
        "source": "cifar10",
        "digest": None,
        "count": 300,
        "unreadable": 0,
    }
    test = datasets.open(cifar).test.images(range(320), 32)
    known = {image.numpy().tobytes() for image in test}
    drawn = [image.numpy().tobytes() for image in found.images]
    assert len(set(drawn)) == 300
    assert set(drawn) <= known
    assert not torch.equal(found.images, test[:300])
    again = source.collect(cifar, 300, size=32, seed=3).images
    assert torch.equal(found.images, again)
    assert not torch.equal(found.images, source.collect(cifar, 300, size=32, seed=4).images)


def test_further_images_are_others(cifar):
    first = source.collect(cifar, 100, size=32, seed=3).images
    further = torch.cat(list(source.Further(cifar, 500, 32, 3, after=100).parts()))
    both = {image.numpy().tobytes() for image in (*first, *further)}
    assert (len(further), len(both)) == (220, 320)


def test_further_images_are_told_apart_by_what_they_are(cifar, tmp_path):
    identity = source.Further(cifar, 4, 8, 0).identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["source"] == source.Further(cifar, 4, 8, 0).describe() == "cifar10"
    moved = sets.cifar10(tmp_path / "moved", MANY)
    assert source.Further(f"cifar10:{moved}", 4, 8, 0).identity() == identity
    other = sets.cifar10(tmp_path / "other", TEN)
    assert source.Further(f"cifar10:{other}", 4, 8, 0).identity() != identity


def test_too_few_test_images_name_the_option(cifar):
    with pytest.raises(ImagesError, match=r"--images cifar10:.* holds 320 test images, but 321"):
        source.collect(cifar, 321, size=8, seed=0)
    with pytest.raises(ImagesError, match=r"--clean cifar10:.*: holds 320 test images, .* 350"):
        source.Further(cifar, 400, 8, 0, after=50, option="--clean ").require(300)
    source.Further(cifar, 400, 8, 0, after=20).require(300)


def test_nulls_name_the_data_set_and_not_where_it_is(cifar):
    assert source.kind(cifar) == "cifar10"
    assert source.kind("photos") == "photos"
    assert source.kind(None) == source.PROCEDURAL


# What is refused


@pytest.mark.parametrize("name", datasets.KINDS)
def test_a_folder_that_is_missing_or_empty_is_said(tmp_path, name):
    with pytest.raises(ImagesError) as caught:
        source.collect(f"{name}:{tmp_path / 'gone'}", 4, size=8, seed=0)
    assert says(caught).startswith(f"--images {name}:{tmp_path / 'gone'}: no such folder; name")
    with pytest.raises(ImagesError) as caught:
        source.collect(f"{name}:{tmp_path}", 4, size=8, seed=0)
    assert "in there; looked for " in says(caught)


def test_what_was_looked_for_is_said(tmp_path):
    with pytest.raises(ImagesError) as caught:
        datasets.open(f"cifar10:{tmp_path}")
    assert says(caught) == (
        f"cifar10:{tmp_path}: no CIFAR-10 in there; looked for cifar-10-batches-bin/test_batch.bin,"
        " cifar-10-batches-bin/data_batch_1.bin, test_batch.bin, data_batch_1.bin, "
        "cifar-10-batches-py/test_batch, cifar-10-batches-py/data_batch_1, test_batch, data_batch_1"
        "; name the folder that it was unpacked in"
    )


def refused(name, root, split="test"):
    with pytest.raises(ImagesError) as caught:
        datasets.open(f"{name}:{root}").split(split)
    return says(caught)


def shorten(path, count=1):
    path.write_bytes(path.read_bytes()[:-count])


@pytest.mark.parametrize("count", [1, 3072, 17 * 3073])
def test_truncated_records_are_refused(tmp_path, count):
    root = sets.cifar10(tmp_path, TEN)
    shorten(root / "cifar-10-batches-bin" / "test_batch.bin", count)
    text = refused("cifar10", root)
    assert "test_batch.bin: its " in text
    assert "truncated or another file; unpack the archive again" in text


def test_a_batch_that_is_missing_is_named(tmp_path):
    root = sets.cifar10(tmp_path, TEN)
    (root / "cifar-10-batches-bin" / "data_batch_3.bin").unlink()
    text = refused("cifar10", root, "train")
    assert "data_batch_3.bin: cannot be read (No such file or directory)" in text


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    place = tmp_path / "stl10_binary"
    place.mkdir()
    os.mkfifo(place / "test_X.bin")
    assert "test_X.bin: not a regular file" in refused("stl10", tmp_path)


@pytest.mark.parametrize("how", sets.CIFAR)
def test_labels_out_of_range_are_refused(tmp_path, how):
    pixels, labels = TEN["test"]
    root = sets.cifar10(tmp_path, {"test": (pixels, np.where(labels == 3, 10, labels))}, how)
    assert "has the label 10, but they run from 0 to 9" in refused("cifar10", root)


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_of_other_data_sets_are_refused(tmp_path, label):
    splits = {"test": (LARGE["test"][0], np.full(4, label))}
    text = refused("stl10", sets.stl10(tmp_path / "stl", splits))
    assert f"test_y.bin: has the label {label + 1}, but they run from 1 to 10" in text


def test_stl10_wants_a_label_for_each_image(tmp_path):
    root = sets.stl10(tmp_path, LARGE)
    shorten(root / "stl10_binary" / "test_y.bin")
    assert "test_X.bin: holds 4 images, but 3 labels" in refused("stl10", root)
    (root / "stl10_binary" / "test_y.bin").unlink()
    assert "test_y.bin: cannot be read" in refused("stl10", root)


# Hostile pickles


def batch(root, data):
    """Write a test batch of CIFAR-10 for Python."""
    place = root / "cifar-10-batches-py"
    place.mkdir(exist_ok=True)
    (place / "test_batch").write_bytes(data)
    return root


class Command:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.system, (f"touch '{self._path}'",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_in_a_pickle_is_never_run(tmp_path, protocol):
    pixels, labels = TEN["test"]
    content = {
        b"command": Command(tmp_path / "pwned"),
        b"data": pixels.reshape(len(pixels), -1),
        b"labels": labels.tolist(),
    }
    data = pickle.dumps(content, protocol)
    assert f"asks for {os.system.__module__}.system" in refused("cifar10", batch(tmp_path, data))
    assert not (tmp_path / "pwned").exists()
    # It does run where it is unpickled.
    pickle.loads(data)
    assert (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"cos\nsystem\n(S'touch pwned'\ntR.", "asks for os.system, which could do anything"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for os.system"),
        (b"(S'touch pwned'\nios\nsystem\n.", "its instruction INST"),
        (b"(cos\nsystem\nS'touch pwned'\no.", "asks for os.system"),
        (b"cnumpy\ndtype\n)\x81.", "its instruction NEWOBJ"),
        (b"Pname\n.", "its instruction PERSID"),
        (b"\x82\x01.", "its instruction EXT1"),
        (b"cnumpy\ndtype\nU\x01ab.", "its instructions do not fit together"),
        (b"U\x01a)R.", "its instructions do not fit together"),
        (b"]U\x01aU\x01bs.", "its instructions do not fit together"),
        (b"}(U\x01au.", "its instructions do not fit together"),
        (b"}]]s.", "it is not bytes"),
        (b"h\x07.", "its instructions do not fit together"),
        (b"e.", "its instructions do not fit together"),
        (b".", "its instructions do not fit together"),
        (b"", "no CIFAR batch"),
        (b"\xff", "no CIFAR batch"),
        (b"cev\x1b[2Jil\nname\n.", "no CIFAR batch"),
        (b"X\xff\xff\xff\xff.", "no CIFAR batch"),
        (b"\x8e" + b"\xff" * 8, "no CIFAR batch"),
        (b"I" + b"9" * 5000 + b"\n.", "no CIFAR batch"),
        (b"K\x01.", "no dictionary of data and labels"),
        (b"}.", "no dictionary of data and labels"),
        (b"]" * 1002 + b".", "more than 1000 instructions"),
        (b"(" * 900, "no CIFAR batch"),
    ],
)
def test_pickles_of_anything_else_are_refused(tmp_path, monkeypatch, data, fault):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pickled, "MOST_INSTRUCTIONS", 1000)
    text = refused("cifar10", batch(tmp_path, data))
    assert fault in text
    assert "test_batch: no CIFAR batch (" in text
    assert text.endswith("; unpack the archive again")
    assert not (tmp_path / "pwned").exists()


def test_nothing_is_unpickled_or_imported(tmp_path, monkeypatch):
    root = sets.cifar10(tmp_path, TEN, "python 2")

    def never(*_, **__):
        raise AssertionError

    for module, name in ((pickle, "loads"), (pickle, "load"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr(builtins, "__import__", never)
    assert len(datasets.open(f"cifar10:{root}").test) == 17


def content(**changes):
    pixels, labels = TEN["test"]
    rows = pixels.reshape(len(pixels), -1)
    return {"data": rows, "labels": labels.tolist(), **changes}


@pytest.mark.parametrize("protocol", [3, 5])
@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"labels": list(range(5))}, "holds 17 images, but 5 labels"),
        ({"labels": None}, "its labels are no list of integers"),
        ({"labels": [True] * 17}, "its labels are no list of integers"),
        ({"labels": [0.5] * 17}, "its instruction BINFLOAT"),
        ({"labels": ["a"] * 17}, "its labels are no list of integers"),
        ({"labels": [2**70] * 17}, "its labels are too large"),
        ({"labels": [-1] * 17}, "has the label -1"),
        ({"labels": [], "data": np.zeros((0, 3072), np.uint8)}, "holds 0 images of 3072 bytes"),
        ({"data": np.zeros((17, 3071), np.uint8)}, "holds 17 images of 3071 bytes, not some of"),
        ({"data": np.zeros((17, 3072), np.int8)}, "it is no array of bytes, row by row"),
        ({"data": np.zeros((17, 3072), np.float32)}, "it is no array of bytes, row by row"),
        ({"data": np.asfortranarray(content()["data"])}, "it is no array of bytes, row by row"),
        ({"data": TEN["test"][0]}, "an array is not described as numpy does"),
        ({"data": np.zeros(17 * 3072, np.uint8)}, "an array is not described as numpy does"),
        ({"data": b"bytes"}, "it is no array"),
        ({"data": [1, 2]}, "it is no array"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_batches_of_another_form_are_refused(tmp_path, protocol, changes, fault):
    data = pickle.dumps(content(**changes), protocol)
    text = refused("cifar10", batch(tmp_path, data))
    assert fault in text
    assert "test_batch: " in text


def test_an_array_that_is_not_what_it_says_is_refused(tmp_path):
    data = sets.python_2(*TEN["test"])
    wrong = data.replace(b"K\x11M\x00\x0c", b"K\x12M\x00\x0c").replace(
        b"K\x11J\x00\x0c\x00\x00", b"K\x12J\x00\x0c\x00\x00"
    )
    assert wrong != data
    text = refused("cifar10", batch(tmp_path, wrong))
    assert "its 52224 bytes are not the array that it says" in text


def test_tuples_of_tuples_cost_nothing(tmp_path):
    """Each holds the one before it twice: to compare, hash or show them would take for ever."""
    nested = b")" + b"q\x00h\x00\x86" * 60
    for data in (
        b"}" + nested + b"K\x01s.",
        b"}(U\x04data" + nested + b"U\x06labels]u.",
        b"}(U\x06labels" + nested + b"U\x04datacnumpy\ndtype\n" + nested + b"Ru.",
        b"cnumpy.core.multiarray\n_reconstruct\n" + nested + b"R" + nested + b"b.",
        b"}(U\x06labels]U\x04datacnumpy.core.multiarray\n_reconstruct\n)R("
        + (nested * 4 + nested + b"tbu."),
    ):
        assert "no CIFAR batch" in refused("cifar10", batch(tmp_path, data))


def test_a_batch_that_is_too_large_is_not_read(tmp_path):
    root = batch(tmp_path, b"")
    with (root / "cifar-10-batches-py" / "test_batch").open("wb") as file:
        file.truncate(10**12)
    assert "holds 1000000000000 bytes, and such a file holds 400000000" in refused("cifar10", root)


SMALL = {
    protocol: pickle.dumps(
        {"data": np.arange(12, dtype=np.uint8).reshape(2, 6), "n": [1]}, protocol
    )
    for protocol in range(6)
}


@given(st.sampled_from(sorted(SMALL)), st.data())
def test_damaged_pickles_are_value_errors(protocol, data):
    raw = bytearray(SMALL[protocol])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    for damaged in (bytes(raw), cut):
        with contextlib.suppress(ValueError):
            content = pickled.read(damaged)
            pickled.array(content.get("data") if isinstance(content, dict) else content)


@given(st.binary(max_size=60))
def test_noise_is_a_value_or_a_value_error(raw):
    with contextlib.suppress(ValueError):
        pickled.read(raw)


# SVHN


def mat(*variables, compressed=False):
    """Return a file of MATLAB 5 with elements as :func:`matrix` makes them."""
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM"
    if compressed:
        variables = [element(15, zlib.compress(variable)) for variable in variables]
    return head + b"".join(variables)


def element(kind, data):
    padding = b"" if kind == 15 else b"\0" * (-len(data) % 8)
    return struct.pack("<II", kind, len(data)) + data + padding


def matrix(name, number, sides, data):
    return element(
        14,
        element(6, struct.pack("<II", number, 0))
        + element(5, struct.pack(f"<{len(sides)}i", *sides))
        + (element(1, name) + data),
    )


def bytes_of(*sides, value=1):
    return element(2, bytes([value]) * math.prod(sides))


X = matrix(b"X", 9, (32, 32, 3, 2), bytes_of(32, 32, 3, 2))
Y = matrix(b"y", 9, (2, 1), bytes_of(2, 1))
HANDLE = matrix(b"", 1, (1, 1), matrix(b"", 9, (1, 1), bytes_of(1, 1)))


@pytest.mark.parametrize("compressed", [False, True])
def test_our_matlab_is_what_scipy_reads_as_well(tmp_path, compressed):
    (tmp_path / "test_32x32.mat").write_bytes(mat(X, Y, compressed=compressed))
    test = datasets.open(f"svhn:{tmp_path}").test
    assert test.labels.tolist() == [1, 1]
    assert set(scipy.io.loadmat(tmp_path / "test_32x32.mat")) >= {"X", "y"}


@pytest.mark.parametrize(
    "variables",
    [
        (X,),
        (Y,),
        (X, matrix(b"y", 9, (3, 1), bytes_of(3, 1))),
        (X, matrix(b"y", 9, (2, 2), bytes_of(2, 2))),
        (matrix(b"X", 9, (32, 32, 3), bytes_of(32, 32, 3)), Y),
        (matrix(b"X", 9, (32, 32, 1, 2), bytes_of(32, 32, 1, 2)), Y),
        (matrix(b"X", 8, (32, 32, 3, 2), element(1, b"a" * 6144)), Y),
        (matrix(b"X", 9, (), bytes_of(1)), Y),
        (matrix(b"X", 9, (32, 32, 3, -2), bytes_of(32, 32, 3, 2)), Y),
        (matrix(b"X", 9, (1,) * 99, bytes_of(1)), Y),
        (matrix(b"X", 9, (32, 32, 3, 0), b""), matrix(b"y", 9, (0, 1), b"")),
        # A function handle, an object, an opaque one, a struct and a cell.
        (matrix(b"X", 16, (1, 1), HANDLE), Y),
        (X, matrix(b"y", 16, (2, 1), HANDLE)),
        (X, matrix(b"y", 3, (2, 1), element(1, b"cls"))),
        (X, matrix(b"y", 17, (2, 1), element(1, b"MCOS"))),
        (X, matrix(b"y", 2, (2, 1), element(5, b"\x08\0\0\0"))),
        (X, matrix(b"y", 1, (2, 1), HANDLE)),
        # Of namesakes the first is read, and judged.
        (matrix(b"X", 16, (1, 1), HANDLE), X, Y),
    ],
)
def test_what_is_not_svhn_is_refused_and_so_are_functions_and_objects(tmp_path, variables):
    (tmp_path / "test_32x32.mat").write_bytes(mat(*variables))
    text = refused("svhn", tmp_path)
    assert "test_32x32.mat: n" in text
    assert "not SVHN's cropped digits" in text or "no MATLAB 5 file with X and y" in text
    assert text.endswith("; unpack the archive again")


def test_functions_and_objects_are_named(tmp_path):
    (tmp_path / "test_32x32.mat").write_bytes(mat(matrix(b"X", 16, (1, 1), HANDLE), Y))
    assert "X is no array of integers" in refused("svhn", tmp_path)


def test_labels_may_be_double_and_other_variables_are_passed_over(tmp_path):
    """MATLAB stores numbers of the class double as bytes where they fit."""
    double = matrix(b"y", 6, (2, 1), bytes_of(2, 1, value=10))
    other = matrix(b"other", 16, (1, 1), HANDLE)
    (tmp_path / "test_32x32.mat").write_bytes(mat(other, double, X, Y))
    assert datasets.open(f"svhn:{tmp_path}").test.labels.tolist() == [0, 0]


def test_a_variable_that_inflates_beyond_what_it_says_is_cut_there(tmp_path):
    bomb = element(15, zlib.compress(X + bytes(50_000_000)))
    (tmp_path / "test_32x32.mat").write_bytes(mat(bomb, Y))
    tracemalloc.start()
    assert len(datasets.open(f"svhn:{tmp_path}").test) == 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


@pytest.mark.parametrize("label", [0, 11])
def test_digits_run_from_1_to_10(tmp_path, label):
    labels = matrix(b"y", 9, (2, 1), bytes_of(2, 1, value=label))
    (tmp_path / "test_32x32.mat").write_bytes(mat(X, labels))
    assert f"has the label {label}, but they run from 1 to 10" in refused("svhn", tmp_path)


@pytest.mark.parametrize("data", [b"no MATLAB", b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM"])
def test_files_of_something_else_are_no_mat(tmp_path, data):
    (tmp_path / "test_32x32.mat").write_bytes(data)
    assert "test_32x32.mat: no MATLAB 5 file with X and y that can be read (" in refused(
        "svhn", tmp_path
    )


@given(st.booleans(), st.data())
def test_damaged_matlab_files_are_one_line(tmp_path_factory, compressed, data):
    place = tmp_path_factory.mktemp("svhn")
    raw = bytearray(mat(Y, X, compressed=compressed))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, min(len(raw), 260) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    (place / "test_32x32.mat").write_bytes(raw[:cut])
    try:
        assert len(datasets.open(f"svhn:{place}").test) == 2
    except ImagesError as error:
        assert str(error).isprintable()


# GTSRB


@pytest.fixture
def signs(tmp_path):
    return sets.gtsrb(tmp_path, SIGNS)


def test_the_layout_of_the_full_archive_does_as_well(signs):
    place = signs / "gtsrb" / "GTSRB"
    (place / "Final_Training").mkdir()
    (place / "Training").rename(place / "Final_Training" / "Images")
    (signs / "gtsrb" / "GT-final_test.csv").rename(place / "GT-final_test.csv")
    found = datasets.open(f"gtsrb:{signs}")
    assert (len(found.train), len(found.test)) == (60, 20)


def test_classes_need_no_table(signs):
    for table in (signs / "gtsrb" / "GTSRB").rglob("*.csv"):
        table.unlink()
    assert len(datasets.open(f"gtsrb:{signs}").train) == 60


def _table(signs):
    return sorted((signs / "gtsrb" / "GTSRB" / "Training").rglob("*.csv"))[0]


def _edit(path, change):
    path.write_text(change(path.read_text()))


def _rename(signs):
    next(_table(signs).parent.glob("*.ppm")).rename(_table(signs).parent / "x.ppm")


@pytest.mark.parametrize(
    ("spoil", "split", "fault"),
    [
        (lambda s: next((s / "gtsrb/GTSRB/Final_Test").rglob("*.ppm")).unlink(), "test", "lacks"),
        (lambda s: (s / "gtsrb/GT-final_test.csv").unlink(), "test", "GT-final_test.csv: cannot"),
        (lambda s: _edit(s / "gtsrb/GT-final_test.csv", lambda t: ""), "test", "lists no files"),
        (lambda s: _edit(s / "gtsrb/GT-final_test.csv", str.lower), "test", "Filename and ClassId"),
        (
            lambda s: _edit(s / "gtsrb/GT-final_test.csv", lambda t: t + t.splitlines()[1]),
            "test",
            "one of them twice",
        ),
        (
            lambda s: _edit(s / "gtsrb/GT-final_test.csv", lambda t: t.replace(";8;8;", ";8;8;9")),
            "test",
            "they run from 0 to 42",
        ),
        (
            lambda s: _edit(s / "gtsrb/GT-final_test.csv", lambda t: t.replace(";8;8;", ";8;8;-")),
            "test",
            "Filename and ClassId",
        ),
        (lambda s: _edit(s / "gtsrb/GT-final_test.csv", lambda t: "é" + t), "test", "no table"),
        (_rename, "train", "is one of a single side"),
        (
            lambda s: _edit(_table(s), lambda t: t.replace(";8;8;", ";8;8;4")),
            "train",
            "lists another class than its folder's",
        ),
        (
            lambda s: (s / "gtsrb/GTSRB/Training").rename(s / "gtsrb/gone"),
            "train",
            "no training images; looked for Training and Final_Training/Images",
        ),
    ],
)
def test_pictures_and_tables_must_agree(signs, spoil, split, fault):
    spoil(signs)
    assert fault in refused("gtsrb", signs, split)


def test_a_table_names_files_of_its_folder_alone(signs):
    """Paths in it lead nowhere."""
    table = signs / "gtsrb" / "GT-final_test.csv"
    _edit(table, lambda text: text.replace("00000.ppm", "../../../../secret.ppm"))
    assert "lists ../../../../secret.ppm, which" in refused("gtsrb", signs)


def test_a_picture_that_is_damaged_is_named_when_it_is_read(signs):
    next((signs / "gtsrb" / "GTSRB" / "Final_Test").rglob("00003.ppm")).write_bytes(b"P6 9 9")
    test = datasets.open(f"gtsrb:{signs}").test
    with pytest.raises(ImagesError, match=r"00003.ppm: no image that can be read; unpack"):
        test.images(range(20), 8)
    assert isinstance(test.pictures, Files)


# The command line


def test_a_scan_on_a_data_set(tmp_path, cifar):
    model = models.write(tmp_path / "model.safetensors")
    command = ["scan", model, "--images", cifar, "--profile", "quick", "-k", "EC101"]
    ended = run(*command, "--json", "out.json", cwd=tmp_path)
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["images"]["source"] == "cifar10"
    assert report["images"]["unreadable"] == 0
    assert f"{report['images']['count']} cifar10 images" in ended.stdout
    assert ended.stderr == ""
    assert [finding["id"] for finding in report["findings"]] == ["EC101"]
    assert ended.returncode == 0, ended


def test_a_hostile_data_set_is_one_line_and_two(tmp_path):
    model = models.write(tmp_path / "model.safetensors")
    batch(tmp_path, pickle.dumps({b"data": Command(tmp_path / "pwned")}))
    command = ["scan", model, "--images", "cifar10:.", "--profile", "quick", "-k", "EC101"]
    ended = run(*command, cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1
    assert "asks for posix.system" in ended.stderr
    assert not (tmp_path / "pwned").exists()


def test_samples_takes_a_data_set_as_clean_images(tmp_path, cifar, monkeypatch):
    monkeypatch.setenv("ENCODERCHECK_CACHE", str(tmp_path / "cache"))
    incoming = pictures.write(tmp_path / "in", 10, seed=8)
    settings = Settings(epochs=8, batch=32)
    prepared = screening.prepare(
        pictures.encoder(), incoming, clean=cifar, clean_images=320, settings=settings, rate=0.05
    )
    assert prepared.run().clean == "cifar10"
    with pytest.raises(ImagesError, match="--clean stl10:gone: no such folder"):
        screening.prepare(pictures.encoder(), incoming, clean="stl10:gone", settings=settings)
