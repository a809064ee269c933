"""The verdict in a sentence or two, for who wants to use the encoder: what it means, what to do."""

from __future__ import annotations

from encodercheck.render.words import excuse, printable
from encodercheck.report import UNREADABLE, Finding, Outcome, Report


def conclusion(report: Report) -> str:
    """Say what a verdict means; it never sounds better than the exit code."""
    failed = _first(report, Outcome.FAILED)
    if failed is not None and failed.witness:
        return (
            f"This encoder reacts to a hidden trigger: {_told(failed)}. "
            "Do not use it before the trigger is explained."
        )
    if failed is not None:
        return f"{_named(failed)} failed. Do not use the encoder before the cause is known."
    error = _first(report, Outcome.ERROR)
    if error is not None and error.id == UNREADABLE:
        return f"It is not known whether the encoder is safe: {_told(error)}."
    if error is not None:
        return f"It is not known whether the encoder is safe: {_named(error)} could not be run."
    if report.exit_code:
        doubt = _first(report, Outcome.INCONCLUSIVE)
        what = f"{_named(doubt)} could not decide" if doubt is not None else "nothing was decided"
        return f"It is not known whether the encoder is safe: {what}."
    excused = [f for f in report.findings if f.outcome is Outcome.FAILED]
    if excused:
        ids = ", ".join(printable(f.id) for f in excused)
        return f"{ids} failed, which does not count ({excuse(excused[0])}). Nothing else was found."
    if not any(f.searches and f.outcome is Outcome.PASSED for f in report.findings):
        return "The checks that ran found nothing. None of them searched for a trigger."
    return (
        "No trigger was found that makes images as alike as in backdoored encoders. "
        "That is no proof that there is none."
    )


def _first(report: Report, outcome: Outcome) -> Finding | None:
    """Return a finding with an outcome that counts: one with a witness before others."""
    found = [f for f in report.findings if f.outcome is outcome and f.counts]
    return min(found, key=lambda f: f.witness is None, default=None)


def _named(finding: Finding) -> str:
    told = _told(finding)
    return f"{printable(finding.id)} ({told})" if told else printable(finding.id)


def _told(finding: Finding) -> str:
    return printable(finding.message).rstrip(".")
