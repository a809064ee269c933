"""Witness files: what is written is read back, and damage is noticed."""

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from encodercheck.errors import OutputError, WitnessError
from encodercheck.methods.battery import patch
from encodercheck.trigger import Trigger
from encodercheck.witness import PICTURE_NAME, Witness


@pytest.fixture
def witness():
    trigger = patch(32, 27, 27, torch.rand(3, 5, 5), "noise")
    return Witness(trigger, 0.998, 0.49, 256, torch.rand(8, 3, 32, 32), {"check": "EC202"})


def test_a_witness_survives_the_round_trip(witness, tmp_path):
    path = witness.save(tmp_path / "deep" / "folder", model_sha256="abc", seed=7)
    loaded = Witness.load(path)
    assert torch.equal(loaded.trigger.mask, witness.trigger.mask)
    assert torch.equal(loaded.trigger.pattern, witness.trigger.pattern)
    assert (loaded.cosine, loaded.base, loaded.count) == (0.998, 0.49, 256)
    assert loaded.origin == {"check": "EC202", "model_sha256": "abc", "seed": 7}
    assert loaded.sentence() == witness.sentence()
    assert loaded.seed == 7
    assert loaded.found_on("abc")
    assert not loaded.found_on("def")


def test_an_additive_witness_survives_the_round_trip(tmp_path):
    trigger = Trigger(torch.ones(1, 8, 8), torch.rand(3, 8, 8) - 0.5, additive=True)
    loaded = Witness.load(Witness(trigger, 0.9, 0.1, 4).save(tmp_path))
    assert loaded.trigger.additive
    assert torch.equal(loaded.trigger.pattern, trigger.pattern)


def test_the_sentence_says_where_and_what(witness):
    assert witness.sentence() == (
        "a 5x5 patch at (27, 27), 2.4 % of the image, makes 256 unseen images 0.998 alike; "
        "unstamped 0.49"
    )


def test_the_picture_shows_mask_pattern_and_stamped_images(witness, tmp_path):
    witness.save(tmp_path)
    with Image.open(tmp_path / PICTURE_NAME) as picture:
        assert picture.width > 8 * 128
        corner = picture.getpixel((8 + 127, 16 + 127))
        assert corner == (255, 255, 255)
        assert picture.getpixel((8, 16)) == (0, 0, 0)


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-10])


def _another_file(path):
    save_file({"mask": torch.ones(1)}, path)


def _mask_out_of_range(path):
    metadata = {"format": "encodercheck.witness/1", "encodercheck": '{"additive": false}'}
    save_file({"mask": torch.full((1, 4, 4), 7.0), "pattern": torch.ones(3, 4, 4)}, path, metadata)


@pytest.mark.parametrize(
    "damage", [_truncated, _another_file, _mask_out_of_range, lambda path: path.unlink()]
)
def test_a_damaged_witness_is_one_clear_error(witness, tmp_path, damage):
    path = witness.save(tmp_path)
    damage(path)
    with pytest.raises(WitnessError, match=r"witness\.safetensors"):
        Witness.load(path)


def test_a_place_that_cannot_be_written_to_is_an_output_error(witness, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        witness.save(tmp_path / "file" / "below")
