"""A scan on the terminal: a header, a line or more per check, a verdict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rich.text import Text

from encodercheck.report import Direction, Finding, Measurement, Outcome, Report

if TYPE_CHECKING:
    from encodercheck.memory import Memory
    from encodercheck.witness import Witness

STYLES = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "bold red",
    Outcome.INCONCLUSIVE: "yellow",
    Outcome.ERROR: "bold magenta",
}
INDENT = " " * 10


def header(
    model: dict[str, Any],
    images: dict[str, Any],
    *,
    device: str,
    profile: str,
    seed: int,
    compared_with: str,
) -> Text:
    """Say what is scanned, with what."""
    text = Text()
    text.append(f"{printable(model['path'])}\n", style="bold")
    facts = [
        printable(model["architecture"]),
        f"{model['parameters'] / 1e6:.2f} M parameters",
        f"{model['image_size']} px",
        f"embedding {model['embedding_dim']}",
    ]
    text.append("  " + " · ".join(facts) + "\n", style="dim")
    facts = [
        f"{images['count']} {printable(images['source'])} images",
        f"profile {profile}",
        f"seed {seed}",
        device,
    ]
    text.append("  " + " · ".join(facts), style="dim")
    text.append(f"\n  compared with {printable(compared_with)}", style="dim")
    for note in model["notes"]:
        text.append(f"\n  note: {printable(note)}", style="dim")
    return text


def finding(found: Finding) -> Text:
    """Say how one check ended; everything but a pass says why."""
    text = Text()
    text.append(f"{printable(found.id):<9} ", style="bold")
    text.append(f"{found.outcome.value:<13}", style=STYLES[found.outcome])
    text.append(printable(found.title or found.check))
    text.append(f"  {found.seconds:.1f} s", style="dim")
    # A pass is read over, in one line; anything else is read closely.
    separator = " · " if found.outcome is Outcome.PASSED else "\n" + INDENT
    if found.measurements:
        text.append("\n" + INDENT)
        text.append_text(Text(separator).join(map(measured, found.measurements)))
    if found.message:
        style = STYLES[found.outcome] if found.outcome is not Outcome.PASSED else ""
        text.append(f"\n{INDENT}{printable(found.message)}", style=style)
    if found.witness:
        text.append(f"\n{INDENT}witness: {printable(found.witness)}")
    for line in found.details.rstrip().splitlines():
        text.append(f"\n{INDENT}| {printable(line)}", style="dim")
    return text


def measured(measurement: Measurement) -> Text:
    """Return a value against its limit, as "gain 0.997 (at most 0.9)"."""
    bad = measurement.outcome is Outcome.FAILED
    text = Text(f"{printable(measurement.name)} ")
    text.append(number(measurement.value), style="bold red" if bad else "")
    if measurement.limit is not None:
        side = "at least" if measurement.direction is Direction.AT_LEAST else "at most"
        text.append(f" ({side} {number(measurement.limit)})", style="dim")
    return text


def verdict(report: Report) -> Text:
    """Say how the scan ended, and what to do next."""
    counts = {
        outcome: sum(found.outcome is outcome for found in report.findings) for outcome in Outcome
    }
    label = report.outcome.value.upper()
    style = STYLES[report.outcome]
    if report.outcome is Outcome.PASSED and counts[Outcome.INCONCLUSIVE]:
        style = STYLES[Outcome.INCONCLUSIVE]
        label = "NO VERDICT (--strict)" if report.exit_code else label
    if report.outcome in (Outcome.INCONCLUSIVE, Outcome.ERROR):
        label = f"NO VERDICT ({report.outcome.value})"
    text = Text()
    text.append(f"{label}", style=f"{style} reverse")
    tally = ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items() if count)
    text.append(f"  {tally}", style=style)
    text.append(f"  in {report.seconds:.1f} s", style="dim")
    if report.memory.weights_bytes:
        text.append(f"\n{memory(report.memory)}", style="dim")
    witness = next((found.witness for found in report.findings if found.witness), None)
    if witness:
        text.append("\nSee the trigger work again:\n  ")
        text.append(f"encodercheck replay {quoted(witness)} {_subject(report.model)}")
    elif counts[Outcome.INCONCLUSIVE] and report.exit_code == 0:
        undecided = counts[Outcome.INCONCLUSIVE]
        checks = "1 check" if undecided == 1 else f"{undecided} checks"
        text.append(
            f"\n{checks} could not decide: nothing is known there. "
            "--strict makes that exit code 2.",
            style="yellow",
        )
    return text


def _subject(model: dict[str, Any]) -> str:
    """Return what a command line names the model by; a black box has a spec and no file."""
    option = "--arch " if model["architecture"] == f"black box {model['path']}" else ""
    return f"{option}{quoted(model['path'])}"


def memory(used: Memory) -> str:
    """Say what a scan used at most, as "peak memory 1.92 GB, of which weights 1.22 GB"."""
    peak = "unknown" if used.peak_bytes is None else size(used.peak_bytes)
    if used.device_peak_bytes is not None:
        peak += f"; on the device {size(used.device_peak_bytes)}"
    return f"peak memory {peak}, of which weights {size(used.weights_bytes)}"


def size(count: int) -> str:
    """Return a number of bytes in GB, or in MB where that is less than one."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def replayed(saved: Witness, measured: Witness, *, same_model: bool, reproduced: bool) -> Text:
    """Say what a saved trigger did the first time, and what it does now."""
    text = Text(f"saved:    {printable(saved.sentence())}\n")
    text.append(f"replayed: {printable(measured.sentence())}\n")
    if not same_model:
        text.append("note: another model than the one the trigger was found on\n", style="yellow")
    if reproduced:
        text.append("REPRODUCED", style="bold red reverse")
        text.append(f"  gain {number(measured.gain)}: the trigger works on fresh images")
    else:
        text.append("NOT REPRODUCED", style="bold green reverse")
        text.append(f"  gain {number(measured.gain)}: the trigger does not work on this model")
    return text


def number(value: float) -> str:
    """Return a value with three significant digits; whole numbers as they are."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e6:
        return str(int(value))
    # Never round a value up to the limit that it misses.
    return f"{value:.4f}" if 0.99 <= value < 1 else f"{value:.3g}"


def printable(text: str) -> str:
    """Return text with control characters escaped: names come from files nobody vouches for."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def quoted(text: str) -> str:
    """Return a path as a shell takes it."""
    import shlex

    return shlex.quote(printable(text))
