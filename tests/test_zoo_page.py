"""The page of many models: what is in it, that it loads nothing, and which pages are written."""

import base64
import dataclasses
import hashlib
import os
import re
from urllib.parse import unquote

import pytest
from commands import python, run
from hypothesis import given
from hypothesis import strategies as st
from reports import BROKEN, WAIVED
from test_html import ALLOWED, Page
from zoos import FAILED, PASSED, UNDECIDED, fill, report, some

from encodercheck.render import zoo_page
from encodercheck.render.zoo_page import page as pages
from encodercheck.render.zoo_page import rows
from encodercheck.report import Direction, Measurement, Report

HOSTILE = "</script><img src=x onerror=\"document.title='run'\"> ' <!-- \u202e\x1b[2J {{ 7*7 }}"
MORE_TAGS = {"script", "input", "label", "button", "b", "i", "small"}


def row(made, link=None):
    return rows.of(made, model=made.model["path"], link=link)


def shown(*reports, link="reports/a/report.html"):
    facts = zoo_page.Facts("zoo")
    for made in reports:
        facts.add(made, "2026-11-20T10:00:00+00:00")
    return zoo_page.render([row(made, link) for made in reports], facts)


def sound(text):
    """Check what holds for every page, and return it."""
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert not {"src", "srcset", "action"} & set(attributes)
    assert {tag for tag, _ in page.tags} <= ALLOWED | MORE_TAGS
    assert page.headings == [1]
    assert [tag for tag, _ in page.tags].count("script") == 1
    return page


@pytest.mark.parametrize(
    "reports",
    [[], [report(PASSED)], [report(FAILED, BROKEN, WAIVED), report(UNDECIDED), report()]],
    ids=["none", "one", "several"],
)
def test_a_page_is_sound(reports):
    page = sound(shown(*reports))
    assert page.named("html") == [{"lang": "en"}]
    assert len(page.named("th")) == len(reports) + len(pages.COLUMNS)


def test_the_policy_lets_in_one_style_sheet_and_one_script():
    text = shown(report(PASSED))
    policy = re.search('Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#39;", "'")
    told = dict(part.split(" ", 1) for part in policy.split("; "))
    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert told.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert told == {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'"}


def test_counts_and_shares():
    reports = [*some(1, FAILED), *some(8, UNDECIDED), *some(3991, PASSED)]
    words = sound(shown(*reports)).words
    assert "4,000 encoders 1 failed < 0.1 % 8 no verdict 0.2 % 3,991 passed 99.8 %" in words
    assert "Scanned on 2026-11-20" in words
    assert "13.7 h of computing" in words


@pytest.mark.parametrize(
    ("count", "of", "words"),
    [
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (1, 9999, "< 0.1 %"),
        (9999, 10000, "> 99.9 %"),
        (0, 0, "0 %"),
    ],
)
def test_shares_are_never_rounded_to_nothing_or_all(count, of, words):
    assert pages._percent(count, of) == words


def test_a_row_says_what_decided():
    made = report(PASSED, FAILED, UNDECIDED, BROKEN, WAIVED)
    found = row(made)
    assert (found.group, found.check, found.found) == (
        "failed",
        "EC202",
        "gain 0.9961 (at most 0.9)",
    )
    assert found.others == "EC101 could not decide · ACME1 ended in an error · EC202 waived"
    assert (found.size, found.architecture) == ("0.31 M", "resnet(basic, width 16)")


def test_where_all_is_well_the_least_p_value_is_told():
    def check(id_, chance):
        values = Measurement("p_value", chance), Measurement("gain", 0.5, 0.9, Direction.AT_MOST)
        return dataclasses.replace(PASSED, id=id_, measurements=values)

    found = row(report(check("A", 0.4), check("B", 0.02), check("C", 0.3), PASSED))
    assert (found.check, found.chance) == ("B", "0.02")


def test_the_most_severe_failure_comes_first_and_then_the_least_likely():
    def check(id_, severity, chance):
        values = Measurement("p_value", chance), Measurement("gain", 0.99, 0.9, Direction.AT_MOST)
        return dataclasses.replace(FAILED, id=id_, severity=severity, measurements=values)

    made = report(
        check("A", "high", 1e-9), check("B", "critical", 1e-3), check("C", "critical", 1e-5)
    )
    assert row(made).check == "C"


@pytest.mark.parametrize(
    ("made", "group"),
    [
        (report(PASSED), "passed"),
        (report(PASSED, UNDECIDED), "passed"),
        (report(PASSED, UNDECIDED, strict=True), "none"),
        (report(UNDECIDED), "none"),
        (report(WAIVED), "none"),
        (report(), "none"),
        (report(BROKEN, PASSED), "none"),
        (report(FAILED, BROKEN), "failed"),
        (Report.unreadable("x", "no such file"), "none"),
    ],
)
def test_the_verdict_never_sounds_better_than_the_exit_code(made, group):
    assert row(made).group == group
    assert made.exit_code == {"passed": 0, "failed": 1, "none": 2}[group]


def test_the_gravest_come_first():
    reports = [
        report(PASSED, path="c"),
        report(UNDECIDED, path="b"),
        report(FAILED, path="d"),
        report(FAILED, path="a"),
    ]
    page = sound(shown(*reports))
    names = [word for word in page.words.split("suspicious.")[1].split() if word in "abcd"]
    assert names[:4] == ["a", "d", "b", "c"]


@given(st.text(max_size=40) | st.text("<>&\"'/=-!{}%#ab \n\x00\u202e", max_size=40))
def test_whatever_names_are_the_page_has_the_same_parts(text):
    def parts(name):
        seen = dataclasses.replace(FAILED, id=name, message=name, severity=name, witness=name)
        made = [report(seen, path=name, architecture=name), report(UNDECIDED, seen, path=name)]
        return [(tag, sorted(attributes)) for tag, attributes in sound(shown(*made)).tags]

    assert parts(text) == parts("x" if text else "")


def test_nothing_a_page_obeys_is_left_in_names():
    text = shown(report(FAILED, path=HOSTILE, architecture=HOSTILE))
    page = sound(text)
    assert "<img" not in text and not {"\u202e", "\x1b"} & set(text)
    assert text.count("</script>") == 1
    assert "{{ 7*7 }}" in page.words


def test_the_command_writes_an_index_and_a_report_for_each(tmp_path):
    zoo = fill(tmp_path / "zoo", [report(FAILED, path="bad"), report(PASSED, path="good")])
    done = run("zoo", "zoo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "zoo/index.html: 2 models, 1 failed, 0 no verdict, 1 passed\n"
    page = sound((zoo / "index.html").read_text())
    links = [link["href"] for link in page.named("a") if not link["href"].startswith("#")]
    assert len(links) == 2
    for link in links:
        own = zoo / unquote(link)
        assert "#" in unquote(link) and "#" not in link
        assert own.read_text().startswith("<!DOCTYPE html>")


def test_reports_are_written_only_where_they_are_missing_or_older(tmp_path):
    zoo = fill(tmp_path / "zoo", some(2))
    run("zoo", "zoo", cwd=tmp_path)
    first, second = sorted(zoo.glob("reports/*/report.html"))
    os.utime(first, ns=(1, 1))
    second.write_text("mine")
    run("zoo", "zoo", cwd=tmp_path)
    assert first.read_text().startswith("<!DOCTYPE html>") and first.stat().st_mtime_ns > 1
    assert second.read_text() == "mine"


def test_without_reports_only_those_that_are_there_are_linked(tmp_path):
    zoo = fill(tmp_path / "zoo", some(2))
    next(iter(zoo.glob("reports/*0#*"))).joinpath("report.html").write_text("x")
    run("zoo", "zoo", "--no-reports", "--out", "pages/all.html", cwd=tmp_path)
    page = sound((tmp_path / "pages" / "all.html").read_text())
    (link,) = [link["href"] for link in page.named("a") if not link["href"].startswith("#")]
    assert (tmp_path / "pages" / unquote(link)).read_text() == "x"
    assert not (zoo / "index.html").exists()


def test_a_damaged_report_is_no_verdict_and_exit_code_2(tmp_path):
    zoo = fill(tmp_path / "zoo", some(8))
    for file in sorted(zoo.glob("reports/*/report.json"))[:7]:
        file.write_text("{}")
    done = run("zoo", "zoo", cwd=tmp_path)
    assert done.returncode == 2
    assert "8 models, 0 failed, 7 no verdict, 1 passed" in done.stdout
    assert done.stderr.count("\n") == 6 and done.stderr.endswith("and 2 more\n")
    assert "a damaged report" in (zoo / "index.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none"], "ledger.jsonl"),
        (["bare"], "no result in it"),
        (["zoo", "--out", "-"], "name a file"),
        (["zoo", "--out", "bare"], "is a folder"),
        (["zoo", "--out", "x", "--parquet", "x"], "only one of them"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(tmp_path, arguments, says):
    fill(tmp_path / "zoo", some(1))
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "ledger.jsonl").write_text("nothing\n")
    done = run("zoo", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and says in done.stderr


def test_torch_is_not_needed(tmp_path):
    fill(tmp_path / "zoo", some(1))
    code = (
        "import sys; from encodercheck.cli.main import app;"
        "app(['zoo', 'zoo'], standalone_mode=False); print('torch' in sys.modules)"
    )
    assert python("-c", code, cwd=tmp_path).stdout.endswith("False\n")
