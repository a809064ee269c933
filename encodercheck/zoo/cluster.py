"""A Ray cluster as the worker: a task for each model, and never many more than can run.

Ray decides where a task runs, and starts another worker for one that has died. This process alone
keeps results: workers need no folder that it can see. Models given as paths are read by the worker,
and so are images, checks and nulls.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from encodercheck.errors import ConfigError
from encodercheck.weights.header import quoted
from encodercheck.zoo.measuring import Job, Known, Measured, Work, begin, measure
from encodercheck.zoo.queueing import PAUSE, Queue
from encodercheck.zoo.running import Died, Event, Events, Executor

AUTO, LOCAL = "auto", "local"
INSTALL = "--cluster needs Ray; install it: pip install 'encodercheck[cluster]'"
# As many wait as run, so that no worker waits for this process.
AHEAD = 2
# How long to wait for news before the size of the cluster is asked for again.
SECONDS = 5.0
# What workers are told of the environment here. No secrets: the cluster keeps it.
ENVIRONMENT = ("ENCODERCHECK_CACHE", "HF_HOME", "HF_HUB_OFFLINE", "HF_ENDPOINT")


@dataclass(frozen=True)
class Needs:
    """What a model takes of the cluster; None for the default, which depends on the device."""

    cpus: float | None = None
    gpus: float | None = None

    def settled(self, device: str, resources: dict[str, float]) -> Needs:
        """Return what it takes on a cluster with these resources.

        On a CPU two models on a core each take less time than one after the other on two; a GPU is
        for one model, which takes its memory for granted.
        """
        wants_gpu = device == "cuda" or (device == "auto" and resources.get("GPU", 0) > 0)
        gpus = (1.0 if wants_gpu else 0.0) if self.gpus is None else self.gpus
        return Needs(1.0 if self.cpus is None else self.cpus, gpus)

    def fitting(self, resources: dict[str, float]) -> int:
        """Return how many models run at a time on a cluster with these resources."""
        each = [
            resources.get(name, 0) / count
            for name, count in (("CPU", self.cpus), ("GPU", self.gpus))
            if count
        ]
        return int(min(each, default=1))


def cluster(address: str, needs: Needs = Needs()) -> Executor:
    """Return who scans models on the Ray cluster at ``address``.

    ``auto`` is the one that is running here, ``local`` one that is made for the run.

    Raises:
        ConfigError: Ray is not installed.
    """
    return partial(_scan, _library(), address, needs)


def _scan(ray: ModuleType, address: str, needs: Needs, work: Work, queue: Queue) -> Events:
    with _connected(ray, address):
        resources = ray.cluster_resources()
        needs = needs.settled(work.settings.device, resources)
        _require_room(needs, resources)
        cores = max(1, int(needs.cpus or 1))
        work = replace(work, threads=cores, place=str(Path.cwd()))
        task = ray.remote(num_cpus=needs.cpus, num_gpus=needs.gpus, max_retries=0)(scan_model)
        yield from _Tasks(ray, task, ray.put(work), needs, queue).run()


def scan_model(work: Work, job: Job) -> Known | Measured:
    """Run in a worker: scan a model."""
    global _ready
    cores = os.cpu_count() or 1
    work = replace(work, share=min(1.0, (work.threads or 1) / cores))
    # A worker does one task after the other.
    if _ready != work.ground:
        begin(work)
        _ready = work.ground
    return measure(work, job)


_ready = ""


class _Tasks:
    """The tasks under way."""

    def __init__(self, ray: ModuleType, task: Any, work: Any, needs: Needs, queue: Queue) -> None:
        self._ray, self._task, self._work = ray, task, work
        self._needs, self._queue = needs, queue
        self._running: dict[Any, Job] = {}
        self._most, self._asked = 1, 0.0

    def run(self) -> Events:
        """Yield how models end."""
        try:
            while self._queue or self._running:
                self._submit()
                if not self._running:
                    time.sleep(PAUSE)
                    continue
                done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=SECONDS)
                for ref in done:
                    yield self._running.pop(ref), self._result(ref)
        finally:
            for ref in self._running:
                with suppress(Exception):
                    self._ray.cancel(ref, force=True)

    def _submit(self) -> None:
        """Keep the cluster busy; it may have grown or shrunk meanwhile."""
        now = time.monotonic()
        if now - self._asked > SECONDS:
            self._asked = now
            self._most = max(1, AHEAD * self._needs.fitting(self._ray.cluster_resources()))
        while len(self._running) < self._most and (job := self._queue.take()) is not None:
            self._running[self._task.remote(self._work, job)] = job

    def _result(self, ref: Any) -> Event:
        faults = self._ray.exceptions
        try:
            result = self._ray.get(ref)
            assert isinstance(result, Known | Measured)
            return result
        except faults.OutOfMemoryError:
            return Died("was killed for want of memory", starved=True)
        except (faults.NodeDiedError, faults.LocalRayletDiedError):
            return Died("was on a machine that went away", gone=True)
        except faults.WorkerCrashedError:
            # The kernel's killer of what is out of memory leaves no other trace than a crash.
            return Died("died (out of memory, or a crash)", starved=True)
        except faults.RayTaskError as error:
            return Died(f"broke down: {_said(error.cause)}")
        except faults.RayError as error:
            return Died(f"was lost: {_said(error)}", gone=True)


def _require_room(needs: Needs, resources: dict[str, float]) -> None:
    """Demand that there is a chance for a model to be run, ever.

    Raises:
        ConfigError: it takes more than the cluster has.
    """
    if needs.fitting(resources) < 1:
        raise ConfigError(
            f"--cluster: a model takes {needs.cpus:g} CPUs and {needs.gpus:g} GPUs, the cluster "
            f"has {resources.get('CPU', 0):g} and {resources.get('GPU', 0):g}; lower "
            "--cpus-per-model or --gpus-per-model"
        )


@contextmanager
def _connected(ray: ModuleType, address: str) -> Iterator[None]:
    """Connect to a cluster, or make one, for the length of the block.

    Raises:
        ConfigError: there is none at the address.
    """
    if ray.is_initialized():
        # Started by the caller, who ends it.
        yield
        return
    # Nothing is told to anybody about a scan.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    passed = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    options: dict[str, Any] = {
        "address": address,
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": {"OMP_WAIT_POLICY": "PASSIVE", **passed}},
    }
    if address == LOCAL:
        options["include_dashboard"] = False
    try:
        _begun(ray, options)
    except Exception as error:
        raise ConfigError(
            f"--cluster {address}: cannot be reached ({_said(error)}); start one with `ray start "
            "--head`, or say --cluster local"
        ) from error
    try:
        # Ray prints of every worker that dies; its row says it.
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere):
            yield
    finally:
        ray.shutdown()


def _begun(ray: ModuleType, options: dict[str, Any]) -> None:
    """Connect; a cluster that was not up in time, as on a busy machine, may be the next time."""
    try:
        ray.init(**options)
    except Exception:
        if options["address"] != LOCAL:
            raise
        ray.shutdown()
        ray.init(**options)


def _library() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(INSTALL) from error
    library: ModuleType = ray
    return library


def _said(error: BaseException) -> str:
    line = str(error).strip().partition("\n")[0]
    return quoted(f"{type(error).__name__}: {line}", limit=200)
