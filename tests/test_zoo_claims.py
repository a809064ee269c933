"""Several runs on one folder of results: each model is scanned by one of them, whoever dies."""

import io
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from commands import COMMAND, environment
from rich.console import Console
from zoo_models import CHEAP, CRASHES, FAILS, FINE, WAITS, ledger, wait_for, zoo

from encodercheck.cli.live_zoo import watching
from encodercheck.zoo.claims import CLAIMS, Claims
from encodercheck.zoo.keeping import Keeper
from encodercheck.zoo.measuring import Job
from encodercheck.zoo.queueing import Queue

HOLD = """
import sys, time
from pathlib import Path
from encodercheck.zoo.claims import Claims
claims = Claims(Path(sys.argv[1]), "ground")
print(claims.take("a"), flush=True)
time.sleep(600)
"""


@pytest.fixture
def other(tmp_path):
    """Return another process, which has claimed the model "a"."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def test_a_claim_ends_with_its_process_however_that_ends(tmp_path, other):
    claims = Claims(tmp_path, "ground")
    assert not claims.take("a")
    assert claims.take("b")
    # Of other settings there are other results.
    assert Claims(tmp_path, "another ground").take("a")
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert claims.take("a")
    # What one has is not asked for twice, and nothing is left of it in the end.
    assert claims.take("a")
    claims.close()
    assert {path.name for path in (tmp_path / CLAIMS).iterdir()} <= {_other(tmp_path)}


def _other(folder):
    return Claims(folder, "another ground")._path("a").name


def test_a_model_given_up_can_be_claimed(tmp_path):
    first, second = Claims(tmp_path, "ground"), Claims(tmp_path, "ground")
    assert first.take("a")
    assert not second.take("a")
    first.release("a")
    first.release("never claimed")
    assert second.take("a")
    assert not first.take("a")


def test_where_nothing_can_be_claimed_everything_is_scanned(tmp_path, monkeypatch):
    claims = Claims(tmp_path, "ground")
    (tmp_path / CLAIMS).rmdir()
    (tmp_path / CLAIMS).write_text("no folder")
    assert claims.take("a")
    claims.release("a")
    # Files that are open at a time are few.
    monkeypatch.setattr("encodercheck.zoo.claims.MOST", 0)
    assert Claims(tmp_path / "more", "ground").take("a")
    assert not list((tmp_path / "more" / CLAIMS).iterdir())


def test_what_others_have_is_left_for_later():
    theirs, told = {"a", "b"}, []
    queue = Queue(
        (Job(number, model) for number, model in enumerate("abc")),
        lambda job: None if job.model in theirs else job,
        told.append,
    )
    assert queue.take().model == "c"
    assert (queue.take(), queue.take(), len(queue), told) == (None, None, 2, [2])
    theirs.discard("b")
    assert queue.take().model == "b"
    theirs.clear()
    assert queue.take().model == "a"
    assert (queue.take(), len(queue), told) == (None, 0, [2])


def test_who_waits_says_so():
    screen = Console(file=io.StringIO(), width=100)
    with watching(screen, 5) as watcher:
        watcher.waiting(2)
        watcher.waiting(1)
    told = screen.file.getvalue().splitlines()
    assert told[0] == "another run on this folder has 2 more models under way; waiting"
    assert told[1] == "another run on this folder has 1 more model under way; waiting"


def test_what_has_come_in_meanwhile(tmp_path):
    from test_zoo_results import keep

    from encodercheck.report import Outcome

    keep(Keeper(tmp_path), "m", "a")
    mine, theirs = Keeper(tmp_path), Keeper(tmp_path)
    assert mine.since("m") == frozenset()
    keep(theirs, "m", "b", Outcome.ERROR)
    keep(theirs, "n", "c")
    mine.refresh()
    assert mine.since("m") == {"b" * 64}


def begun(folder, *options):
    """Return a run that has begun on the models in ``zoo``."""
    return subprocess.Popen(
        [*COMMAND, "scan", "zoo", "--out", "out", *options, *CHEAP],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def measured(output):
    """Return how many models the table of a run has, and how many of them it measured itself."""
    (models,) = re.findall(r"  (\d+) models?: ", output)
    known = re.findall(r"(\d+) of them known from before", output)
    return int(models), int(models) - int(*known or [0])


def under_way(folder, count):
    """Wait until so many models are claimed on the folder."""
    for _ in range(2400):
        if len(list((folder / "out").glob(f"{CLAIMS}/*"))) >= count:
            return
        time.sleep(0.05)
    pytest.fail("no run has begun")


def test_two_runs_share_their_models(tmp_path):
    names = zoo(tmp_path, WAITS, WAITS, WAITS, FINE, FAILS, FINE, CRASHES)
    (tmp_path / "zoo" / "m7.safetensors").write_bytes(b"nothing")
    # What is there already is measured again, and what comes in meanwhile is not.
    runs = [begun(tmp_path, "--jobs", "1"), begun(tmp_path, "--jobs", "2", "--no-cache")]
    under_way(tmp_path, 3)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=200)[0] for process in runs]
    assert [process.returncode for process in runs] == [1, 1], outputs
    found = sorted((entry["model"], entry["outcome"]) for entry in ledger(tmp_path / "out"))
    fates = ["passed"] * 4 + ["failed", "passed", "error", "error"]
    assert found == list(zip([*names, "zoo/m7.safetensors"], fates, strict=True))
    told = [measured(output) for output in outputs]
    assert [models for models, _ in told] == [8, 8], outputs
    assert sum(own for _, own in told) == 8, outputs
    assert not list((tmp_path / "out" / CLAIMS).iterdir())


def test_a_run_that_is_killed_leaves_its_models_to_the_other(tmp_path):
    names = zoo(tmp_path, FINE, FAILS, WAITS, WAITS, WAITS, FINE)
    first = begun(tmp_path, "--jobs", "2")
    wait_for(tmp_path / "out" / "ledger.jsonl", 2)
    under_way(tmp_path, 2)
    second = begun(tmp_path)
    under_way(tmp_path, 3)
    first.send_signal(signal.SIGKILL)
    first.wait()
    (tmp_path / "go").touch()
    output, _ = second.communicate(timeout=200)
    assert second.returncode == 1, output
    found = sorted((entry["model"], entry["outcome"]) for entry in ledger(tmp_path / "out"))
    assert found == list(zip(names, ["passed", "failed"] + ["passed"] * 4, strict=True))
    assert measured(output) == (6, 4)


@pytest.mark.slow
def test_a_cluster_and_a_process_share_their_models(tmp_path):
    pytest.importorskip("ray")
    names = zoo(tmp_path, *([WAITS] * 8), FAILS, CRASHES)
    first = begun(tmp_path, "--cluster", "local")
    under_way(tmp_path, 1)
    second = begun(tmp_path, "--jobs", "1")
    # As many as run on the cluster wait there, too.
    under_way(tmp_path, 2 * len(os.sched_getaffinity(0)) + 1)
    (tmp_path / "go").touch()
    outputs = [process.communicate(timeout=200)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [1, 1], outputs
    assert sorted(entry["model"] for entry in ledger(tmp_path / "out")) == sorted(names)
