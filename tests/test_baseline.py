"""What has changed since an earlier scan."""

import json
import math
from dataclasses import replace
from datetime import date

import models
import pytest
from commands import run
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.errors import ConfigError
from encodercheck.known.baseline import Baseline, Difference, Kind, Moved, changes, read_reports
from encodercheck.render import json as render
from encodercheck.render.changes import changes as render_changes
from encodercheck.report import Direction, Finding, Measurement, Outcome, Report, Waiver

SHA, OTHER = "0" * 64, "1" * 64
P, F, U, E = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.ERROR
WAIVER = Waiver("known", date(2027, 3, 1))


def _finding(id_="EC102", outcome=P, *measurements, waiver=None):
    return Finding(
        id_, "check.py::check", "high", outcome, measurements=measurements, waiver=waiver
    )


def _gain(value, limit=0.9):
    return Measurement("gain", value, limit, Direction.AT_MOST)


def _report(*findings, path="model.safetensors", sha256=SHA, **changed):
    model = {
        "path": path, "sha256": sha256, "architecture": "resnet18", "provenance": "index",
        "image_size": 32, "embedding_dim": 64, "parameters": 1000, "notes": [],
    }  # fmt: skip
    images = {"source": "procedural", "count": 100, "unreadable": 0}
    report = Report(model, images, findings or (_finding(),), 0, "cpu", {"torch": "2"}, 1.0)
    return replace(report, **changed)


def _only(before, after):
    (change,) = changes([before], [after])
    return change.kind


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (P, F, Kind.NEWLY_FAILED),
        (U, F, Kind.NEWLY_FAILED),
        (E, F, Kind.NEWLY_FAILED),
        (F, P, Kind.FIXED),
        (F, U, Kind.OUTCOME),
        (F, E, Kind.OUTCOME),
        (U, P, Kind.OUTCOME),
        (P, U, Kind.OUTCOME),
    ],
)
def test_outcomes(before, after, kind):
    assert _only(_finding(outcome=before), _finding(outcome=after)) is kind


def test_what_is_waived_no_more_has_newly_failed():
    waived, failed = _finding(outcome=F, waiver=WAIVER), _finding(outcome=F)
    assert _only(waived, failed) is Kind.NEWLY_FAILED
    assert _only(failed, waived) is Kind.OUTCOME
    assert _only(waived, _finding()) is Kind.FIXED
    assert list(changes([waived], [waived])) == []


def test_checks_that_are_new_or_gone():
    found = list(changes([_finding("A"), _finding("B")], [_finding("C", F), _finding("B")]))
    assert [(change.id, change.kind, change.before, change.after) for change in found] == [
        ("C", Kind.NEW, None, "failed"),
        ("A", Kind.GONE, "passed", None),
    ]


def test_measurements_that_moved():
    before = _finding("A", P, _gain(0.5), Measurement("rank", 3), Measurement("old", 1))
    after = _finding("A", P, _gain(0.6), Measurement("rank", 3.000001), Measurement("new", 1))
    (change,) = changes([before], [after])
    assert change.kind is Kind.MEASUREMENTS
    assert change.measurements == (
        Moved("gain", _gain(0.5), _gain(0.6)),
        Moved("old", Measurement("old", 1), None),
        Moved("new", None, Measurement("new", 1)),
    )


def test_a_limit_that_moved_is_a_change():
    assert _only(_finding("A", P, _gain(0.5)), _finding("A", P, _gain(0.5, 0.95)))
    bare = Measurement("gain", 0.5)
    assert _only(_finding("A", P, _gain(0.5)), _finding("A", P, bare)) is Kind.MEASUREMENTS


NUMBERS = st.floats(width=32)
MEASUREMENTS = st.builds(
    Measurement,
    st.sampled_from(["gain", "rank"]),
    NUMBERS,
    st.one_of(st.none(), NUMBERS),
    st.sampled_from(Direction),
)
FINDINGS = st.lists(
    st.builds(
        lambda id_, outcome, measurements: _finding(id_, outcome, *measurements),
        st.sampled_from("ABC"),
        st.sampled_from(Outcome),
        st.lists(MEASUREMENTS, max_size=4),
    ),
    unique_by=lambda finding: finding.id,
)


@given(FINDINGS)
def test_nothing_changes_from_a_scan_to_itself(findings):
    assert list(changes(findings, findings)) == []


@given(FINDINGS, FINDINGS)
def test_every_failure_that_was_none_is_told_of(before, after):
    told = {change.id: change for change in changes(before, after)}
    old = {finding.id: finding.outcome for finding in before}
    for finding in after:
        if finding.outcome is F and old.get(finding.id) is not F:
            assert told[finding.id].after == "failed"
            assert told[finding.id].kind in (Kind.NEWLY_FAILED, Kind.NEW)
        if old.get(finding.id) is F and finding.id in told:
            fixed = told[finding.id].kind is Kind.FIXED
            assert fixed == (finding.outcome is P)


@given(FINDINGS, FINDINGS)
def test_a_difference_comes_back_from_json(before, after):
    found = Difference("old.json", True, True, ("seed: 0 -> 1",), tuple(changes(before, after)))
    written = json.dumps(found.to_dict(), allow_nan=False)
    assert Difference.from_dict(json.loads(written)).to_dict() == found.to_dict()


# Which report it is.


def test_a_model_is_known_by_its_weights_or_else_by_its_path():
    same = _report(path="copy.safetensors")
    other = _report(sha256=OTHER)
    both = Baseline("old.json", (other, same, _report(path="c", sha256="2" * 64)))
    assert both.compare(_report()).same_weights
    assert both.compare(_report()).changes == ()
    retrained = Baseline("old.json", (other,)).compare(_report(_finding(outcome=F)))
    assert (retrained.known, retrained.same_weights) == (True, False)
    assert [change.kind for change in retrained.changes] == [Kind.NEWLY_FAILED]
    unknown = both.compare(_report(path="d", sha256="3" * 64))
    assert (unknown.known, unknown.changes) == (False, ())
    exact = Baseline("old.json", (same, _report(_finding(outcome=U)))).compare(_report())
    assert [change.before for change in exact.changes] == ["inconclusive"]


def test_a_black_box_is_known_by_its_path():
    box = _report(sha256="")
    assert not Baseline("old.json", (box,)).compare(box).same_weights
    assert not Baseline("old.json", (box,)).compare(_report(path="b", sha256="")).known


def test_what_was_set_otherwise_is_told():
    found = Baseline("old.json", (_report(),)).compare(
        _report(profile="quick", seed=3, versions={"torch": "3"})
    )
    assert found.settings == ("profile: standard -> quick", "seed: 0 -> 3", "torch: 2 -> 3")


def test_one_folder_of_images_is_no_change_however_it_is_spelled():
    images = {"source": "photos/", "digest": "a" * 64, "count": 100, "unreadable": 0}
    before = Baseline("old.json", (_report(images=images),))
    moved = images | {"source": "./photos"}
    other = moved | {"digest": "b" * 64}
    assert before.compare(_report(images=moved)).settings == ()
    assert before.compare(_report(images=other)).settings == (
        "images: 100 photos/ -> 100 ./photos",
    )


# Reading.


@pytest.mark.parametrize("count", [1, 2])
def test_what_a_scan_wrote_is_read(tmp_path, count):
    reports = [_report(_finding("A", F, _gain(math.nan)), path=str(n)) for n in range(count)]
    path = tmp_path / "old.json"
    path.write_text(render.render(reports))
    read = read_reports(path)
    assert [report.to_dict() for report in read] == [report.to_dict() for report in reports]
    assert Baseline.read(path).compare(reports[0]).changes == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"3",
        b"\xff",
        b"[" * 100_000,
        b'{"reports": []}',
        b'{"reports": [3]}',
        b'{"schema": "encodercheck.null/1"}',
        json.dumps({**_report().to_dict(), "findings": 3}).encode(),
        json.dumps({**_report().to_dict(), "findings": [{}]}).encode(),
        json.dumps({**_report().to_dict(), "model": None}).encode(),
        json.dumps({**_report(_finding(outcome=F)).to_dict(), "outcome": "passed"}).encode(),
        json.dumps({"schema": "encodercheck.report/2"}).encode(),
        json.dumps(_report().to_dict()).encode()[:-40],
    ],
    ids=range(15),
)
def test_what_is_no_report_is_one_line(tmp_path, content):
    path = tmp_path / "old.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"old\.json: no usable report .*scan --json") as caught:
        Baseline.read(path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    for path in (tmp_path / "missing.json", tmp_path, tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match="name a report"):
            Baseline.read(path)


# On the console and in a scan.


def _shown(found):
    return render_changes(found).plain


def test_the_console_says_what_changed():
    before = [_finding("A", P, _gain(0.5)), _finding("B", F), _finding("C")]
    after = [_finding("A", F, _gain(0.99, 0.95)), _finding("B", P), _finding("D")]
    old = Baseline("old.json", (_report(*before),))
    shown = _shown(old.compare(_report(*after, seed=1)))
    assert shown.splitlines() == [
        "since old.json",
        "  seed: 0 -> 1",
        "A         newly failed passed -> failed",
        "          gain 0.5 -> 0.9900 (limit 0.9 -> 0.95)",
        "B         fixed        failed -> passed",
        "D         new          passed",
        "C         gone         passed",
    ]
    assert "no check ends or measures otherwise" in _shown(old.compare(_report(*before)))
    assert "not in it" in _shown(old.compare(_report(path="x", sha256=OTHER)))
    assert "other weights" in _shown(old.compare(_report(*before, sha256=OTHER)))


def test_names_from_a_file_cannot_write_to_the_terminal():
    evil = "\x1b[31mA"
    old = Baseline(evil, (_report(_finding(evil, P, Measurement(evil, 1))),))
    assert "\x1b" not in _shown(old.compare(_report(profile=evil)))


CHECK = """
import pytest

@pytest.mark.check("OWN1")
def check_own(measure): measure("x", 5, at_most={limit})
"""


def test_a_scan_against_a_baseline(tmp_path):
    models.write(tmp_path / "model.safetensors")
    check = tmp_path / "check_own.py"
    check.write_text(CHECK.format(limit=6))
    command = ["scan", "model.safetensors", "--checks", check, "-k", "OWN1", "--profile", "quick"]
    first = run(*command, "--json", "old.json", cwd=tmp_path)
    assert first.returncode == 0, first
    check.write_text(CHECK.format(limit=4))
    ended = run(*command, "--baseline", "old.json", "--json", "new.json", cwd=tmp_path)
    # It is news, and counts all the same.
    assert ended.returncode == 1, ended
    assert "OWN1      newly failed passed -> failed" in ended.stdout
    assert "x 5 -> 5 (limit 6 -> 4)" in ended.stdout
    written = json.loads((tmp_path / "new.json").read_text())
    told = written["baseline"]
    assert (told["path"], told["known"], told["same_weights"]) == ("old.json", True, True)
    assert [(change["id"], change["kind"]) for change in told["changes"]] == [
        ("OWN1", "newly_failed")
    ]
    assert read_reports(tmp_path / "new.json")[0].to_dict() == written
    refused = run(*command, "--baseline", "check_own.py", "--json", "no.json", cwd=tmp_path)
    assert refused.returncode == 2
    assert "check_own.py: no usable report" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert refused.stdout == ""
    assert not (tmp_path / "no.json").exists()
