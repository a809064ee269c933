"""What a file claims of its encoder is listed, and a better reading of it is scanned as well."""

import dataclasses
import json
from functools import partial

import models
import pytest
import torch
from reports import FAILED, PASSED, UNDECIDED, WAIVED, report
from safetensors.torch import save_file

import encodercheck
from encodercheck import readings, scanning
from encodercheck.encoder import Encoder, Provenance
from encodercheck.harness.second import worse
from encodercheck.images import procedural
from encodercheck.loading import load
from encodercheck.preprocessing import Preprocessing
from encodercheck.render import words
from encodercheck.report import Outcome, Report
from encodercheck.weights.metadata import METADATA

LOOK = partial(procedural.images, readings.IMAGES, seed=0)


class Bright(torch.nn.Module):
    """Embeds images as a bend of their pixels: far apart where these are of both signs."""

    def forward(self, pixels):
        return torch.nn.functional.avg_pool2d(pixels, 8).flatten(1)


def look(size):
    return LOOK(size=size)


def bright(source=METADATA, **chosen):
    """Return an encoder that is right with mean and deviation near a half, by one who says so."""
    said = Preprocessing(image_size=32).replaced(source, **chosen)
    return Encoder(Bright(), preprocessing=said, provenance=Provenance(found_by="--arch"))


def _write(path, **claims):
    about = {"architecture": models.SPEC.to_dict(), "image_size": 32, "mean": [0.5] * 3}
    about["std"] = [0.25] * 3
    for name, value in claims.items():
        (about if name in about else about["architecture"])[name] = value
    save_file(models.state(), path, {"encodercheck": json.dumps(about)})
    return path


def test_what_only_the_file_says_is_in_the_report(tmp_path):
    path = _write(tmp_path / "model.safetensors")
    options = {"profile": "quick", "keyword": "EC001", "device": "cpu"}
    found = encodercheck.scan(path, **options)
    assert found.model["claims"] == [
        "stem of stride 2 without max-pool, then strides 1-2-2-2 (the file's metadata)",
        "image size 32 (the file's metadata)",
        "mean 0.5,0.5,0.5 (the file's metadata)",
        "std 0.25,0.25,0.25 (the file's metadata)",
    ]
    assert ("the file's own claim", found.model["claims"][1]) in words.facts(found)
    told = encodercheck.scan(path, image_size=32, std=(0.25,) * 3, **options)
    assert told.model["claims"] == [found.model["claims"][0], found.model["claims"][2]]
    user = {"arch": "resnet,stem_stride=2,maxpool=False", "mean": (0.5,) * 3, "std": (0.25,) * 3}
    told = encodercheck.scan(path, image_size=32, **user, **options)
    assert told.model["claims"] == []


@pytest.mark.parametrize("chosen", readings.USUAL)
def test_usual_claims_are_believed(chosen):
    # Whose embeddings would spread further otherwise is doubted all the same: see below.
    assert not readings._is_odd(bright(mean=chosen[0], std=chosen[1]))


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.5,) * 3, (25.0,) * 3),
        ((0.5,) * 3, (1e-3,) * 3),
        ((1.9,) * 3, (0.25,) * 3),
        ((0.5,) * 3, (0.25, 0.25, 0.7)),
        ((-0.1, 0.5, 0.5), (0.25,) * 3),
        ((0.0,) * 3, (0.9,) * 3),
    ],
)
def test_odd_claims_are_read_again(mean, std):
    other = readings.other(bright(mean=mean, std=std), look)
    assert (other.encoder.preprocessing.mean, other.encoder.preprocessing.std) in readings.USUAL
    assert "--mean" in other.options + other.claimed
    # The user's word is not doubted.
    assert readings.other(bright("--std", mean=mean, std=std), look) is None


def test_a_claim_that_makes_embeddings_parallel_is_read_again():
    claimed = bright(mean=(0.0,) * 3, std=(1.0,) * 3)
    other = readings.other(claimed, look)
    before, after = (readings._spread(one, look) for one in (claimed, other.encoder))
    assert after > 5 * before
    assert f"{after / before:.1f} times as far apart" in other.note()
    assert "--mean 0,0,0 --std 1,1,1" in other.note()


def test_only_the_part_that_is_claimed_is_read_otherwise():
    said = Preprocessing(32).replaced("--mean", mean=(0.4,) * 3).replaced(METADATA, std=(9.0,) * 3)
    other = readings.other(Encoder(Bright(), preprocessing=said), look)
    assert other.encoder.preprocessing.mean == (0.4,) * 3
    assert other.encoder.preprocessing.std != (9.0,) * 3
    assert "--mean" not in other.options


@pytest.mark.parametrize("scale", [1e-30, 1e-16, 1.0, 1e16, 1e30])
def test_spread_does_not_change_with_the_scale(scale):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(16, 8, generator=generator) + 0.5
    unit = torch.nn.functional.normalize(embeddings.double())
    cosines = (unit @ unit.T)[~torch.eye(16, dtype=torch.bool)]
    found = readings.spread(embeddings * scale)
    assert found == pytest.approx(1 - float(cosines.mean()), rel=1e-5)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_an_embedding_without_direction_has_no_spread(bad):
    embeddings = torch.rand(4, 8)
    embeddings[1] = bad
    assert readings.spread(embeddings) == 0


def test_other_strides_have_the_same_weights(tmp_path):
    encoder = load(_write(tmp_path / "model.safetensors"), device="cpu")
    stems = {
        (one.module.spec.stem_stride, one.module.spec.maxpool): one
        for one in readings._stems(encoder)
    }
    assert set(stems) == {(1, False), (1, True), (2, True)}
    images = procedural.images(4, size=32, seed=0)
    for (stride, pool), read in stems.items():
        arch = f"resnet,stem_stride={stride},maxpool={pool}"
        told = load(tmp_path / "model.safetensors", arch=arch, device="cpu")
        assert torch.allclose(read(images), told(images), atol=1e-5)
        assert read.provenance.architecture == told.provenance.architecture
    told = load(tmp_path / "model.safetensors", arch="resnet,stem_stride=2,maxpool=True")
    assert not list(readings._stems(told))


def test_both_readings_are_scanned_and_the_worse_outcome_counts(tmp_path):
    """The check fails at 32 pixels, passes at 16, and only the latter is claimed."""
    (tmp_path / "check_size.py").write_text(
        "import pytest\n"
        "@pytest.mark.check('SIZE1')\n"
        "def check_size(encoder, measure):\n"
        "    measure('size', encoder.image_size, at_most=20)\n"
        "@pytest.mark.check('SIZE2')\n"
        "def check_other(encoder, measure):\n"
        "    measure('size', encoder.image_size, at_least=20)\n"
        "@pytest.mark.check('SIZE3')\n"
        "def check_any(encoder, measure):\n"
        "    measure('size', encoder.image_size)\n"
    )
    path = _write(tmp_path / "model.safetensors", image_size=16, std=[8.0] * 3)
    options = {"checks": [tmp_path / "check_size.py"], "keyword": "SIZE", "profile": "quick"}
    state = scanning.prepare(path, profile="quick", device="cpu")
    assert state.second is not None
    assert "--std" in state.second.read_with
    state.second = scanning.prepare(path, image_size=32, profile="quick", device="cpu")
    state.second.read_with = "--image-size 32"
    found = scanning.run(state, checks=options["checks"], keyword="SIZE")
    ends = {finding.id: finding for finding in found.findings}
    assert found.exit_code == 1
    assert list(ends) == ["SIZE1", "SIZE2", "SIZE3"]
    assert ends["SIZE1"].message == "read with --image-size 32: size 32 > 20"
    assert ends["SIZE2"].message == "size 16 < 20"
    assert ends["SIZE3"].outcome is Outcome.PASSED
    assert found.model["read_also_with"] == "--image-size 32"
    assert Report.from_dict(found.to_dict()).model == found.model

    scanned = encodercheck.scan(path, device="cpu", **options)
    assert any(note.startswith("also scanned with") for note in scanned.model["notes"])
    # Who says it is not second-guessed.
    alone = encodercheck.scan(path, std=(8.0,) * 3, mean=(0.5,) * 3, image_size=16, **options)
    assert "--std" not in alone.model["read_also_with"]


def test_the_worse_of_two_findings_is_kept():
    undecided = dataclasses.replace(UNDECIDED, id="EC202")
    passed = dataclasses.replace(PASSED, id="EC202")
    failed = dataclasses.replace(FAILED, message="")
    order = [failed, undecided, WAIVED, passed]
    for i, first in enumerate(order):
        for j, second in enumerate(order):
            (kept,) = worse([first], [second], "--x")
            assert kept.outcome is order[min(i, j)].outcome
            assert kept.message.startswith("read with --x") == (j < i)
    assert [f.id for f in worse([PASSED], [PASSED, failed], "--x")] == ["EC001", "EC202"]


def test_a_witness_of_the_other_reading_is_replayed_with_its_options():
    (found,) = worse([dataclasses.replace(PASSED, id="EC202")], [FAILED], "--image-size 32")
    one = report(found, read_also_with="--image-size 32")
    assert words.replay_command(one).endswith(" --image-size 32")
    one = report(FAILED, read_also_with="--image-size 32")
    assert "--image-size" not in words.replay_command(one)
