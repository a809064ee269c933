"""The page: what the template gets, and the template's tools."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import count
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from encodercheck.exhibits import Comparison, Cosines, Gallery, Note, Picture
from encodercheck.render import changes, words
from encodercheck.render.html import plots, verdicts
from encodercheck.report import Finding, Measurement, Outcome, Report

# A passed check is looked up, everything else is read.
OPEN = {Outcome.FAILED, Outcome.ERROR, Outcome.INCONCLUSIVE}


def render(reports: Sequence[Report]) -> str:
    """Return a page on one report, or an index of several and a section on each.

    It loads nothing and runs nothing: its pictures are in it, and its policy forbids the rest.
    """
    style = style_sheet()
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            reports=reports,
            verdict=verdicts.of_reports(reports),
            style=style,
            # The hash lets this one style sheet in and no other.
            policy=(
                "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
                f"style-src {digest(style)}"
            ),
            unique=count(1).__next__,
        )
    )


@cache
def style_sheet() -> str:
    """Return what makes a page look as it does."""
    return files(__package__).joinpath("report.css").read_text("utf-8")


def digest(text: str) -> str:
    """Return what a policy calls a style sheet or a script by, to let in that one and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def visible(value: Any) -> Any:
    """Return text with everything escaped that a page would obey and not show; else ``value``."""
    # What the templates made has __html__.
    told = isinstance(value, str) and not hasattr(value, "__html__")
    if told and not value.isprintable():
        return "".join(c if c == "\n" else words.printable(c) for c in value)
    return value


def templates(package: str | None) -> Environment:
    """Return what makes pages of the templates in a package; it escapes whatever they show."""
    return Environment(
        loader=PackageLoader(str(package), ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # What names from files hold beside text, such as marks that reverse it, is made visible.
        finalize=visible,
    )


@cache
def _environment() -> Environment:
    environment = templates(__package__)
    environment.filters.update(
        number=words.number,
        excused=words.excused,
        data_uri=_data_uri,
        bound=plots.bound,
        p_value=plots.p_value,
    )
    environment.globals.update(
        SYMBOLS=verdicts.SYMBOLS,
        OPEN=OPEN,
        verdict_of=verdicts.of_report,
        tally=verdicts.tally,
        labels=verdicts.labels,
        changes=lambda difference: changes.changes(difference).plain,
        headline=verdicts.headline,
        plotted=_plotted,
        decisive=_decisive,
        informative=_informative,
        galleries=lambda finding: _of_kind(finding, Gallery),
        histograms=lambda finding: [plots.histograms(c) for c in _of_kind(finding, Cosines)],
        notes=lambda finding: _of_kind(finding, Note),
        scan_command=_scan_command,
        further_options=_further_options,
        replay_command=words.replay_command_of,
        is_known=words.is_known,
        memory=words.memory,
    )
    return environment


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.png).decode()}"


def _plotted(finding: Finding) -> list[tuple[Measurement, Comparison | None, plots.Plot]]:
    """Return the measurements that can be drawn, with what clean encoders measured."""
    found = []
    for measurement in finding.measurements:
        comparison = _comparison(finding, measurement)
        plot = plots.measured(measurement, comparison)
        if plot is not None:
            found.append((measurement, comparison, plot))
    return found


def _informative(finding: Finding) -> list[Measurement]:
    """Return the measurements that no plot shows."""
    plotted = _plotted(finding)
    drawn = [measurement for measurement, *_ in plotted]
    # Written below its plot.
    chances = [comparison.p_value for _, comparison, _ in plotted if comparison]
    return [
        measurement
        for measurement in finding.measurements
        if measurement not in drawn
        and not (measurement.name == "p_value" and measurement.value in chances)
    ]


def _decisive(finding: Finding) -> tuple[Measurement, Comparison | None, plots.Plot] | None:
    """Return what stands for a check in a list: what failed, else what clean encoders measured."""
    return max(
        _plotted(finding),
        key=lambda drawn: (drawn[2].failed, len(drawn[2].clean)),
        default=None,
    )


def _comparison(finding: Finding, measurement: Measurement) -> Comparison | None:
    known: list[Comparison] = _of_kind(finding, Comparison)
    same = [c for c in known if c.name == measurement.name]
    # A check may measure a name several times.
    exact = [c for c in same if c.value == measurement.value]
    return next(iter(exact or same), None)


def _of_kind(finding: Finding, kind: type[Any]) -> list[Any]:
    return [exhibit for exhibit in finding.exhibits if isinstance(exhibit, kind)]


def _scan_command(report: Report) -> str:
    """Return the command that makes this report again, as far as the report knows it."""
    parts = [f"encodercheck scan {words.subject(report.model)}"]
    parts += [f"--profile {report.profile}", f"--seed {report.seed}"]
    # Its number is another machine's business.
    parts += [f"--device {report.device.partition(':')[0]}"] if report.device else []
    parts += ["--strict"] if report.strict else []
    return words.printable(" ".join(parts))


def _further_options(report: Report) -> list[str]:
    """Return the options that the scan was given beside, of which a report has not the values."""
    told = f"{report.model['provenance']} {report.model.get('preprocessing', '')}"
    options = re.findall(r"--[a-z][a-z-]*", told)
    if report.images["source"] != "procedural" and report.images["count"]:
        options.append("--images")
    return sorted(set(options))
