"""The report as JUnit XML, as Jenkins, GitLab and GitHub's readers of it understand it.

A test suite is a model, a test case a check. What could not decide and what is waived is skipped; a
scan that has no verdict and no error to show for it gets one, for readers that count errors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

from encodercheck.render import words
from encodercheck.render.words import printable
from encodercheck.report import Finding, Outcome, Report

ELEMENTS = {
    Outcome.FAILED: "failure",
    Outcome.ERROR: "error",
    Outcome.INCONCLUSIVE: "skipped",
}
# The schema wants it this way.
SECONDS = "{:.3f}"


def render(reports: Sequence[Report]) -> str:
    """Return one document with a test suite per report."""
    root = ElementTree.Element("testsuites", name="encodercheck")
    for report in reports:
        root.append(_suite(report))
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, 0)) for suite in root)))
    root.set("time", SECONDS.format(sum(round(report.seconds, 3) for report in reports)))
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _suite(report: Report) -> ElementTree.Element:
    name = printable(report.model["path"])
    suite = ElementTree.Element("testsuite", name=name)
    properties = ElementTree.SubElement(suite, "properties")
    for fact, value in [("verdict", words.verdict(report)), *words.facts(report)]:
        ElementTree.SubElement(properties, "property", name=fact, value=value)
    # Dots would make packages of it; and GitLab takes tests of one class and name for the same.
    classname = f"encodercheck.{name.replace('.', '_')}"
    for finding in report.findings:
        suite.append(_case(report, finding, classname))
    if report.exit_code == 2 and not suite.findall("testcase/error"):
        suite.append(_no_verdict(report, classname))
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", str(len(suite.findall("testcase/error"))))
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    suite.set("time", SECONDS.format(report.seconds))
    return suite


def _case(report: Report, finding: Finding, classname: str) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase",
        name=printable(f"{finding.id} {finding.title or finding.check}"),
        classname=classname,
        time=SECONDS.format(finding.seconds),
    )
    element = ELEMENTS.get(finding.outcome) if finding.counts else "skipped"
    if element is not None:
        told = ElementTree.SubElement(case, element, **_reason(finding))
        if element != "skipped":
            told.text = "\n".join(_evidence(report, finding))
    if finding.measurements:
        lines = map(words.measured, finding.measurements)
        ElementTree.SubElement(case, "system-out").text = "\n".join(lines)
    return case


def _reason(finding: Finding) -> dict[str, Any]:
    message = printable(finding.message) or words.status(finding)
    if not finding.counts:
        return {"type": words.excused(finding), "message": f"{words.excuse(finding)} ({message})"}
    if finding.outcome is Outcome.FAILED:
        return {"type": printable(finding.severity), "message": message}
    return {"type": finding.outcome.value, "message": message}


def _evidence(report: Report, finding: Finding) -> list[str]:
    """Return what is shown of a failure or an error: all that is known of it, in lines."""
    lines = [printable(finding.message), *map(words.measured, finding.measurements)]
    if finding.witness:
        lines += [f"witness: {printable(finding.witness)}"]
        lines += [words.replay_command_of(report, finding)]
    return [*lines, *map(printable, finding.details.splitlines())]


def _no_verdict(report: Report, classname: str) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", name="verdict", classname=classname, time=SECONDS.format(0)
    )
    message = f"{words.verdict(report)}: {words.tally(report.findings)}"
    ElementTree.SubElement(case, "error", type="no verdict", message=message)
    return case
