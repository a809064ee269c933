"""``--resume``: what an interrupted scan found stands, and the rest of its checks run."""

import json

import models
import pytest
from commands import run

SUITE = """
import pathlib
import pytest

def count(name):
    with open(name, "a") as file:
        file.write("x")

@pytest.mark.check("OWN1")
def check_first(measure):
    count("first")
    measure("x", 5.0, at_most=4.0)

@pytest.mark.check("OWN2")
def check_interrupted(measure):
    count("second")
    if not pathlib.Path("go").exists():
        raise KeyboardInterrupt
    measure("y", 1.0, at_most=2.0)
"""
ARCH = ("--arch", "resnet,stem_stride=2,maxpool=False")
OWN = (
    *ARCH,
    "--checks",
    "check_own.py",
    "--select",
    "OWN*",
    "--profile",
    "quick",
    "--json",
    "r.json",
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "check_own.py").write_text(SUITE)
    models.write(tmp_path / "model.safetensors")
    monkeypatch.setenv("ENCODERCHECK_CACHE", str(tmp_path / "cache"))
    ended = scan(tmp_path)
    assert ended.returncode == 130, ended
    assert "findings kept: 1; --resume goes on from there" in ended.stderr
    (tmp_path / "go").touch()
    return tmp_path


def scan(place, *arguments, model="model.safetensors"):
    return run("scan", model, *OWN, *arguments, cwd=place)


def ran(place, name):
    return len((place / name).read_text())


def outcomes(place):
    report = json.loads((place / "r.json").read_text())
    return {finding["id"]: finding["outcome"] for finding in report["findings"]}


def test_only_the_rest_is_run(place):
    ended = scan(place, "--resume")
    assert ended.returncode == 1, ended
    assert "resumed: OWN1 are as the interrupted scan found them" in ended.stderr
    assert (ran(place, "first"), ran(place, "second")) == (1, 2)
    assert outcomes(place) == {"OWN1": "failed", "OWN2": "passed"}
    assert ended.stdout.index("OWN1") < ended.stdout.index("OWN2")
    # It came to its end: there is nothing to go on with.
    ended = scan(place, "--resume")
    assert "no interrupted scan" in ended.stderr
    assert ran(place, "first") == 2


def test_without_the_option_everything_is_run_again(place):
    assert scan(place).returncode == 1
    assert (ran(place, "first"), ran(place, "second")) == (2, 2)


@pytest.mark.parametrize("changed", ["seed", "model", "check", "cache"])
def test_what_rests_on_something_else_is_not_taken_up(place, changed):
    arguments = ()
    if changed == "seed":
        arguments = ("--seed", "3")
    elif changed == "model":
        models.write(place / "model.safetensors", models.state(seed=7))
    elif changed == "check":
        own = place / "check_own.py"
        own.write_text(own.read_text().replace("at_most=4.0", "at_most=6.0"))
    else:
        (kept,) = (place / "cache" / "interrupted").iterdir()
        kept.write_text("{}")
    ended = scan(place, "--resume", *arguments)
    assert "no interrupted scan of this model with these options" in ended.stderr
    # Other weights or images can make a second reading of the file worth a scan.
    assert ran(place, "first") >= 2
    assert ended.returncode == (0 if changed == "check" else 1)


def test_rules_hold_for_what_was_kept_as_for_the_rest(place):
    """A failure that is kept is judged as severe as it is now."""
    ended = scan(place, "--resume", "--fail-on", "high")
    assert "resumed: OWN1" in ended.stderr
    assert ended.returncode == 0, ended


def test_it_is_for_one_model(place):
    models.write(place / "other.safetensors")
    ended = run("scan", "model.safetensors", "other.safetensors", *OWN, "--resume", cwd=place)
    assert ended.returncode == 2
    assert "--resume is for one model" in ended.stderr
