"""The formats that other programs read: what they look like, and that those programs take them.

``UPDATE_SNAPSHOTS=1 pytest tests/test_formats.py`` writes tests/snapshots/ anew; read the diff.
"""

import dataclasses
import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jsonschema
import junitparser
import pytest
from lxml import etree
from markdown_it import MarkdownIt
from reports import BROKEN, FAILED, PASSED, UNDECIDED, UNSEARCHED, WAIVED, report

from encodercheck.harness.runner import list_checks, suite
from encodercheck.render import artifact_uri, badge, card, html, junit, markdown, notebook, sarif
from encodercheck.render import json as render_json
from encodercheck.render.explained import EXPLANATIONS
from encodercheck.report import Measurement, Outcome, Report

HERE = Path(__file__).parent
REPOSITORY = Path("/repository")
FORMATS = {
    "report.json": render_json.render,
    "junit.xml": junit.render,
    "report.sarif": lambda reports: sarif.render(reports, root=REPOSITORY),
    "summary.md": markdown.render,
    "badge.json": badge.endpoint,
    "badge.svg": badge.svg,
    "card.md": card.render,
}
UNREADABLE = dataclasses.replace(
    Report.unreadable("gone.safetensors", "gone.safetensors: no such file; check the path"),
    versions={"encodercheck": "0.1.0"},
)
CASES = {
    "passed": [report(PASSED)],
    "failed": [report(PASSED, FAILED, UNDECIDED, BROKEN)],
    "waived": [report(PASSED, WAIVED)],
    "undecided": [report(UNDECIDED)],
    "unreadable": [UNREADABLE],
    "several": [report(PASSED, path="models/a b.safetensors"), report(FAILED), UNREADABLE],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", FORMATS)
def test_it_looks_as_it_did(name, case):
    text = FORMATS[name](CASES[case])
    file = HERE / "snapshots" / case / name
    if os.environ.get("UPDATE_SNAPSHOTS"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def validate_junit(text):
    schema = etree.XMLSchema(etree.parse(HERE / "schemas" / "junit-10.xsd"))
    schema.assertValid(etree.fromstring(text.encode()))


def validate_sarif(text):
    schema = json.loads((HERE / "schemas" / "sarif-schema-2.1.0.json").read_text())
    jsonschema.Draft7Validator(schema).validate(json.loads(text))


@pytest.mark.parametrize("reports", CASES.values(), ids=CASES)
def test_junit_and_sarif_are_valid(reports):
    validate_junit(junit.render(reports))
    validate_sarif(sarif.render(reports))


def test_a_reader_of_junit_understands_it():
    xml = junitparser.JUnitXml.fromstring(junit.render(CASES["failed"]).encode())
    (tests,) = xml
    assert (xml.tests, xml.failures, xml.errors, tests.skipped) == (4, 1, 1, 1)
    assert tests.name == "fixture:badencoder"
    kinds = [[type(result).__name__ for result in case.result] for case in tests]
    assert kinds == [[], ["Failure"], ["Skipped"], ["Error"]]
    assert [case.time for case in tests] == [0.24, 1.31, 0.0, 0.0]
    assert "gain 0.9961 (at most 0.9)" in list(tests)[1].system_out


@pytest.mark.parametrize("case", CASES)
def test_junit_never_sounds_better_than_the_exit_code(case):
    for made in CASES[case]:
        suite_ = ElementTree.fromstring(junit.render([made])).find("testsuite")
        red = int(suite_.get("failures")) + int(suite_.get("errors"))
        assert bool(red) == bool(made.exit_code)


def sarif_run(reports):
    (run,) = json.loads(sarif.render(reports, root=REPOSITORY))["runs"]
    return run


def test_code_scanning_gets_an_alert_for_what_failed_and_none_for_what_passed():
    run = sarif_run(CASES["failed"])
    rules = run["tool"]["driver"]["rules"]
    failed, undecided = run["results"]
    assert (failed["ruleId"], failed["kind"], failed["level"]) == ("EC202", "fail", "error")
    assert rules[failed["ruleIndex"]]["properties"]["security-severity"] == "9.5"
    assert rules[failed["ruleIndex"]]["helpUri"].startswith("https://")
    assert (undecided["kind"], undecided["level"]) == ("review", "none")
    assert "security-severity" not in rules[undecided["ruleIndex"]]["properties"]
    (invocation,) = run["invocations"]
    assert not invocation["executionSuccessful"]
    (notification,) = invocation["toolExecutionNotifications"]
    assert "division by zero" in notification["message"]["text"]


def test_a_waiver_suppresses_an_alert():
    (result,) = sarif_run(CASES["waived"])["results"]
    (suppression,) = result["suppressions"]
    assert suppression["kind"] == "external"
    assert suppression["justification"] == "waived until 2027-01-01: a false alarm, see T-1"


def test_an_alert_stays_the_same_as_long_as_the_weights_do():
    def fingerprints(**model):
        (result,) = sarif_run([report(FAILED, **model)])["results"]
        return result["partialFingerprints"]

    here = fingerprints(path="a.safetensors")
    assert here == fingerprints(path="b/a.safetensors")
    assert here != fingerprints(path="a.safetensors", sha256="cd" * 32)


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("models/a b.safetensors", "models/a%20b.safetensors"),
        ("./a.safetensors", "a.safetensors"),
        ("/repository/a.safetensors", "a.safetensors"),
        ("/elsewhere/ü.safetensors", "file:///elsewhere/%C3%BC.safetensors"),
        ("../a.safetensors", "file:///a.safetensors"),
        ("fixture:bad@2", "fixture/bad%402"),
        ("hf://org/name@main", "hf/org/name%40main"),
        ("hf://../../../etc/passwd", "hf/etc/passwd"),
        ("not text \udcff", "not%20text%20%ED%B3%BF"),
    ],
)
def test_where_a_model_lies_for_code_scanning(path, uri):
    model = {"path": path, "architecture": "resnet18"}
    assert artifact_uri.artifact_uri(model, REPOSITORY) == uri


def test_a_black_box_has_a_place_too():
    model = {"path": "pkg.mod:embed", "architecture": "black box pkg.mod:embed"}
    assert artifact_uri.artifact_uri(model, REPOSITORY) == "black-box/pkg.mod%3Aembed"


def test_every_check_of_the_suite_is_explained():
    ids = {info.id for info in list_checks(suite([]))}
    assert ids == EXPLANATIONS.keys() - {"EC000"}


def test_a_summary_of_too_many_models_is_cut_and_says_so():
    many = [report(*[PASSED] * 40, path=f"{i}.safetensors") for i in range(300)]
    text = markdown.render([*many, report(FAILED, path="last.safetensors")])
    assert len(text.encode()) < 2**20
    assert "models: 1 FAILED, 300 PASSED" in text
    assert "last.safetensors" in text
    assert "more models do not fit here" in text


def test_a_table_of_too_many_checks_is_cut_and_keeps_what_failed():
    text = markdown.render([report(*[PASSED] * 5000, FAILED)])
    assert len(text.encode()) < 2**20
    assert "**EC202**" in text
    assert "more checks do not fit here" in text


def test_a_summary_is_markdown_with_a_table_and_details():
    html = MarkdownIt("commonmark").enable("table").render(markdown.render(CASES["failed"]))
    assert html.count("<tr>") == 5 + 12
    assert '<code class="language-sh">encodercheck replay' in html
    assert "<details><summary>How it was scanned</summary>" in html


@pytest.mark.parametrize(
    ("findings", "message", "colour"),
    [
        ([PASSED], "passed 1/1", "brightgreen"),
        ([PASSED, UNDECIDED], "passed 1/2", "green"),
        ([PASSED, WAIVED], "passed 1/2, 1 waived", "green"),
        ([PASSED, FAILED], "failed: EC202", "red"),
        ([FAILED] * 4, "failed: 4 of 4 checks", "red"),
        ([PASSED, BROKEN], "no verdict", "lightgrey"),
        ([PASSED, UNSEARCHED], "no verdict: no trigger search could decide", "lightgrey"),
        ([], "no verdict", "lightgrey"),
    ],
)
def test_the_badge_says_it_in_a_few_words(findings, message, colour):
    shown = json.loads(badge.endpoint([report(*findings)]))
    assert (shown["message"], shown["color"]) == (message, colour)
    assert shown["isError"] == (report(*findings).exit_code != 0)


@pytest.mark.parametrize(
    ("render", "headline"),
    [
        (markdown.render, "## encodercheck: ⚠️ NO VERDICT (no trigger search could decide)"),
        (card.render, "**NO VERDICT (no trigger search could decide)**"),
        (junit.render, 'message="NO VERDICT (no trigger search could decide)'),
        (lambda found: sarif.render(found), '"NO VERDICT (no trigger search could decide)'),
        (html.render, "no verdict, no trigger search could decide"),
        (lambda found: notebook.render(*found), "NO VERDICT (no trigger search could decide)"),
        (badge.svg, "no verdict: no trigger search could decide"),
    ],
)
def test_every_headline_says_that_no_search_decided(render, headline):
    assert headline in render([report(PASSED, UNSEARCHED)])
    assert "search could decide" not in render([report(PASSED, UNDECIDED)])


def test_the_badge_has_room_for_its_words_and_loads_nothing():
    text = badge.svg(CASES["failed"])
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    left, right = root.findall(f"{space}g/{space}rect")
    for part, words in zip((left, right), root.findall(f"{space}g/{space}text"), strict=True):
        start, end = int(part.get("x", 0)), int(part.get("x", 0)) + int(part.get("width"))
        assert start < int(words.get("x"))
        assert int(words.get("x")) + int(words.get("textLength")) < end
    assert root.find(f"{space}title").text == "encodercheck: failed: EC202"
    assert text.count("http") == 1
    # Verdana's width of the label, as browsers measure it.
    assert badge.box("encodercheck") - 2 * badge.PADDING == pytest.approx(76, abs=2)


def test_a_report_comes_back_from_its_json():
    for reports in CASES.values():
        for made in reports:
            told = json.loads(json.dumps(made.to_dict()))
            assert Report.from_dict(told).to_dict() == made.to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "encodercheck.report/2"},
        {"outcome": "passed"},
        {"exit_code": 0},
        {"model": {}},
        {"model": {**report().model, "path": 3}},
        {"model": {**report().model, "parameters": "many"}},
        {"seconds": float("inf")},
        {"seed": -1},
        {"findings": [{}]},
        {"findings": None},
        {"findings": []},
        {"versions": []},
    ],
    ids=str,
)
def test_what_is_no_report_is_none(change):
    told = report(PASSED, FAILED).to_dict() | change
    with pytest.raises((KeyError, TypeError, ValueError)):
        Report.from_dict(told)


def test_nan_survives_every_format():
    nan = dataclasses.replace(
        FAILED, outcome=Outcome.FAILED, measurements=(Measurement("v", float("nan"), 1.0),)
    )
    validate_junit(junit.render([report(nan)]))
    validate_sarif(sarif.render([report(nan)]))
    assert "v nan (at most 1)" in markdown.render([report(nan)])
