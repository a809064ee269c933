"""``--fail-fast``: the cheapest checks first, and none after a failure that counts."""

import json
from datetime import date

import models
import pytest
from commands import run

import encodercheck
from encodercheck.known.waivers import ModelWaiver
from encodercheck.report import Outcome

# The dearest stands first, and leaves a file behind where it runs.
SUITE = """
import pathlib
import pytest

@pytest.mark.check("OWN1", severity="high", cost=3)
def check_dear(encoder):
    pathlib.Path("ran").touch()

@pytest.mark.check("OWN2", severity="low")
def check_plain(measure):
    measure("x", 5.0, at_most=4.0)

@pytest.mark.check("OWN3", severity="high", cost=0.5)
def check_cheap(measure):
    measure("y", 1.0, at_most=2.0)
"""
OWN = ("--checks", "check_own.py", "--select", "OWN*", "--profile", "quick", "--no-config")


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "check_own.py").write_text(SUITE)
    models.write(tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scan(**options):
    report = encodercheck.scan(
        "model.safetensors", checks=["check_own.py"], select=["OWN*"], profile="quick", **options
    )
    return report, {finding.id: finding for finding in report.findings}


def test_no_check_runs_after_a_failure(place):
    report, found = scan(fail_fast=True)
    assert [*found] == ["OWN3", "OWN2", "OWN1"]
    assert [found[id_].outcome for id_ in found] == [
        Outcome.PASSED,
        Outcome.FAILED,
        Outcome.INCONCLUSIVE,
    ]
    assert found["OWN1"].message == "not run: OWN2 failed before, see --fail-fast"
    assert not (place / "ran").exists()
    assert (report.exit_code, report.rules["fail_fast"]) == (1, True)


def test_without_it_every_check_runs_in_its_own_order(place):
    report, found = scan()
    assert [*found] == ["OWN1", "OWN2", "OWN3"]
    assert (place / "ran").exists()
    assert (report.exit_code, report.rules["fail_fast"]) == (1, False)


@pytest.mark.parametrize("excuse", ["fail_on", "waiver"])
def test_a_failure_that_does_not_count_ends_nothing(place, excuse):
    options = {"fail_on": "high"}
    if excuse == "waiver":
        sha256 = scan()[0].model["sha256"]
        (place / "ran").unlink()
        options = {"waivers": [ModelWaiver(sha256, "OWN2", "known", date.today())]}
    report, found = scan(fail_fast=True, **options)
    assert found["OWN1"].outcome is Outcome.PASSED
    assert (place / "ran").exists()
    assert report.exit_code == 0


def test_a_failure_in_one_folder_ends_the_checks_of_another(place):
    (place / "more").mkdir()
    (place / "more" / "check_more.py").write_text("def check_more():\n    open('more-ran', 'w')\n")
    report = encodercheck.scan(
        "model.safetensors",
        checks=["check_own.py", "more"],
        ignore=["EC*"],
        profile="quick",
        fail_fast=True,
    )
    assert {f.id for f in report.findings if f.outcome is Outcome.INCONCLUSIVE} == {"OWN1", "more"}
    assert not (place / "more-ran").exists()


def test_the_command_and_the_configuration_have_it(place):
    ended = run("scan", "model.safetensors", *OWN, "--fail-fast", "--json", "r.json", cwd=place)
    assert ended.returncode == 1, ended
    assert "--fail-fast" in ended.stdout
    assert json.loads((place / "r.json").read_text())["rules"]["fail_fast"] is True
    (place / "encodercheck.toml").write_text("fail-fast = true\n")
    ended = run("config", "--json", cwd=place)
    assert json.loads(ended.stdout)["values"]["fail-fast"] == {
        "value": True,
        "from": "encodercheck.toml",
    }


def test_what_was_not_run_is_run_once_the_failure_is_waived(place):
    """A result that is kept must not stand for checks that it has no outcome of."""
    kept = ("scan", "model.safetensors", *OWN[:-1], "--out", "kept", "--fail-fast")
    assert run(*kept, cwd=place).returncode == 1
    sha256 = scan()[0].model["sha256"]
    (place / "ran").unlink()
    (place / "encodercheck.toml").write_text(
        f'[[waivers]]\nmodel = "sha256:{sha256}"\ncheck = "OWN2"\nreason = "known"\n'
        f"expires = {date.today()}\n"
    )
    ended = run(*kept, cwd=place)
    assert ended.returncode == 0, ended
    assert (place / "ran").exists()
