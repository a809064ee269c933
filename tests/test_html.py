"""The HTML report: what is in it, and that it loads and runs nothing."""

import base64
import dataclasses
import hashlib
import math
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shown import (
    BROKEN,
    EVERYTHING,
    FAILED,
    HOSTILE,
    PASSED,
    UNDECIDED,
    WAIVED,
    hostile,
    report,
)

from encodercheck.exhibits import Comparison, Cosines
from encodercheck.render.html import plots, render, scales
from encodercheck.report import Direction, Measurement, Report

VOID = {"meta", "img", "rect", "line", "path", "link", "br", "hr", "input"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "article"),
    *("section", "h1", "h2", "h3", "h4", "p", "strong", "span", "div", "dl", "dt", "dd", "ul"),
    *("li", "a", "figure", "figcaption", "img", "details", "summary", "pre", "code", "time"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    *("svg", "defs", "pattern", "rect", "line", "path", "text", "desc"),
}
LOADING = ("src", "href", "srcset", "data", "action", "poster", "background", "xlink:href")


class Page(HTMLParser):
    """What a page is made of; a tag that is not closed where it should be is an error."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.text, self._open = [], [], []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), "an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text.append(data)

    def named(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]

    @property
    def headings(self):
        return [int(tag[1]) for tag, _ in self.tags if re.fullmatch("h[1-6]", tag)]

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def sound(text):
    """Check what holds for every page, and return it."""
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set(attributes.get(name, "").split()) <= set(ids)
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        # Nothing is loaded: pictures are in the page, and links lead to places in it.
        for target in filter(None, map(attributes.get, LOADING)):
            assert target.startswith("data:image/png;base64,") or target.removeprefix("#") in ids
    assert page.headings.count(1) == 1 and page.headings[0] == 1
    assert all(b - a <= 1 for a, b in zip(page.headings, page.headings[1:], strict=False))
    assert {tag for tag, _ in page.tags} <= ALLOWED
    assert all(image["alt"] for image in page.named("img"))
    for plot in page.named("svg"):
        hidden = plot.get("aria-hidden") == "true" or plot.keys() >= {"overflow"}
        assert hidden or (plot["role"] == "img" and plot["aria-labelledby"])
    return page


@pytest.mark.parametrize(
    "reports",
    [[EVERYTHING], [report()], [report(PASSED), EVERYTHING, report(UNDECIDED)], []],
    ids=["one", "no finding", "several", "none"],
)
def test_a_page_is_sound(reports):
    page = sound(render(reports))
    assert [tag for tag, _ in page.tags].count("main") == 1
    assert page.named("html") == [{"lang": "en"}]
    assert len(page.named("article")) == len(reports)


def test_the_policy_lets_nothing_in_but_the_page_itself():
    text = render([EVERYTHING])
    (policy,) = [
        meta["content"]
        for meta in Page(text).named("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    ]
    style = re.search("<style>(.*)</style>", text, re.DOTALL)[1]
    allowed = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        f"style-src 'sha256-{allowed}'",
    ]
    assert not re.search(r"url\((?!#)|@import|</style", style)


@pytest.mark.parametrize(
    ("findings", "strict", "label"),
    [
        ([PASSED], False, "Passed"),
        ([PASSED, WAIVED], False, "Passed"),
        ([PASSED, UNDECIDED], False, "Passed"),
        ([PASSED, UNDECIDED], True, "No verdict"),
        ([UNDECIDED], False, "No verdict"),
        ([WAIVED], False, "No verdict"),
        ([PASSED, BROKEN], False, "No verdict"),
        ([PASSED, BROKEN, FAILED], True, "Failed"),
        ([], False, "No verdict"),
    ],
)
def test_the_verdict_never_sounds_better_than_the_exit_code(findings, strict, label):
    made = report(*findings, strict=strict)
    text = render([made])
    words = Page(text).words
    assert f"{label} model.safetensors" in words
    assert f"Exit code {made.exit_code}:" in words
    assert {"Passed": 0, "Failed": 1, "No verdict": 2}[label] == made.exit_code
    # What is in doubt is not shown in green.
    assert ('class="verdict passed"' in text) == (label == "Passed" and UNDECIDED not in findings)


@pytest.mark.parametrize(
    ("reports", "label"),
    [
        ([report(PASSED), report(PASSED)], "Passed"),
        ([report(PASSED), report(UNDECIDED)], "No verdict"),
        ([report(UNDECIDED), report(FAILED)], "Failed"),
    ],
)
def test_the_verdict_on_several_is_that_of_the_exit_code(reports, label):
    page = Page(render(reports))
    assert re.search(rf"{label} 2 encoders [^.]*\. Exit code \d", page.words)
    links = [link["href"] for link in page.named("a")]
    assert {"#model-1", "#model-2"} <= set(links)


def test_all_that_a_report_says_is_there():
    words = Page(render([EVERYTHING])).words
    for expected in (
        "2 of 5 checks"[2:],
        "ab" * 32,
        "resnet(basic, width 16)",
        "0.31 million",
        "3x3 stem: stride 1 assumed",
        "gain 0.9961 ✕ above its limit, 0.9",
        "pl1 0.08 at least 0.037",
        "Against 8 clean encoders of resnet: p-value 1.2×10⁻⁵ .",
        "stamped_cosine 0.9981",
        "iterations 12",
        "a 5x5 patch at (27, 27)",
        "encodercheck replay 'out dir/EC202/witness.safetensors' model.safetensors",
        "encodercheck scan model.safetensors --profile standard --seed 0 --device cpu",
        "peak memory 612.0 MB, of which weights 45.0 MB",
        "torch 2.6",
        "1 / 0",
        "reconstructions cannot be shown: ValueError",
        "mean 0.985",
        "waived until 2027-01-31 and does not count: a false alarm, see #12",
        ["1 failed", "1 ended in an error, 1 could not decide, 1 passed, 1 waived"][1],
    ):
        assert expected in words
    for finding in EVERYTHING.findings:
        assert f"{finding.id} {finding.title or finding.check}" in words
        assert finding.severity in words


def test_what_the_report_has_no_values_of_is_asked_for():
    folder = report(PASSED, images={"source": "folder", "count": 3, "unreadable": 2})
    words = Page(render([folder])).words
    assert "And with what the scan was given as --images ." in words
    assert "3 folder, 2 unreadable" in words


def test_a_model_that_could_not_be_read_is_no_verdict():
    page = sound(render([Report.unreadable("gone.safetensors", "no such file")]))
    assert "No verdict gone.safetensors" in page.words
    assert "no such file" in page.words
    assert "Parameters" not in page.words


def test_a_report_from_json_has_no_exhibits_and_all_its_plots():
    read = Report.from_dict(EVERYTHING.to_dict())
    page = sound(render([read]))
    assert not page.named("img")
    assert page.words.count("p_value") == 3  # no plot says them
    plots = [svg for svg in page.named("svg") if svg.get("role") == "img"]
    assert len(plots) == 3


def test_exhibits_are_no_part_of_the_json_or_of_equality():
    bare = dataclasses.replace(FAILED, exhibits=())
    assert bare == FAILED
    assert bare.to_dict() == FAILED.to_dict()
    assert "PNG" not in repr(FAILED)


def test_names_cannot_break_out_of_their_place():
    for reports in ([hostile(HOSTILE)], [hostile(HOSTILE)] * 2):
        text = render(reports)
        page = sound(text)
        assert "<script" not in text
        assert not {"\u202e", "\x1b"} & set(text)
        assert "{{ 7*7 }}" in page.words


@given(st.text(max_size=60) | st.text("<>&\"'/=-!{}%#ab \n\x00\u202e", max_size=60))
def test_whatever_names_are_the_page_has_the_same_parts(text):
    def parts(reports):
        # A command is a span for each of its words.
        return [
            (tag, sorted(attributes))
            for tag, attributes in sound(render(reports)).tags
            if tag != "span" and "time" not in tag
        ]

    plain = "x" if text else ""
    # Options that a name looks like are listed.
    if "--" not in text:
        assert parts([hostile(text)]) == parts([hostile(plain)])


numbers = st.floats() | st.floats(-2, 2) | st.sampled_from([0.0, 1.0, 1e-300, 5e-324, 1e308])


@given(
    numbers,
    st.none() | numbers,
    st.sampled_from(Direction),
    st.lists(numbers, max_size=9),
    st.sampled_from(["", "gain", "size", "shift"]),
)
def test_any_values_can_be_drawn(value, limit, direction, clean, scale):
    measurement = Measurement("v", value, limit, None if limit is None else direction)
    exhibits = (Comparison("v", value, tuple(clean), scale, "", 0.5), Cosines((), tuple(clean), 3))
    finding = dataclasses.replace(FAILED, measurements=(measurement,), exhibits=exhibits)
    page = sound(render([report(finding)]))
    for shape in page.named("rect", "line", "text", "svg"):
        for name in ("x", "x1", "x2", "width", "y", "height"):
            place = shape.get(name, "0").removesuffix("%")
            assert 0 <= float(place) <= 200


@pytest.mark.parametrize(
    ("measurement", "words"),
    [
        (Measurement("v", 0.5, 0.9, Direction.AT_MOST), "at most 0.9"),
        (Measurement("v", 0.95, 0.9, Direction.AT_MOST), "above its limit, 0.9"),
        (Measurement("v", 0.5, 0.9, Direction.AT_LEAST), "below its limit, 0.9"),
        (Measurement("v", math.nan, 0.9, Direction.AT_MOST), "not at most 0.9"),
        (Measurement("v", 0.5), ""),
    ],
)
def test_a_limit_is_told_in_words(measurement, words):
    assert plots.bound(measurement) == words


@pytest.mark.parametrize(
    ("chance", "words"),
    [(0.3, "0.3"), (0.0021, "0.0021"), (1.24e-5, "1.2×10⁻⁵"), (0.0, "less than 10⁻¹²")],
)
def test_p_values_are_written_as_people_do(chance, words):
    assert plots.p_value(chance) == words


def test_a_gain_is_drawn_by_what_it_leaves():
    axis = scales.Axis.over([0.0, 0.9999], scale="gain")
    ninety, ninety_nine = axis.part(0.9) - axis.part(0.0), axis.part(0.99) - axis.part(0.9)
    assert ninety == pytest.approx(ninety_nine)
    assert axis.ticks(0.15)[:3] == [0.9, 0.99, 0.999]


def test_a_value_lies_on_its_side_of_the_limit():
    plot = plots.measured(FAILED.measurements[2], FAILED.exhibits[0])
    start, width = plot.bad
    assert start <= plot.value.x <= start + width
    assert all(mark.x < start for mark in plot.clean)
    plot = plots.measured(PASSED.measurements[1], PASSED.exhibits[0])
    assert plot.value.x > sum(plot.bad)


def test_rendering_needs_no_torch():
    code = "import sys, encodercheck.render.html as h; h.render([]); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
