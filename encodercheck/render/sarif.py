"""The report as SARIF 2.1.0, as GitHub code scanning takes it.

All models are one run, since GitHub refuses several by one tool: an invocation and an artifact are
a model, a rule is a check. GitHub shows every result as an alert: what passed is none. A check that
could not decide has a rule of its own, EC202/inconclusive: alerts are as grave as their rule, and
nobody knows whether this one is grave. A crash is a notification, no result.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encodercheck.render import words
from encodercheck.render.artifact_uri import ROOT, artifact_uri
from encodercheck.render.escaping import markdown
from encodercheck.render.explained import EXPLANATIONS
from encodercheck.render.words import cut, printable
from encodercheck.report import Finding, Outcome, Report

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
LEVELS = {"critical": "error", "high": "error", "medium": "warning", "low": "warning"}
# GitHub: above 9 critical, from 7 high, from 4 medium, and low. It has no word for what is only
# worth knowing.
SECURITY_SEVERITIES = {"critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0"}
# GitHub's limits on names and on descriptions, and ours on messages: a file has 10 MB.
LONGEST_NAME, LONGEST_DESCRIPTION, LONGEST_MESSAGE = 255, 1024, 4000
UNDECIDED = "/inconclusive"

Json = dict[str, Any]


def render(reports: Sequence[Report], *, root: Path | None = None) -> str:
    """Return one run over all reports; ``root`` is the repository's folder, by default this one."""
    artifacts: list[Json] = []
    rules = _Rules()
    invocations, results = [], []
    for number, report in enumerate(reports):
        artifact = _artifact(report, root or Path.cwd())
        # The schema wants a model that is scanned twice once.
        if artifact not in artifacts:
            artifacts.append(artifact)
        location = _location(artifact, artifacts.index(artifact))
        references = [rules.reference(finding) for finding in report.findings]
        found = list(zip(report.findings, references, strict=True))
        invocations.append(_invocation(report, found, location))
        results += [
            {
                **_result(report, finding, rule),
                "locations": [location],
                "provenance": {"invocationIndex": number},
            }
            for finding, rule in found
            if finding.outcome in (Outcome.FAILED, Outcome.INCONCLUSIVE)
        ]
    driver = {"name": "encodercheck", **_version(reports), "rules": rules.all}
    run = {
        "tool": {"driver": driver},
        "invocations": invocations,
        "artifacts": artifacts,
        "results": results,
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


class _Rules:
    """The rules that findings are of, in the order in which they come up."""

    def __init__(self) -> None:
        self.all: list[Json] = []
        self._indices: dict[str, int] = {}

    def reference(self, finding: Finding) -> Json:
        """Return the id and the index of a finding's rule."""
        decided = finding.outcome is not Outcome.INCONCLUSIVE
        id_ = printable(finding.id.partition("[")[0]) + ("" if decided else UNDECIDED)
        if id_ not in self._indices:
            self._indices[id_] = len(self.all)
            self.all.append(_rule(id_, finding, decided=decided))
        return {"id": id_, "index": self._indices[id_]}


def _rule(id_: str, finding: Finding, *, decided: bool) -> Json:
    title = printable(finding.title or finding.check)
    known = EXPLANATIONS.get(finding.id.partition("[")[0])
    meaning = known.meaning if known else title
    advice = known.advice if known else "Ask the author of the check what its failure means."
    if not decided:
        title = f"Could not decide: {title}"
        advice = "Nothing is known here. The message says what the check needs to decide."
    rule: Json = {
        "id": id_,
        "name": cut(_name(finding), LONGEST_NAME),
        "shortDescription": {"text": cut(title, LONGEST_DESCRIPTION)},
        "fullDescription": {"text": cut(meaning, LONGEST_DESCRIPTION)},
        "help": _help(meaning, advice, known.source if known else None),
        "defaultConfiguration": {
            "level": LEVELS.get(finding.severity, "note") if decided else "note"
        },
        "properties": {"tags": ["backdoor", "machine-learning"], "precision": "high"},
    }
    if known and known.source:
        rule["helpUri"] = known.source
    if decided and finding.severity in SECURITY_SEVERITIES:
        rule["properties"]["tags"].insert(0, "security")
        rule["properties"]["security-severity"] = SECURITY_SEVERITIES[finding.severity]
    return rule


def _help(meaning: str, advice: str, source: str | None) -> Json:
    link = f"\n\n[The method's paper]({source})" if source else ""
    return {
        "text": f"{meaning}\n\n{advice}",
        # Of a check of somebody else's the meaning is its docstring.
        "markdown": f"{markdown(meaning)}\n\n{advice}{link}",
    }


def _name(finding: Finding) -> str:
    """Return a check's function as a name: check_no_collapse is NoCollapse."""
    function = finding.check.rpartition("::")[2].partition("[")[0].removeprefix("check_")
    return "".join(part[:1].upper() + part[1:] for part in re.findall(r"\w+?(?=_|\b)", function))


def _result(report: Report, finding: Finding, rule: Json) -> Json:
    failed = finding.outcome is Outcome.FAILED
    result: Json = {
        "ruleId": rule["id"],
        "ruleIndex": rule["index"],
        "kind": "fail" if failed else "review",
        # The standard wants "none" of all that is no failure.
        "level": LEVELS.get(finding.severity, "note") if failed else "none",
        "message": {"text": _message(report, finding)},
        "partialFingerprints": _fingerprints(report, finding),
        "suppressions": [],
        "properties": {
            "severity": printable(finding.severity),
            "measurements": [words.measured(m) for m in finding.measurements],
        },
    }
    if not finding.counts:
        result["suppressions"] = [
            {
                "kind": "external",
                "justification": _plain(words.excuse(finding)),
            }
        ]
    return result


def _message(report: Report, finding: Finding) -> str:
    parts = [f"{finding.id}: {finding.message or finding.title or finding.check}"]
    parts += [words.measured(m) for m in finding.measurements if m.outcome is Outcome.FAILED]
    parts += [f"Model: {report.model['path']}"]
    if finding.witness:
        parts += [f"See it again: {words.replay_command_of(report, finding)}"]
    return "\n".join(_plain(part) for part in parts)


def _plain(text: str) -> str:
    """Return a line of which no viewer makes a link: [text](target) would be one."""
    return cut(text, LONGEST_MESSAGE).replace("](", "] (")


def _fingerprints(report: Report, finding: Finding) -> dict[str, str]:
    # The same weights and the same check are the same result, wherever the file lies.
    model = report.model["sha256"] or report.model["path"]
    told = json.dumps([model, finding.id]).encode()
    digest = hashlib.sha256(told).hexdigest()
    # GitHub goes by the first; it would make one of the file's first line where it is missing.
    return {"primaryLocationLineHash": f"{digest[:16]}:1", "encodercheck/v1": digest}


def _artifact(report: Report, root: Path) -> Json:
    location: Json = {"uri": artifact_uri(report.model, root)}
    if not location["uri"].startswith("file:"):
        location["uriBaseId"] = ROOT
    artifact: Json = {
        "location": location,
        "description": {"text": _plain(report.model["path"])},
        "roles": ["analysisTarget"],
    }
    if report.model["sha256"]:
        artifact["hashes"] = {"sha-256": printable(report.model["sha256"])}
    return artifact


def _location(artifact: Json, index: int) -> Json:
    return {
        "physicalLocation": {
            "artifactLocation": {**artifact["location"], "index": index},
            # Weights have no lines, and GitHub wants one.
            "region": {"startLine": 1},
        }
    }


def _invocation(report: Report, found: list[tuple[Finding, Json]], location: Json) -> Json:
    notifications = [
        {
            "descriptor": {"id": "crash"},
            "associatedRule": rule,
            "level": "error",
            "message": {"text": _message(report, finding)},
            "locations": [location],
        }
        for finding, rule in found
        if finding.outcome is Outcome.ERROR
    ]
    if report.exit_code == 2 and not notifications:
        text = f"{words.verdict(report)}: {words.tally(report.findings)}"
        notifications = [
            {"descriptor": {"id": "no-verdict"}, "level": "warning", "message": {"text": text}}
        ]
    return {
        "executionSuccessful": not notifications,
        "exitCode": report.exit_code,
        "exitCodeDescription": words.verdict(report),
        "toolExecutionNotifications": notifications,
    }


def _version(reports: Sequence[Report]) -> dict[str, str]:
    versions = {report.versions.get("encodercheck", "") for report in reports} - {""}
    # Saved reports may come from several.
    return {"version": printable(", ".join(sorted(versions)))} if versions else {}
