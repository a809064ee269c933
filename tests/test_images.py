"""Where images come from: folders with good, bad and too few files."""

import shutil

import pytest
import torch
from PIL import Image

from encodercheck.errors import ImagesError
from encodercheck.images import folder, source


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "sub").mkdir()
    formats = [("a.png", "RGB"), ("b.jpg", "L"), ("c.webp", "RGBA"), ("sub/d.BMP", "RGB")]
    for i, (name, mode) in enumerate(formats):
        colour = {"L": 40 * i, "RGBA": (40 * i, 0, 90, 120)}.get(mode, (40 * i, 99, 0))
        Image.new(mode, (20 + i, 31), colour).save(tmp_path / name)
    return tmp_path


def test_a_folder_is_read_whatever_the_format_and_mode(pictures):
    images, unreadable = folder.images(pictures, 4, size=16, seed=0)
    assert images.shape == (4, 3, 16, 16)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1
    assert unreadable == 0


def test_the_seed_draws_the_images(pictures):
    first, again = (folder.images(pictures, 3, size=8, seed=5)[0] for _ in range(2))
    assert torch.equal(first, again)
    others = [folder.images(pictures, 3, size=8, seed=seed)[0] for seed in range(8)]
    assert any(not torch.equal(first, other) for other in others)


def test_files_that_are_no_images_are_passed_over_and_counted(pictures):
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    (pictures / "text.jpg").write_text("not a picture")
    found = source.collect(str(pictures), 4, size=8, seed=0)
    assert found.describe()["unreadable"] == found.unreadable <= 2


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: None, "holds 4 image files, but 9 are needed"),
        (
            lambda folder: [(folder / f"{i}.png").write_text("no") for i in range(9)],
            "9 of its 13 files are not images that can be read, which leaves 4 of the 9 needed",
        ),
    ],
)
def test_too_few_images_are_an_error_that_counts(pictures, prepare, message):
    prepare(pictures)
    with pytest.raises(ImagesError, match=message):
        folder.images(pictures, 9, size=8, seed=0)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ImagesError, match="no such folder"):
        source.collect(str(tmp_path / "missing"), 4, size=8, seed=0)


def test_without_a_folder_images_are_generated():
    found = source.collect(None, 5, size=12, seed=0)
    assert found.images.shape == (5, 3, 12, 12)
    assert found.describe() == {
        "source": "procedural",
        "digest": None,
        "count": 5,
        "unreadable": 0,
    }


def test_a_folder_is_the_same_however_it_is_spelled(pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    name = pictures.name
    (pictures.parent / "link").symlink_to(pictures)
    spelled = [name, f"{name}/", f"./{name}", f"{name}/sub/..", str(pictures), "link"]
    digests = {source.collect(one, 4, size=8, seed=0).digest for one in spelled}
    assert digests == {source.digest(name)}
    moved = shutil.copytree(pictures, pictures.parent / f"{name}-moved")
    assert source.digest(str(moved)) == source.digest(name)


def test_other_files_make_another_folder(pictures):
    digests = [source.digest(str(pictures))]
    Image.new("RGB", (9, 9)).save(pictures / "e.png")
    digests.append(source.digest(str(pictures)))
    (pictures / "e.png").rename(pictures / "f.png")
    digests.append(source.digest(str(pictures)))
    Image.new("RGB", (90, 90)).save(pictures / "f.png")
    digests.append(source.digest(str(pictures)))
    assert len(set(digests)) == 4
    # What is no image has no part in it.
    (pictures / "notes.txt").write_text("")
    assert source.digest(str(pictures)) == digests[-1]
    assert source.digest(None) is None
    with pytest.raises(ImagesError, match="no such folder"):
        source.digest(str(pictures / "missing"))
