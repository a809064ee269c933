"""Clean encoders measured on the command line, and scans that compare with them."""

import json
import math
from pathlib import Path

import models
import pytest
import short_suite
from commands import python, run

from encodercheck import scanning
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
    ended = calibrate(folder, *clean(1, 2), "--out", "null.json", "--append", *QUICK)
    assert ended.returncode == 0, ended
    assert told(ended) == [*clean(1, 2), "null.json: 3 clean encoders"]
    return folder / "null.json"


def told(ended):
    return [line.split("  ")[0] for line in ended.stdout.splitlines()]


def scan(folder, check, *arguments):
    command = ["scan", "clean3.safetensors", "--checks", check, "-k", "ACME001", "--json", "-"]
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


def test_a_doubtful_clean_encoder_is_a_warning(folder):
    (folder / "check_strict.py").write_text(
        "def check_strict(measure):\n    measure('value', 2, at_most=1)\n"
    )
    options = ["--profile", "quick", "--checks", "check_strict.py"]
    ended = calibrate(folder, *clean(0), "--out", "strict.json", *options)
    assert ended.returncode == 0, ended
    assert "clean0.safetensors failed strict: is it clean?" in ended.stdout
    (encoder,) = Nulls.read(folder / "strict.json").encoders
    assert encoder.values["strict.value"] == 2


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
    assert told == [10**9]
