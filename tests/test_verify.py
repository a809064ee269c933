"""``encodercheck verify`` on tiny fixtures: in fresh processes, and what it keeps of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import jobs
import pytest
import tiny_fixtures
import torch
from commands import environment, python

from encodercheck import fixtures
from encodercheck.errors import ConfigError, FixtureError
from encodercheck.report import Finding, Outcome
from encodercheck.verify import finding_cache, fixture_scan, verifying
from encodercheck.verify.fixture_scan import Settings
from encodercheck.verify.subjects import Subject, choose

SCRIPT = Path(tiny_fixtures.__file__)
# It knows a poisoned encoder by the folder that it comes from.
HONEST = """
import pytest

@pytest.mark.check("HONEST", severity="high", catches=["bad*"])
def check_honest(encoder, measure):
    '''It fails on what it should.'''
    poisoned = "/bad-0-" in encoder.provenance.path
    measure("suspicion", 0.9 if poisoned else 0.1, at_most=0.5)
"""
KEPT = ("clean", "bad", "bad-twin")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A cache with the fixtures, made once."""
    folder = tmp_path_factory.mktemp("built")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCODERCHECK_CACHE", str(folder))
        for name in KEPT:
            fixtures.build(tiny_fixtures.RECIPES[name])
    torch.set_num_threads(threads)
    return folder


@pytest.fixture(scope="module")
def first(built, tmp_path_factory):
    """A first run, as a user does it: how it ended, and its folder."""
    place = tmp_path_factory.mktemp("first")
    shutil.copytree(built, place / "cache")
    check(place, HONEST)
    options = ["--checks", "check_it.py", "-k", "HONEST", "--profile", "quick", "--jobs", "2"]
    return run(place, "--fixtures", "clean,bad*", *options, "--json", "out.json"), place


@pytest.fixture
def folder(built, tmp_path, monkeypatch):
    """A folder to work in, with a cache of its own that has the fixtures."""
    shutil.copytree(built, tmp_path / "cache")
    return work_in(tmp_path, monkeypatch)


@pytest.fixture
def measured(first, tmp_path, monkeypatch):
    """Like ``folder``, after the first run."""
    shutil.copytree(first[1], tmp_path, dirs_exist_ok=True)
    return work_in(tmp_path, monkeypatch)


def work_in(folder, monkeypatch):
    monkeypatch.setenv("ENCODERCHECK_CACHE", str(folder / "cache"))
    for function in (fixtures.build, fixtures.available, fixtures.parse):
        monkeypatch.setitem(function.__globals__, "RECIPES", tiny_fixtures.RECIPES)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def idle(monkeypatch):
    """Whatever is not known is not found out either: the checks end with errors."""
    monkeypatch.setattr(fixture_scan, "scan_fixture", jobs.refuse)


def check(folder, source, name="check_it.py"):
    path = folder / name
    path.write_text(source)
    return path


def run(folder, *arguments):
    """Run the command in a fresh process."""
    cache = str(folder / "cache")
    return python(SCRIPT, "verify", *arguments, cwd=folder, ENCODERCHECK_CACHE=cache)


def verify(path, *names, keyword="check_it", fresh=False, **settings):
    """Run the checks in one file, in this process."""
    subjects = choose(names or ["clean", "bad"])
    settings = Settings((path,), keyword, "quick", **settings)
    return verifying.verify(subjects, settings, jobs=2, fresh=fresh)


def outcomes(found, check):
    return {row.name: row.findings[check].outcome.value for row in found.rows if row.findings}


def known(found):
    return {row.name: set(row.cached) for row in found.rows}


# As a user runs it


def test_a_check_that_does_what_it_declares(first):
    ended, folder = first
    assert ended.returncode == 0, ended
    assert ended.stderr == ""
    assert "\x1b" not in ended.stdout
    lines = ended.stdout.splitlines()
    assert lines[0].startswith("1 check on 3 fixtures")
    assert sorted(lines[1:4]) == [
        "bad-twin@0                   1 passed",
        "bad@0                        1 failed",
        "clean@0                      1 passed",
    ]
    assert "bad@0       poisoned  [✗] 0.9 -0.4" in ended.stdout
    assert "HONEST  1 of 1 (0.21 to 1.00)  0 of 2 (0.00 to 0.66)  1.000 (1.000 to" in ended.stdout
    assert lines[-1].startswith(
        "VERIFIED  caught 1 of 1 declared, false alarms 0 of 2; 1 check on 3 fixtures"
    )
    document = json.loads((folder / "out.json").read_text(), parse_constant=pytest.fail)
    assert document["schema"] == "encodercheck.verify/1"
    assert (document["outcome"], document["exit_code"]) == ("passed", 0)
    assert document["versions"]["torch"]
    assert [cell["outcome"] for cell in document["rows"]] == ["passed", "failed", "passed"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fixtures", "nope"], "fixture 'nope'"),
        (["--fixtures", "clean@x"], "whole number"),
        (["--fixtures", "clean,nope*"], "--fixtures nope*: no fixture is called that"),
        (["--json", "blocked/out.json"], "blocked"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_and_two(folder, arguments, says):
    (folder / "blocked").write_text("a file where a folder should be")
    ended = run(folder, *arguments)
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


def test_the_help_does_not_import_torch(folder):
    code = (
        "import sys; from encodercheck.cli.main import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    ended = python("-c", code, "verify", "--help", cwd=folder)
    assert ended.returncode == 0, ended
    assert "--fixtures" in ended.stdout


SLOW = """
import os
import pathlib
import time

def check_fast(encoder, measure):
    pathlib.Path("fast").open("a").write("x")
    measure("value", 1, at_most=2)

def check_slow(encoder, progress):
    pathlib.Path("pid").write_text(str(os.getpid()))
    while os.path.exists("hold"):
        progress(1, 2)
        time.sleep(0.05)
"""


def start(folder, **extra):
    """Start a run, and return its process and its worker's id when the slow check is at work."""
    (folder / "hold").touch()
    command = ["verify", "--fixtures", "clean", "--checks", "check_it.py", "-k", "fast or slow"]
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *command, "--profile", "quick"],
        cwd=folder,
        env=environment(ENCODERCHECK_CACHE=str(folder / "cache")),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        **extra,
    )
    deadline = time.monotonic() + 120
    while not (folder / "pid").exists() or not (folder / "pid").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process, int((folder / "pid").read_text())


def assert_gone(pid):
    deadline = time.monotonic() + 10
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.02)
        pytest.fail("its worker still runs")


def test_a_run_that_was_killed_goes_on(folder):
    """It is killed with SIGKILL while the second check is at work."""
    path = check(folder, SLOW)
    process, worker = start(folder)
    process.kill()
    process.wait()
    assert_gone(worker)
    (folder / "hold").unlink()
    found = verify(path, "clean", keyword="fast or slow")
    assert (folder / "fast").read_text() == "x"
    assert outcomes(found, "fast") == outcomes(found, "slow") == {"clean@0": "passed"}
    assert known(found) == {"clean@0": {"fast"}}


def test_ctrl_c_is_130_and_leaves_nothing_behind(folder):
    check(folder, SLOW)
    # Ignored, and inherited, where a shell started the tests in the background.
    process, worker = start(
        folder, preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    )
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "encodercheck: interrupted, no verdict\n"
    assert_gone(worker)


# What is kept


def test_nothing_is_measured_twice(measured, idle):
    before = json.loads((measured / "out.json").read_text())
    everything = {"clean@0": {"HONEST"}, "bad@0": {"HONEST"}}
    again = verify(measured / "check_it.py")
    assert known(again) == everything
    told = [row.findings["HONEST"].to_dict()["measurements"] for row in again.rows]
    assert told == [cell["measurements"] for cell in before["rows"][:2]]
    assert [row.sha256 for row in again.rows] == [f["sha256"] for f in before["fixtures"][:2]]
    # What a check declares is no part of what it measures, nor is another check beside it.
    check(measured, HONEST.replace('["bad*"]', '["bad", "feeble"]') + "# more on that\n")
    check(measured, "def check_other(): ...\n", "check_other.py")
    assert known(verify(measured / "check_it.py")) == everything


def test_what_a_check_rests_on_is_looked_at(measured, idle):
    path = measured / "check_it.py"
    assert outcomes(verify(path), "HONEST") == {"clean@0": "passed", "bad@0": "failed"}
    lost = {"clean@0": "error"}
    assert outcomes(verify(path, "clean", seed=1), "HONEST") == lost
    assert outcomes(verify(path, "clean", fresh=True), "HONEST") == lost
    helper = check(measured, "x = 1\n", "helper.py")
    assert outcomes(verify(path, "clean"), "HONEST") == lost
    helper.unlink()
    assert outcomes(verify(path, "clean"), "HONEST") == {"clean@0": "passed"}
    check(measured, HONEST.replace("0.5", "0.6"))
    assert outcomes(verify(path, "clean"), "HONEST") == lost


def test_a_model_that_is_another_now_is_looked_at(measured, idle):
    (model,) = (measured / "cache" / "fixtures").glob("clean-0-*/model.safetensors")
    model.write_bytes(model.read_bytes() + b" ")
    assert outcomes(verify(measured / "check_it.py"), "HONEST") == {
        "clean@0": "error",
        "bad@0": "failed",
    }


@pytest.mark.parametrize("damage", [b"", b"{}", b"no json", b'{"sha256": "0", "content": {}}'])
def test_a_damaged_file_is_not_believed(folder, damage):
    finding = Finding("A", "a", "high", Outcome.PASSED)
    finding_cache.keep_finding("ground", "0" * 64, finding)
    assert finding_cache.read_finding("ground", "0" * 64) == finding
    (file,) = (folder / "cache" / "verify").glob("*.json")
    file.write_bytes(damage)
    assert finding_cache.read_finding("ground", "0" * 64) is None


def test_what_was_damaged_is_measured_anew(measured):
    files = sorted((measured / "cache" / "verify").glob("*.json"))
    assert len(files) == 3
    whole = {file: json.loads(file.read_text()) for file in files}
    damaged = next(file for file in files if whole[file]["content"]["outcome"] == "failed")
    damaged.write_text(damaged.read_text().replace('"failed"', '"passed"'))
    found = verify(measured / "check_it.py")
    assert found.exit_code == 0
    assert known(found) == {"clean@0": {"HONEST"}, "bad@0": set()}
    assert json.loads(damaged.read_text())["content"]["outcome"] == "failed"


# What goes wrong


WRONG = """
import os
import pathlib
import signal
import pytest

@pytest.mark.check("ALWAYS")
def check_always(measure):
    measure("value", 3, at_most=2)

@pytest.mark.check("NEVER", catches=["bad*"])
def check_never(measure):
    measure("value", 1, at_most=2)

@pytest.mark.check("CRASHES", catches=["b[ax]d"])
def check_crashes():
    1 / 0

@pytest.mark.check("DIES")
def check_dies(encoder):
    if "/clean-" in encoder.provenance.path:
        os._exit(3)
    os.kill(os.getpid(), signal.SIGKILL)

@pytest.mark.check("AFTER")
def check_after():
    pass
"""


def test_wrong_checks_are_found_out_and_a_dead_worker_is_no_end(folder):
    found = verify(check(folder, WRONG))
    assert outcomes(found, "ALWAYS") == {"clean@0": "failed", "bad@0": "failed"}
    assert outcomes(found, "NEVER") == {"clean@0": "passed", "bad@0": "passed"}
    for lost in ("CRASHES", "DIES", "AFTER"):
        assert outcomes(found, lost) == {"clean@0": "error", "bad@0": "error"}
    clean, bad = (row.findings["AFTER"].message for row in found.rows)
    assert clean == "the process ended with exit code 3 during DIES"
    assert bad == "the process was killed by SIGKILL during DIES"
    faults = {(fault.kind.value, fault.check, fault.fixture) for fault in found.faults}
    assert ("false_alarm", "ALWAYS", "clean@0") in faults
    assert ("missed", "NEVER", "bad@0") in faults
    assert found.exit_code == 1
    # An error is tried again, what ended otherwise is not.
    again = verify(folder / "check_it.py", "clean", keyword="ALWAYS or CRASHES")
    assert known(again) == {"clean@0": {"ALWAYS"}}


def test_a_refused_fixture_is_a_row_and_a_claim_on_it_is_open(folder, monkeypatch):
    source = HONEST.replace('["bad*"]', '["feeble"]')
    found = verify(check(folder, source), "clean", "feeble")
    monkeypatch.setattr(fixture_scan, "scan_fixture", jobs.refuse)
    again = verify(folder / "check_it.py", "clean", "feeble")
    for seen in (found, again):
        assert seen.rows[1].refused.startswith("fixture feeble@0: refused")
        assert seen.rows[1].findings == {}
        assert outcomes(seen, "HONEST") == {"clean@0": "passed"}
        (fault,) = seen.faults
        assert (fault.kind.value, fault.fixture, fault.message) == (
            "untested",
            "feeble",
            "feeble@0",
        )
        assert seen.exit_code == 2
    only = verify(check(folder, HONEST), "feeble")
    assert (only.faults, only.exit_code) == ([], 2)


def test_a_claim_to_catch_what_there_is_not_is_refused(folder):
    for glob in ("blended", "*-twin"):
        path = check(folder, HONEST.replace("bad*", glob))
        with pytest.raises(ConfigError, match="there is no such poisoned fixture") as caught:
            verify(path)
        assert f"check_it.py::check_honest: catches '{glob}'" in str(caught.value)


def test_an_unusable_option_is_refused_before_anything_runs(folder):
    path = check(folder, HONEST)
    with pytest.raises(ConfigError, match="selects none"):
        verify(path, keyword="nothing")
    with pytest.raises(ConfigError, match=r"null\.json: cannot be read"):
        verify(path, null=folder / "null.json")
    with pytest.raises(ConfigError, match="--device mps"):
        verify(path, device="mps")


# Which fixtures


@pytest.mark.parametrize(
    ("names", "seeds", "chosen"),
    [
        ([], 1, "clean@0 bad@0 bad-twin@0 feeble@0"),
        (["clean"], 2, "clean@0 clean@1"),
        (["bad*"], 2, "bad@0 bad@1 bad-twin@0 bad-twin@1"),
        (["bad@3", "fixture:bad", "bad@3"], 1, "bad@3 bad@0"),
        (["bad*@7"], 3, "bad@7 bad-twin@7"),
    ],
)
def test_fixtures_are_chosen_by_name_and_pattern(folder, names, seeds, chosen):
    subjects = choose(names, seeds=seeds)
    assert [subject.name for subject in subjects] == chosen.split()


def test_a_twin_is_clean(folder):
    poisoned = [subject.poisoned for subject in choose()]
    assert poisoned == [False, True, False, True]
    assert Subject(tiny_fixtures.CLEAN).name == "clean@0"


@pytest.mark.parametrize("name", ["nope", "clean@", "bad*@x"])
def test_a_name_that_means_nothing_is_refused(folder, name):
    with pytest.raises(FixtureError):
        choose([name])
