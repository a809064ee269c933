"""What all formats say alike: numbers, untrusted names, verdicts, and what to do next."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from encodercheck.config import rules
from encodercheck.report import Direction, Finding, Measurement, Outcome, Report, read_with

if TYPE_CHECKING:
    from encodercheck.memory import Memory

UNDECIDED = "no trigger search could decide"
"""Why a scan has no verdict although checks passed."""
EXCUSED = ("waived", "not counted")
"""What a failure that does not count is called."""


def number(value: float) -> str:
    """Return a value with three significant digits; whole numbers as they are."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e6:
        return str(int(value))
    # Never round a value up to the limit that it misses.
    return f"{value:.4f}" if 0.99 <= value < 1 else f"{value:.3g}"


def counted(count: int, thing: str) -> str:
    """Return so many of a thing.

    >>> counted(1, "model"), counted(0, "other difference"), counted(5000, "row")
    ('1 model', '0 other differences', '5,000 rows')
    """
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def printable(text: object) -> str:
    """Return text with control characters escaped: names come from untrusted files."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def cut(text: object, most: int) -> str:
    """Return text that is printable, and at most so many characters long."""
    # What is left out costs nothing.
    shown = printable(str(text)[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def quoted(text: str) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(printable(text))


def subject(model: dict[str, Any]) -> str:
    """Return what a command line names the model by; a black box has a spec and no file."""
    return f"{'--arch ' if is_black_box(model) else ''}{quoted(model['path'])}"


def is_black_box(model: dict[str, Any]) -> bool:
    """Tell whether the model is a callable that is asked, and no file."""
    return str(model["architecture"]) == f"black box {model['path']}"


def is_known(model: dict[str, Any]) -> bool:
    """Tell whether the model could be read; all that embeds has embeddings of some length."""
    return bool(model["embedding_dim"])


def replay_command(report: Report) -> str | None:
    """Return the command that shows a trigger work again; None where there is no witness."""
    # What still counts first.
    found = sorted((f for f in report.findings if f.witness), key=lambda f: not f.counts)
    return replay_command_of(report, found[0]) if found else None


def replay_command_of(report: Report, finding: Finding) -> str:
    """Return the command that shows the trigger of a finding with a witness work again."""
    command = f"encodercheck replay {quoted(finding.witness or '')} {subject(report.model)}"
    options = report.model.get("read_also_with", "")
    if options and finding.message.startswith(read_with(options)):
        command += f" {printable(options)}"
    return command


def scan_command(report: Report) -> str:
    """Return the command that makes a report again, as far as the report knows it."""
    options = [f"--profile {report.profile}", f"--seed {report.seed}"]
    options += ["--strict"] if report.strict else []
    return printable(" ".join(["encodercheck scan", subject(report.model), *options]))


def verdict(report: Report) -> str:
    """Return the verdict in capitals; it never sounds better than the exit code."""
    if is_undecided(report):
        return f"NO VERDICT ({UNDECIDED})"
    if report.outcome in (Outcome.INCONCLUSIVE, Outcome.ERROR):
        return f"NO VERDICT ({report.outcome})"
    if report.outcome is Outcome.PASSED and report.exit_code:
        return "NO VERDICT (--strict)"
    return str(report.outcome.value).upper()


def is_undecided(report: Report) -> bool:
    """Tell whether there is no verdict because no trigger search could decide."""
    return report.outcome is Outcome.INCONCLUSIVE and not report.searched


def overall_exit_code(reports: Sequence[Report]) -> int:
    """Return the exit code of a scan of several models: a failure outweighs a missing verdict."""
    codes = [report.exit_code for report in reports]
    return 1 if 1 in codes else max(codes, default=2)


def tally(findings: Iterable[Finding]) -> str:
    """Say how many checks ended how, as "6 passed, 1 failed, 1 waived"."""
    counts = Counter(f.outcome.value if f.counts else excused(f) for f in findings)
    order = (*(outcome.value for outcome in Outcome), *EXCUSED)
    return ", ".join(f"{counts[word]} {word}" for word in order if counts[word]) or "nothing ran"


def status(finding: Finding) -> str:
    """Say how a check ended, as "failed (waived until 2027-01-01: a false alarm)"."""
    if finding.counts:
        return finding.outcome.value
    return f"{finding.outcome} ({excuse(finding)})"


def excused(finding: Finding) -> str:
    """Return a word for a failure that does not count: one of ``EXCUSED``."""
    return EXCUSED[0] if finding.waiver is not None else EXCUSED[1]


def excuse(finding: Finding) -> str:
    """Say why a failure does not count, as "waived until 2027-01-01: a false alarm"."""
    if finding.waiver is not None:
        return f"waived until {finding.waiver.expires}: {printable(finding.waiver.reason)}"
    return f"severity {printable(finding.severity)}: not counted"


def measured(measurement: Measurement) -> str:
    """Return a value against its limit, as "gain 0.997 (at most 0.9)"."""
    return f"{printable(measurement.name)} {number(measurement.value)}{bound(measurement)}"


def bound(measurement: Measurement) -> str:
    """Return the limit of a measurement, as " (at most 0.9)"; empty where it has none."""
    if measurement.limit is None:
        return ""
    side = "at least" if measurement.direction is Direction.AT_LEAST else "at most"
    return f" ({side} {number(measurement.limit)})"


def memory(used: Memory) -> str:
    """Say what a scan used at most, as "peak memory 1.92 GB, of which weights 1.22 GB"."""
    peak = "unknown" if used.peak_bytes is None else size(used.peak_bytes)
    if used.device_peak_bytes is not None:
        peak += f"; on the device {size(used.device_peak_bytes)}"
    return f"peak memory {peak}, of which weights {size(used.weights_bytes)}"


def size(count: int) -> str:
    """Return a number of bytes in GB, or in MB where that is less than one."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def facts(report: Report) -> list[tuple[str, str]]:
    """Return what a scan was of and with, as names and values; what is not known is left out."""
    model, images = report.model, report.images
    found_by = f"{model['architecture']}, known by: {model['provenance']}"
    known = [
        ("architecture", found_by if is_known(model) else ""),
        ("sha256", model["sha256"]),
        ("parameters", model["parameters"]),
        ("image size", model["image_size"]),
        ("embedding", model["embedding_dim"]),
        ("preprocessing", model.get("preprocessing")),
        *(("the file's own claim", claim) for claim in model.get("claims", ())),
        *(("note", note) for note in model.get("notes", ())),
        ("images", f"{images['count']} {images['source']}" if images["count"] else ""),
        ("compared with", report.compared_with),
        ("suspicion", report.suspicion.sentence() if report.suspicion is not None else ""),
        ("rules", rules.sentence(report.rules)),
        ("profile", report.profile),
        ("seed", str(report.seed)),
        ("device", report.device),
        ("strict", "yes" if report.strict else ""),
        ("versions", ", ".join(f"{name} {v}" for name, v in report.versions.items())),
    ]
    return [(name, printable(value)) for name, value in known if value]
