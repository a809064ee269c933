"""Scan one model, wherever: in this process, in a worker's, or on another machine.

What comes back is all there is: nothing is written but in a temporary folder. Waivers and the like
are for ``judging.py``.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from encodercheck.errors import EncoderCheckError
from encodercheck.harness.outcome import describe
from encodercheck.report import Finding, Outcome, Report
from encodercheck.zoo import keys
from encodercheck.zoo.keys import Settings
from encodercheck.zoo.time_limit import limited

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "memoryerror")


@dataclass(frozen=True)
class Work:
    """What is the same for all models of a run.

    ``ground`` is the hash that their results rest on, ``known`` the keys of results that are there
    already. ``max_memory`` bounds the encoder at work, ``timeout`` the seconds that a model may
    take. ``threads`` is how many to compute with, and ``share`` which part of the machine's memory
    a worker may count on. Workers go to the folder ``place``, where there is one.
    """

    settings: Settings
    ground: str
    known: frozenset[str] = frozenset()
    max_memory: int | None = None
    timeout: float | None = None
    threads: int | None = None
    share: float = 1.0
    place: str = ""


@dataclass(frozen=True)
class Job:
    """A model to scan, the ``number``-th of the run; ``smaller`` batches after memory ran out.

    ``known`` are keys of results on it that came in while the run went on. A ``fresh`` job is
    measured although a result may be there.
    """

    number: int
    model: str
    known: frozenset[str] = frozenset()
    fresh: bool = False
    smaller: bool = False
    lost: int = 0
    """How often a machine went away under it."""


@dataclass(frozen=True)
class Known:
    """There is a result under this key already."""

    key: str


@dataclass(frozen=True)
class Measured:
    """What a scan has measured, and the files that checks left, by their path.

    Witnesses are named as the files are.
    """

    key: str
    report: Report
    files: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def ran_out_of_memory(self) -> bool:
        """Whether smaller batches might help."""
        return any(
            finding.outcome is Outcome.ERROR
            and any(sign in finding.message.lower() for sign in OUT_OF_MEMORY)
            for finding in self.report.findings
        )


def begin(work: Work) -> None:
    """Make a process a worker."""
    import torch

    from encodercheck.harness.runner import list_checks, suite

    if work.threads is not None:
        torch.set_num_threads(work.threads)
    # Where the folder is not there, paths are no such files, which their rows say.
    with suppress(OSError):
        os.chdir(work.place or ".")
    # What checks import takes seconds, which should be none of the first model's.
    with suppress(EncoderCheckError):
        list_checks(suite(work.settings.checks))


def measure(work: Work, job: Job) -> Known | Measured:
    """Return what is found on a model, or that it has been found before.

    Whatever is wrong with the model is in the report.

    Raises:
        KeyboardInterrupt: the user stopped the scan.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, limited(work.timeout) as limit:
        try:
            return _measure(work, job, Path(folder))
        except KeyboardInterrupt:
            if not limit.over:
                raise
            reason = f"{job.model}: took more than {work.timeout:g} s; allow more with --timeout"
        except EncoderCheckError as error:
            reason = str(error)
        except Exception as error:
            # A model's own code can break anything.
            reason = f"{job.model}: the scan broke down: {describe(error)}"
    return unreadable(work, job, reason, seconds=time.monotonic() - started)


def unreadable(work: Work, job: Job, reason: str, *, seconds: float = 0.0) -> Measured:
    """Return the result of a scan that did not come to an end, for this reason."""
    settings = work.settings
    report = Report.unreadable(
        job.model,
        reason,
        seed=settings.seed,
        device=settings.device,
        profile=settings.profile,
        seconds=seconds,
    )
    return Measured(keys.unreadable_key(work.ground, job.model), report)


def lost(work: Work, job: Job, reason: str) -> Measured:
    """Return the result of a model that took its worker with it."""
    again = " twice, the second time on smaller batches" if job.smaller else ""
    return unreadable(work, job, f"{job.model}: its worker {reason}{again}; scan it alone")


def _measure(work: Work, job: Job, folder: Path) -> Known | Measured:
    # Here, so that the driver of a cluster need not load them.
    from encodercheck import scanning
    from encodercheck.encoder import pick_device
    from encodercheck.weights.files import locate

    settings, started = work.settings, time.monotonic()
    unread = keys.unreadable_key(work.ground, job.model)
    if _is_known(work, job, unread):
        return Known(unread)
    kind = pick_device(settings.device).type
    files = locate(scanning.resolve(job.model))
    configs = keys.configs_sha256(files)

    def key(sha256: str) -> str:
        return keys.model_key(work.ground, sha256=sha256, configs=configs, device=kind)

    if work.known or job.known:
        found = key(keys.weights_sha256(files))
        if _is_known(work, job, found):
            return Known(found)
    state = scanning.prepare(
        job.model,
        **settings.preparing,
        artifacts=folder,
        max_memory=_max_memory(work, job, kind),
    )
    report = scanning.run(
        state,
        checks=settings.checks,
        keyword=settings.keyword,
        rules=settings.rules,
        started=started,
    )
    # The key is of the weights that were scanned, whatever lay there before.
    return Measured(key(report.model["sha256"]), *_collected(report, folder))


def _is_known(work: Work, job: Job, key: str) -> bool:
    return not job.fresh and (key in work.known or key in job.known)


def _collected(report: Report, folder: Path) -> tuple[Report, dict[str, bytes]]:
    """Return the report with witnesses named from the folder, and the files in that."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
    return moved(report, lambda path: Path(path).relative_to(folder).as_posix()), files


def moved(report: Report, place: Callable[[str], str]) -> Report:
    """Return the report with its witnesses where ``place`` says."""

    def move(finding: Finding) -> Finding:
        return (
            finding if finding.witness is None else replace(finding, witness=place(finding.witness))
        )

    return replace(report, findings=tuple(map(move, report.findings)))


def _max_memory(work: Work, job: Job, kind: str) -> int | None:
    """Return the bound on memory: half of what there was, where that was too much."""
    if not job.smaller:
        return work.max_memory
    return (work.max_memory or int(_memory(kind) * work.share)) // 2


def _memory(kind: str) -> int:
    """Return the bytes of the memory that encoders on this kind of device take."""
    if kind == "cuda":
        import torch

        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30
