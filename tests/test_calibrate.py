"""Clean encoders measured on the command line, and scans that compare with them."""

import json
import math
from pathlib import Path

import models
import pictures
import pytest
import short_suite
import torch
from commands import python, run

from encodercheck import load, scanning
from encodercheck.cli.options import size
from encodercheck.encoder import Encoder
from encodercheck.errors import ConfigError
from encodercheck.harness.runner import builtin_suite, list_checks
from encodercheck.nulls import Nulls

SCRIPT = Path(short_suite.__file__)
CHECK = """
import pytest

@pytest.mark.check("ACME001", severity="high")
@pytest.mark.parametrize("colour", ["red", "blue"])
def check_spread(encoder, images, null, measure, colour):
    '''Embeddings lie no nearer to one another than those of clean encoders.'''
    value = float(encoder(images).std(0).mean()) * {"red": 1, "blue": 2}[colour]
    clean = null("spread", scale="size")
    clean.require_support()
    measure("spread", value * FACTOR, at_least=clean.limit)
    measure("p_value", clean.p_value(value * FACTOR))
    clean.require_verdict(value * FACTOR)
    measure("own", clean.own)
"""
KEPT = {"ACME001.spread", "ACME001.own"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three clean models, a fourth to scan, and a check that compares."""
    folder = tmp_path_factory.mktemp("calibrate")
    for i in range(4):
        models.write(folder / f"clean{i}.safetensors", models.state(i))
    (folder / "check_acme.py").write_text(CHECK.replace("FACTOR", "1"))
    (folder / "check_poisoned.py").write_text(CHECK.replace("FACTOR", "1e-3"))
    return folder


def clean(*numbers):
    return [f"clean{i}.safetensors" for i in numbers]


# As the user's own word: of random weights another reading may spread images further.
ARCH = ["--arch", "resnet,stem_stride=2,maxpool=False"]
QUICK = ["--profile", "quick", "--checks", "check_acme.py"]


def calibrate(folder, *arguments):
    """Calibrate with the check and one of the suite, which otherwise runs in full."""
    return python(SCRIPT, "calibrate", *arguments, cwd=folder)


@pytest.fixture(scope="module")
def null(folder):
    """A null of one encoder first, appended to, one of them measured twice."""
    ended = run("calibrate", *clean(0), "--out", "null.json", *QUICK, cwd=folder)
    assert ended.returncode == 0, ended
    assert told(ended) == [*clean(0), "null.json: 1 clean encoder"]
    ended = calibrate(folder, *clean(1), "--out", "null.json", "--append", *QUICK)
    assert ended.returncode == 0, ended
    assert told(ended) == [*clean(1), "null.json: 2 clean encoders"]
    assert "2 of 3 clean encoders; with fewer, a scan goes by those of all" in words(ended)
    ended = calibrate(folder, *clean(1, 2), "--out", "null.json", "--append", *QUICK)
    assert ended.returncode == 0, ended
    assert told(ended) == [*clean(1, 2), "null.json: 3 clean encoders"]
    assert "with fewer" not in words(ended)
    return folder / "null.json"


def told(ended):
    lines = (line.split("  ")[0] for line in ended.stdout.splitlines())
    return [line for line in lines if line]


def words(ended):
    """Return what was printed, without the breaks of lines."""
    return " ".join(ended.stdout.split())


def scan(folder, check, *arguments, model="clean3.safetensors"):
    command = ["scan", model, "--checks", check, "-k", "ACME001", "--json", "-", *ARCH]
    ended = run(*command, *arguments, cwd=folder)
    findings = json.loads(ended.stdout)["findings"] if ended.stdout else []
    return ended, findings


def test_every_value_is_kept_by_check_and_name(null):
    known = Nulls.read(null)
    assert [encoder.name for encoder in known.encoders] == clean(0, 1, 2)
    assert (known.profile, known.images) == ("quick", "procedural")
    assert known.versions["torch"]
    (architecture,) = {encoder.architecture for encoder in known.encoders}
    assert architecture == str(models.SPEC)
    for encoder in known.encoders:
        assert encoder.values.keys() > KEPT
        assert "EC101.effective_rank" in encoder.values
        assert all(map(math.isfinite, encoder.values.values()))


def test_every_check_of_the_suite_is_measured(null):
    measured = {name.split(".")[0] for name in Nulls.read(null).encoders[0].values}
    assert measured >= {info.id for info in list_checks([builtin_suite()])}


def test_a_scan_compares_with_them(folder, null):
    ended, findings = scan(folder, "check_acme.py", "--null", "null.json", "--profile", "quick")
    assert ended.returncode == 0, ended
    assert [finding["id"] for finding in findings] == ["ACME001[red]", "ACME001[blue]"]
    for finding in findings:
        values = {m["name"]: m["value"] for m in finding["measurements"]}
        assert values["own"] == 1
        assert 0 < values["p_value"] < 1


def test_what_clean_encoders_never_measure_fails(folder, null):
    ended, findings = scan(folder, "check_poisoned.py", "--null", "null.json", "--profile", "quick")
    assert ended.returncode == 1, ended
    assert {finding["outcome"] for finding in findings} == {"failed"}


def test_without_them_there_is_no_verdict_but_a_way_to_one(folder):
    ended, findings = scan(folder, "check_acme.py", "--profile", "quick")
    assert ended.returncode == 2, ended
    for finding in findings:
        assert finding["outcome"] == "inconclusive"
        assert "encodercheck calibrate" in finding["message"]


def test_an_encoder_that_fails_is_refused_unless_it_is_known_to_be_clean(folder):
    (folder / "check_strict.py").write_text(
        "def check_strict(measure):\n    measure('value', 2, at_most=1)\n"
    )
    options = ["--profile", "quick", "--checks", "check_strict.py", "--out", "strict.json"]
    ended = calibrate(folder, *clean(0), *options)
    assert ended.returncode == 2, ended
    assert ended.stderr == (
        "encodercheck: clean0.safetensors: failed strict, so that it may not be clean; leave it "
        "out, or pass --allow-failing if you know that it is; nothing was written\n"
    )
    assert not (folder / "strict.json").exists()
    ended = calibrate(folder, *clean(0), "--allow-failing", *options)
    assert ended.returncode == 0, ended
    assert "clean0.safetensors failed strict: is it clean?" in ended.stdout
    (encoder,) = Nulls.read(folder / "strict.json").encoders
    assert encoder.values["strict.value"] == 2


def noisy(folder, name, noise):
    """Write the first model with noise of this share of its weights; return the file's name."""
    generator = torch.Generator().manual_seed(7)
    state = models.state(0)
    for tensor in state.values():
        if tensor.is_floating_point():
            scale = tensor.square().mean().sqrt() * noise
            tensor += scale * torch.randn(tensor.shape, generator=generator)
    models.write(folder / name, state)
    return name


def test_copies_are_counted_once(folder):
    copies = [noisy(folder, "resaved.safetensors", 0), noisy(folder, "noisy.safetensors", 1e-3)]
    ended = calibrate(folder, *clean(0), *copies, *clean(1), "--out", "once.json", *QUICK)
    assert ended.returncode == 0, ended
    assert told(ended) == [*clean(0), *copies, *clean(1), "once.json: 2 clean encoders"]
    assert ended.stdout.count("a copy of clean0.safetensors: counted once") == 2
    # The same file by another name is measured anew, a copy of it is not.
    again = ["resaved.safetensors", "noisy.safetensors"]
    ended = calibrate(folder, *again, "--out", "once.json", "--append", *QUICK)
    assert ended.returncode == 0, ended
    assert told(ended)[-1] == "once.json: 2 clean encoders"
    assert ended.stdout.count("a copy of") == 1


def test_options_of_a_model_are_those_of_a_scan(folder):
    options = ["--image-size", "40", "--mean", "0.4,0.4,0.4", "--std", "0.3,0.3,0.3"]
    ended = calibrate(folder, *clean(0), "--out", "sized.json", *options, *QUICK)
    assert ended.returncode == 0, ended
    (sized,) = Nulls.read(folder / "sized.json").encoders
    assert sized.image_size == 40
    ended = calibrate(folder, *clean(0), "--out", "plain.json", *QUICK)
    (plain,) = Nulls.read(folder / "plain.json").encoders
    assert plain.structure != sized.structure
    ended = calibrate(folder, *clean(0), "--out", "never.json", "--std", "0,1,1", *QUICK)
    assert ended.returncode == 2, ended
    assert ended.stderr == "encodercheck: --std: must be positive\n"


def test_images_are_the_same_however_their_folder_is_spelled(folder, monkeypatch):
    photos = pictures.write(folder / "photos", 230, seed=3)
    options = ["--out", "photos.json", *QUICK]
    ended = calibrate(folder, *clean(0, 1), "--images", "photos/", *options)
    assert ended.returncode == 0, ended
    ended = calibrate(folder, *clean(2), "--images", str(photos), "--append", *options)
    assert ended.returncode == 0, ended
    monkeypatch.chdir(folder)
    for name in ("photos", "./photos", str(photos)):
        state = scanning.prepare(
            "clean3.safetensors", profile="quick", images=name, null="photos.json"
        )
        null = state.null("ACME001.own", scale="size")
        assert null.own
        assert "measured" not in null.source
    pictures.write(photos, 231, seed=3)
    ended = calibrate(folder, *clean(2), "--images", "photos/", "--append", *options)
    assert ended.returncode == 2, ended
    assert "has profile quick and photos/ images, not quick and photos/ as they are now" in (
        ended.stderr
    )


@pytest.mark.parametrize("noise", [0, 1e-3])
def test_nobody_is_a_reference_for_himself(folder, null, noise):
    """Also not a copy with a trace of noise."""
    model = noisy(folder, f"self{noise}.safetensors", noise)
    ended, findings = scan(
        folder, "check_acme.py", "--null", "null.json", "--profile", "quick", model=model
    )
    assert ended.returncode == 2, ended
    assert {finding["outcome"] for finding in findings} == {"inconclusive"}
    notes = json.loads(ended.stdout)["model"]["notes"]
    says = "left out of the clean encoders to compare with, as copies of this one: "
    assert f"{says}clean0.safetensors" in notes


def test_what_was_made_of_a_clean_encoder_may_be_compared_with_it(folder, null):
    model = noisy(folder, "made.safetensors", 0.1)
    ended, findings = scan(
        folder, "check_acme.py", "--null", "null.json", "--profile", "quick", model=model
    )
    assert {finding["outcome"] for finding in findings} <= {"passed", "failed"}
    assert not any("left out" in note for note in json.loads(ended.stdout)["model"]["notes"])


def test_an_encoder_that_is_handed_in_stays_as_it_is(folder, null):
    encoder = load(folder / "clean0.safetensors", device="cpu")
    state = scanning.prepare(encoder, profile="quick", null=null)
    assert any("left out" in note for note in state.encoder.provenance.notes)
    assert not any("left out" in note for note in encoder.provenance.notes)
    assert {e.name for e in state.nulls.encoders}.isdisjoint(clean(0))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["clean0.safetensors", "missing.safetensors"], "missing.safetensors: no such"),
        (["clean0.safetensors", "--checks", "check_crash.py"], "crash ended with an error"),
        (["clean0.safetensors", "--out", "blocked/null.json"], "blocked"),
        (["clean0.safetensors", "--out", "-"], "name one"),
        (["clean0.safetensors", "--append", "--out", "check_acme.py"], "no usable null"),
        (["clean0.safetensors", "--append", "--out", "null.json"], "has profile quick"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_cannot_be_measured_is_one_line_and_nothing_written(folder, null, arguments, says):
    before = null.read_bytes()
    (folder / "blocked").write_text("a file where a folder should be")
    (folder / "check_crash.py").write_text("def check_crash():\n    raise KeyError('oh')\n")
    out = [] if "--out" in arguments else ["--out", "never.json"]
    ended = calibrate(folder, *arguments, *out)
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert not (folder / "never.json").exists()
    assert null.read_bytes() == before


def test_a_null_that_is_none_ends_a_scan_before_it_begins(folder):
    ended, _ = scan(folder, "check_acme.py", "--null", "check_acme.py")
    assert ended.returncode == 2, ended
    assert ended.stderr.startswith("encodercheck: check_acme.py: no usable null")
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


def test_help_does_not_import_torch(folder):
    code = (
        "import sys; from encodercheck.cli.main import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    ended = python("-c", code, "calibrate", "--help", cwd=folder)
    assert ended.returncode == 0, ended
    assert "--append" in ended.stdout
    code = "import sys, encodercheck.nulls; assert 'torch' not in sys.modules"
    assert python("-c", code, cwd=folder).returncode == 0


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2GB", 2 * 10**9),
        ("1.5gb", 1_500_000_000),
        ("512MB", 512 * 10**6),
        ("512MiB", 512 * 2**20),
        ("3 KiB", 3 * 2**10),
        ("2G", 2 * 10**9),
        ("1TiB", 2**40),
        ("4096", 4096),
        ("4096B", 4096),
    ],
)
def test_sizes(text, count):
    assert size(text) == count


@pytest.mark.parametrize("text", ["", "0", "-1GB", "GB", "2 giga", "1e9", "2iB", "0.1B", "9" * 30])
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match="--max-memory"):
        size(text)


def test_memory_that_is_no_size_is_one_line_and_two(folder):
    ended = run("scan", *clean(0), "--max-memory", "lots", cwd=folder)
    assert ended.returncode == 2, ended
    assert ended.stderr == (
        "encodercheck: --max-memory 'lots': not a size; write 2GB, 512MiB or bytes\n"
    )


def test_the_encoder_is_told_of_the_limit(folder, monkeypatch):
    told = []
    monkeypatch.setattr(
        Encoder, "limit_memory", lambda encoder, limit: told.append(limit), raising=False
    )
    scanning.prepare(folder / "clean0.safetensors", profile="quick", max_memory=10**9)
    scanning.prepare(folder / "clean0.safetensors", profile="quick")
    # Once for each reading of the file.
    assert set(told) == {10**9}
