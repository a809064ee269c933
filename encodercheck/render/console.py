"""A scan on the terminal: a header, a line or more per check, a verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from encodercheck.config.rules import sentence
from encodercheck.render import words
from encodercheck.render.changes import changes
from encodercheck.render.conclusion import conclusion
from encodercheck.render.words import memory, number, printable, quoted, size, subject
from encodercheck.report import Finding, Measurement, Outcome, Report

if TYPE_CHECKING:
    from encodercheck.known.waivers import ModelWaiver
    from encodercheck.witness import Witness

__all__ = [
    "STYLES",
    "finding",
    "header",
    "measured",
    "memory",
    "number",
    "printable",
    "quoted",
    "replayed",
    "size",
    "subject",
    "unneeded",
    "verdict",
    "whole",
]

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
    rules: str = "",
) -> Text:
    """Say what is scanned, with what."""
    text = Text()
    text.append(printable(model["path"]), style="bold")
    if not words.is_known(model):
        return text
    facts = [
        printable(model["architecture"]),
        f"{model['parameters'] / 1e6:.2f} M parameters",
        f"{model['image_size']} px",
        f"embedding {model['embedding_dim']}",
    ]
    text.append("\n  " + " · ".join(facts) + "\n", style="dim")
    facts = [
        f"{images['count']} {printable(images['source'])} images",
        f"profile {profile}",
        f"seed {seed}",
        device,
    ]
    text.append("  " + " · ".join(facts), style="dim")
    text.append(f"\n  compared with {printable(compared_with)}", style="dim")
    if rules:
        text.append(f"\n  by {printable(rules)}", style="dim")
    for note in model["notes"]:
        text.append(f"\n  note: {printable(note)}", style="dim")
    return text


def finding(found: Finding) -> Text:
    """Say how one check ended; everything but a pass says why."""
    text = Text()
    text.append(f"{printable(found.id):<9} ", style="bold")
    # A failure that does not count must not be overlooked either.
    style = STYLES[found.outcome] if found.counts else "yellow"
    text.append(f"{words.status(found):<12} ", style=style)
    text.append(printable(found.title or found.check))
    text.append(f"  {found.seconds:.1f} s", style="dim")
    # A pass is read over, in one line; anything else is read closely.
    separator = " · " if found.outcome is Outcome.PASSED else "\n" + INDENT
    if found.measurements:
        text.append("\n" + INDENT)
        text.append_text(Text(separator).join(map(measured, found.measurements)))
    if found.message:
        read = found.outcome is not Outcome.PASSED
        text.append(f"\n{INDENT}{printable(found.message)}", style=style if read else "")
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
    text.append(words.bound(measurement), style="dim")
    return text


def verdict(report: Report) -> Text:
    """Say how the scan ended, and what to do next."""
    undecided = sum(found.outcome is Outcome.INCONCLUSIVE for found in report.findings)
    in_doubt = report.outcome is Outcome.PASSED and undecided
    style = STYLES[Outcome.INCONCLUSIVE if in_doubt else report.outcome]
    text = Text()
    text.append(words.verdict(report), style=f"{style} reverse")
    text.append(f"  {words.tally(report.findings)}", style=style)
    text.append(f"  in {report.seconds:.1f} s", style="dim")
    text.append(f"\n{conclusion(report)}", style="bold")
    if report.suspicion is not None:
        text.append(f"\n{report.suspicion.sentence()}")
    if report.memory.weights_bytes:
        text.append(f"\n{memory(report.memory)}", style="dim")
    command = words.replay_command(report)
    if command:
        text.append(f"\nSee the trigger work again:\n  {command}")
    elif undecided and report.exit_code == 0:
        checks = "1 check" if undecided == 1 else f"{undecided} checks"
        text.append(
            f"\n{checks} could not decide: nothing is known there. "
            "--strict makes that exit code 2.",
            style="yellow",
        )
    return text


def unneeded(waiver: ModelWaiver) -> Text:
    """Say that a check passes that has a waiver."""
    until = f"until {waiver.expires}: {printable(waiver.reason)}"
    return Text(f"note: {printable(waiver.check)} passes, its waiver is no longer needed ({until})")


def whole(report: Report) -> Text:
    """Say all that a scan shows while it runs: the header, the findings, the verdict."""
    head = header(
        report.model,
        report.images,
        device=report.device,
        profile=report.profile,
        seed=report.seed,
        compared_with=report.compared_with,
        rules=sentence(report.rules),
    )
    news = [changes(report.baseline), Text()] if report.baseline else []
    parts = [head, Text(), *map(finding, report.findings), Text(), *news, verdict(report)]
    return Text("\n").join(parts)


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
