"""Scans on a Ray cluster: what dies there costs one model, or none."""

import json
from pathlib import Path

import pytest
from clusters import Killer, two_nodes
from zoo_models import CRASHES, FAILS, FINE, KILLED, SLOW, ledger, scan, zoo

from encodercheck.errors import ConfigError
from encodercheck.zoo import cluster, keys
from encodercheck.zoo.cluster import Needs, _Tasks
from encodercheck.zoo.judging import Judge
from encodercheck.zoo.keeping import Keeper
from encodercheck.zoo.measuring import Job, Work
from encodercheck.zoo.queueing import Queue
from encodercheck.zoo.running import Run

ray = pytest.importorskip("ray")
# Ray's own threads end after it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.slow
def test_a_cluster_made_for_the_run(tmp_path):
    zoo(tmp_path, FINE, CRASHES, FAILS)
    (tmp_path / "zoo" / "broken.safetensors").write_bytes(b"nothing")
    options = ["--cluster", "local", "--out", "out", "--json", "-"]
    ended = scan(tmp_path, "zoo", *options)
    assert ended.returncode == 1, ended
    # Nothing of Ray's gets between.
    assert len(json.loads(ended.stdout)["reports"]) == 4
    found = {Path(str(entry["model"])).stem: entry for entry in ledger(tmp_path / "out")}
    outcomes = {name: entry["outcome"] for name, entry in found.items()}
    assert outcomes == {"broken": "error", "m0": "passed", "m1": "error", "m2": "failed"}
    notes = [path.read_text() for path in (tmp_path / "out").rglob("note.txt")]
    assert notes == ["kept"]
    assert "its worker died" in ended.stderr
    # What is known does not depend on who found it.
    ended = scan(tmp_path, "zoo", "--out", "out", "--jobs", "1")
    assert "2 of them known from before" in ended.stdout


@pytest.mark.slow
def test_a_node_that_dies_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = zoo(tmp_path, *([SLOW] * 8), FAILS)
    settings = keys.Settings(
        checks=(Path("check_fate.py"),), keyword="FATE", profile="quick", device="cpu"
    )
    with two_nodes() as kill:
        watcher = Killer(kill, after=2)
        work = Work(settings, keys.ground(settings))
        run = Run(names, work, Judge(), watcher, keeper=Keeper(tmp_path / "out"))
        run.go(cluster.cluster("auto", Needs(cpus=1)))
    assert watcher.killed
    entries = ledger(tmp_path / "out")
    assert sorted(entry["model"] for entry in entries) == names
    outcomes = {entry["model"]: entry["outcome"] for entry in entries}
    assert outcomes == dict.fromkeys(names, "passed") | {names[-1]: "failed"}
    assert run.exit_code == 1


class _Counting:
    """A Ray that counts what is pending; every task ends when it is waited for."""

    exceptions = ray.exceptions

    def __init__(self):
        self.pending, self.most, self.cancelled = set(), 0, []

    def remote(self, work, job):
        self.pending.add(job)
        self.most = max(self.most, len(self.pending))
        return job

    def wait(self, refs, num_returns, timeout):
        return refs[:1], refs[1:]

    def get(self, ref):
        self.pending.discard(ref)
        raise ray.exceptions.NodeDiedError("gone")

    def cluster_resources(self):
        return {"CPU": 4.0}

    def cancel(self, ref, force):
        self.cancelled.append(ref)


def test_no_more_tasks_wait_than_twice_what_runs():
    queue = Queue(Job(number, f"m{number}") for number in range(10_000))
    fake = _Counting()
    tasks = _Tasks(fake, fake, None, Needs(2, 0), queue)
    ended = [job.number for job, _ in tasks.run()]
    assert sorted(ended) == list(range(10_000))
    assert fake.most == 4


def test_who_stops_listening_cancels_what_runs():
    fake = _Counting()
    events = _Tasks(fake, fake, None, Needs(1, 0), Queue(Job(n, "m") for n in range(100))).run()
    next(events)
    events.close()
    assert len(fake.cancelled) == 7


def test_a_cluster_waits_for_what_others_have():
    theirs = {"m0", "m1"}

    def claim(job):
        claimed = None if job.model in theirs else job
        theirs.pop() if theirs and claimed is None else None
        return claimed

    queue = Queue((Job(number, f"m{number}") for number in range(3)), claim)
    fake = _Counting()
    ended = [job.number for job, _ in _Tasks(fake, fake, None, Needs(2, 0), queue).run()]
    assert sorted(ended) == [0, 1, 2]


def test_what_a_model_takes():
    gpus = {"CPU": 16.0, "GPU": 2.0}
    assert Needs().settled("auto", gpus) == Needs(1, 1)
    assert Needs().settled("cpu", gpus) == Needs(1, 0)
    assert Needs().settled("auto", {"CPU": 4.0}) == Needs(1, 0)
    assert Needs(2, 0.25).settled("cuda", gpus).fitting(gpus) == 8
    assert Needs(4, 0).fitting(gpus) == 4
    with pytest.raises(ConfigError, match="lower --cpus-per-model"):
        cluster._require_room(Needs(32, 0), gpus)


def test_an_address_where_there_is_none_is_one_line_and_two(tmp_path):
    zoo(tmp_path, FINE, KILLED)
    ended = scan(tmp_path, "zoo", "--cluster", "auto", RAY_ADDRESS="")
    assert ended.returncode == 2, ended
    assert "--cluster auto: cannot be reached" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
