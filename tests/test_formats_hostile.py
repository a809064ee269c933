"""Untrusted names: whatever they hold, every format stays valid and inert."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ElementTree
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reports import BROKEN, FAILED, IMAGES, PASSED, UNDECIDED, report
from test_formats import validate_junit, validate_sarif

from encodercheck.model_card import BEGIN, END, updated
from encodercheck.render import badge, card, html, junit, markdown, sarif
from encodercheck.render import json as render_json
from encodercheck.report import Measurement, Report, Waiver

NASTY = [
    "\x00\x01\x1b[31m\x7f\x85\u2028\u202e",
    "\ud800 \udfff \ufffe \uffff",
    "a\nb\r\nc\td",
    "]]> <!-- --> </testcase> &amp; &lt; &#0;",
    "<script>alert(1)</script><img src=x onerror=y>",
    "`code` ``` ~~~ | a | b | \\| \\",
    "*a* _b_ **c** [d](javascript:x) ![e](f) <g@h.i> # j",
    "@everyone #1 org/repo#2 GH-3 https://evil.example www.evil.example a@b.example",
    "{0} {{x}} %s ${HOME} $(id) '; rm -rf / #",
    f"{END} {BEGIN} --> </details>",
    "../../etc/passwd",
    "C:\\models\\é.safetensors",
    "x" * 20_000,
    "`" * 300,
    "日本語 \u0301 🦆",
    "",
    " ",
]
texts = st.one_of(
    st.sampled_from(NASTY),
    st.text(max_size=60),
    st.text(alphabet="|`<>&@#*_[]()\\\n\r\x00\ud800!-$~ ab", max_size=40),
    st.lists(st.sampled_from(NASTY), min_size=2, max_size=3).map("".join),
)


@st.composite
def reports(draw):
    """Return a report in which everything that can be untrusted text is hostile."""
    names = [draw(texts) for _ in range(4)]
    strange = {"id": names[0], "check": names[1], "message": names[2], "title": names[3]}
    findings = [dataclasses.replace(finding, **strange) for finding in (PASSED, UNDECIDED, BROKEN)]
    measurement = Measurement(draw(texts), draw(st.floats()), 1.0)
    failed = dataclasses.replace(
        FAILED, **strange, severity=draw(texts), witness=draw(texts), measurements=(measurement,)
    )
    waived = dataclasses.replace(failed, waiver=Waiver(draw(texts), date(2027, 1, 1)))
    path = draw(texts)
    made = report(
        *findings,
        failed,
        waived,
        dataclasses.replace(BROKEN, details=draw(texts)),
        path=path,
        architecture=draw(st.one_of(st.just(f"black box {path}"), texts)),
        sha256=draw(texts),
        provenance=draw(texts),
        notes=[draw(texts)],
    )
    images = IMAGES | {"source": draw(texts)}
    versions = {draw(texts): draw(texts), "encodercheck": draw(texts)}
    return dataclasses.replace(made, images=images, versions=versions, device=draw(texts))


several = st.lists(reports(), min_size=1, max_size=2)


@settings(max_examples=20)
@given(several)
def test_junit_stays_valid(made):
    text = junit.render(made)
    validate_junit(text)
    # Python's reader is another one, and says what there is.
    suites = ElementTree.fromstring(text).findall("testsuite")
    assert [len(suite.findall("testcase")) for suite in suites] == [6] * len(made)


@settings(max_examples=20)
@given(several)
def test_sarif_stays_valid(made):
    text = sarif.render(made)
    validate_sarif(text)
    for uri in re.findall(r'"uri": "(.*)"', text):
        assert re.fullmatch(r"(file:///)?[A-Za-z0-9_.\-~%/]+", uri)
    for rule in json.loads(text)["runs"][0]["tool"]["driver"]["rules"]:
        assert len(rule["name"]) <= 255
        assert len(rule["shortDescription"]["text"]) <= 1024


def shown(text):
    """Return Markdown as HTML, and demand that no name became markup."""
    page = MarkdownIt("commonmark").enable("table").render(text)
    assert not re.search(r"<(?:a|img|script|em|hr|ul|ol|blockquote)[ />]", page)
    assert page.count("<details>") == page.count("</details>") == text.count("<details>")
    without_space = re.sub(r"<code.*?</code>", "", page, flags=re.S)
    assert not re.search(r"@\w|#\d|https?://|www\.", without_space)
    return page


@settings(max_examples=20)
@given(several)
def test_markdown_stays_inert(made):
    text = markdown.render(made)
    assert len(text.encode()) < 2**20
    page = shown(text)
    tables = [table for table in page.split("<table>") if "<th>Check" in table]
    assert len(tables) == len(made)
    for table in tables:
        rows = table.partition("</table>")[0].split("<tr>")[2:]
        assert [row.count("<td>") for row in rows] == [3] * 6


@settings(max_examples=20)
@given(reports(), st.sampled_from(["", "# A model\n", "---\ntags: []\n---\r\nText"]))
def test_a_card_stays_one_section(made, readme):
    section = card.render([made])
    shown(section)
    once = updated(readme, section)
    assert updated(once, section) == once
    assert (once.count(BEGIN), once.count(END)) == (1, 1)
    once.encode()


@settings(max_examples=20)
@given(several)
def test_badges_stay_valid(made):
    root = ElementTree.fromstring(badge.svg(made).encode())
    assert int(root.get("width")) < 1000
    assert len(json.loads(badge.endpoint(made))["message"]) < 200


@settings(max_examples=20)
@given(reports())
def test_a_report_comes_back_from_its_json(made):
    told = json.loads(render_json.render([made]))
    assert json.loads(render_json.render([Report.from_dict(told)])) == told


@settings(max_examples=10)
@given(several)
def test_every_format_is_text_that_can_be_written(made):
    for render in (junit, sarif, markdown, card, html):
        render.render(made).encode("utf-8")


@pytest.mark.parametrize("path", ["/", ".", "", "a/../..", "\x00"])
def test_odd_paths_have_a_uri(path):
    validate_sarif(sarif.render([report(FAILED, path=path)], root=Path("/repository")))
