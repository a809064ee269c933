"""From what pytest saw of a check to its finding."""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from encodercheck.errors import CheckFailed, CheckInconclusive, EncoderCheckError
from encodercheck.harness.listener import CheckInfo
from encodercheck.harness.record import CheckRecord
from encodercheck.report import Finding, Outcome

# A failing check stays failed when its teardown crashes too, but a crash is no pass.
GRAVITY = (Outcome.FAILED, Outcome.ERROR, Outcome.INCONCLUSIVE, Outcome.PASSED)
LONGEST_MESSAGE = 500
VERDICTS = (AssertionError, pytest.fail.Exception)


@dataclass(frozen=True)
class Phase:
    """How the setup, the call or the teardown of a check ended."""

    outcome: Outcome
    message: str = ""
    details: str = ""


def judge(call: pytest.CallInfo[None], report: pytest.TestReport) -> Phase:
    """Classify one phase by the exception that ended it.

    pytest's own outcome cannot tell a crash from a failure: both are ``failed``.
    """
    error = call.excinfo.value if call.excinfo else None
    if error is None:
        return _without_exception(report)
    if isinstance(error, EncoderCheckError):
        return Phase(Outcome.ERROR, first_line(error))
    if isinstance(error, CheckFailed):
        return Phase(Outcome.FAILED, first_line(error))
    if isinstance(error, CheckInconclusive):
        return Phase(Outcome.INCONCLUSIVE, first_line(error))
    if report.skipped:
        reason = getattr(report, "wasxfail", "").removeprefix("reason: ")
        return Phase(Outcome.INCONCLUSIVE, first_line(reason or error))
    if isinstance(error, VERDICTS) and call.when == "call":
        message = first_line(error) or _failing_line(error)
        return Phase(Outcome.FAILED, message, details_of(report))
    if isinstance(error, SystemExit):
        return Phase(
            Outcome.ERROR, f"the check called sys.exit({error.code!r})", details_of(report)
        )
    return Phase(Outcome.ERROR, describe(error), details_of(report))


def conclude(
    info: CheckInfo, record: CheckRecord, phases: Sequence[Phase], seconds: float
) -> Finding:
    """Add up the phases of a check and what it measured."""
    worst = min(phases, key=lambda phase: GRAVITY.index(phase.outcome))
    outcome, message = worst.outcome, worst.message
    undecided = outcome in (Outcome.PASSED, Outcome.INCONCLUSIVE)
    # Reached by what happens outside of the check's own body, in its fixtures.
    if undecided and record.fault is not None:
        outcome, message = Outcome.ERROR, first_line(record.fault)
    elif undecided and record.shortfall:
        outcome, message = Outcome.FAILED, record.shortfall
    if outcome is Outcome.ERROR and record.shortfall:
        message += f" (after {record.shortfall})"
    elif outcome in (Outcome.FAILED, Outcome.PASSED):
        message = record.sentence or message
    return Finding(
        id=info.id,
        check=info.check,
        severity=info.severity,
        outcome=outcome,
        message=message,
        seconds=seconds,
        measurements=tuple(record.measurements),
        witness=record.witness,
        title=info.title,
        exhibits=record.shown,
        details="\n\n".join(phase.details for phase in phases if phase.details),
    )


def not_reported(info: CheckInfo, reason: str) -> Finding:
    """Return the finding of a check that was collected and never heard of again."""
    message = f"did not report: {reason}" if reason else "did not report"
    return Finding(info.id, info.check, info.severity, Outcome.ERROR, message, title=info.title)


def first_line(text: object) -> str:
    """Return the first line of a message that says something, cut where it runs on."""
    lines = (line.strip() for line in str(text).splitlines())
    line = next((line for line in lines if line), "")
    return line if len(line) <= LONGEST_MESSAGE else line[: LONGEST_MESSAGE - 1] + "…"


def describe(error: BaseException) -> str:
    """Return one line for an exception that is no verdict, as ``TypeError: ...``."""
    if isinstance(error, pytest.FixtureLookupError):
        return f"there is no fixture called {error.argname!r}"
    text = first_line(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def details_of(report: pytest.TestReport) -> str:
    """Return the traceback and what the check printed."""
    sections = [f"{title.strip()}:\n{content}" for title, content in report.sections]
    return "\n\n".join([report.longreprtext, *sections]).rstrip()


def _without_exception(report: pytest.TestReport) -> Phase:
    # A strict xfail that passes fails without an exception.
    if report.failed:
        return Phase(Outcome.FAILED, first_line(report.longreprtext), details_of(report))
    return Phase(Outcome.PASSED)


def _failing_line(error: BaseException) -> str:
    """Return the source of an ``assert`` that has no message of its own."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "assertion failed"
    source = linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).strip()
    return source or "assertion failed"
