"""Every format from one run of the command, in fresh processes."""

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import tiny_fixtures
from commands import python, run
from reports import FAILED, PASSED, WAIVED, report
from test_formats import validate_junit, validate_sarif

from encodercheck.render import json as render_json

SCRIPT = Path(tiny_fixtures.__file__)
FILES = {
    "json": "out/report.json",
    "junit": "out/junit.xml",
    "sarif": "out/report.sarif",
    "markdown": "out/summary.md",
    "html": "out/report.html",
    "badge": "out/badge.svg",
}
EVERYTHING = [part for name, file in FILES.items() for part in (f"--{name}", file)]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A run over a fixture and a model that is not there, and its folder."""
    folder = tmp_path_factory.mktemp("formats")
    models = ["fixture:bad", "gone.safetensors"]
    options = ["--profile", "quick", "-k", "EC001 or EC101", *EVERYTHING]
    ended = python(
        SCRIPT, "scan", *models, *options, cwd=folder, ENCODERCHECK_CACHE=str(folder / "cache")
    )
    return ended, folder


def test_one_run_writes_every_format_and_no_model_is_silent(scanned):
    ended, folder = scanned
    assert ended.returncode == 2, ended
    texts = {name: (folder / file).read_text() for name, file in FILES.items()}
    for name in ("json", "junit", "sarif", "markdown", "html"):
        assert "gone.safetensors" in texts[name], name
        assert "no such file" in texts[name], name
        assert "fixture:bad" in texts[name], name
    assert [r["exit_code"] for r in json.loads(texts["json"])["reports"]][1] == 2
    validate_junit(texts["junit"])
    suites = ElementTree.fromstring(texts["junit"]).findall("testsuite")
    assert [suite.get("errors") for suite in suites] == ["0", "1"]
    validate_sarif(texts["sarif"])
    (one,) = json.loads(texts["sarif"])["runs"]
    assert [i["executionSuccessful"] for i in one["invocations"]][1] is False
    assert texts["markdown"].startswith("## encodercheck: ⚠️ NO VERDICT")
    assert "no verdict" in texts["badge"]


def test_a_saved_report_is_converted_without_a_scan(scanned):
    _, folder = scanned
    names = [name for name in FILES if name != "json"]
    options = [part for name in names for part in (f"--{name}", f"again/{name}.svg")]
    ended = run("report", FILES["json"], *options, cwd=folder)
    assert ended.returncode == 2, ended
    assert "EC000     error" in ended.stdout
    for name in names:
        if name != "html":  # pictures are no part of the JSON
            again = (folder / "again" / f"{name}.svg").read_text()
            assert again == (folder / FILES[name]).read_text(), name


def test_a_single_model_that_cannot_be_read_leaves_no_stale_report(tmp_path):
    (tmp_path / "out").mkdir()
    for file in FILES.values():
        (tmp_path / file).write_text("passed")
    ended = run("scan", "gone.safetensors", *EVERYTHING, cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert json.loads((tmp_path / FILES["json"]).read_text())["outcome"] == "error"
    junit = ElementTree.parse(tmp_path / FILES["junit"]).getroot()
    assert (junit.get("tests"), junit.get("errors")) == ("1", "1")
    for file in FILES.values():
        assert (tmp_path / file).read_text() != "passed"


@pytest.mark.parametrize("name", FILES)
def test_what_cannot_be_written_is_found_out_before_the_scan(tmp_path, name):
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "folder").mkdir()
    for place, says in [
        ("file/report", "file"),
        ("folder", "is a folder"),
        (os.devnull, "regular"),
    ]:
        ended = run("scan", "gone.safetensors", f"--{name}", place, cwd=tmp_path)
        assert ended.returncode == 2, ended
        assert says in ended.stderr
        # It never came to look for the model.
        assert "gone.safetensors" not in ended.stderr
        assert len(ended.stderr.splitlines()) == 1, ended.stderr


@pytest.mark.parametrize("places", [("-", "-"), ("a", "a"), ("a", "./b/../a")])
def test_two_formats_do_not_share_a_place(tmp_path, places):
    (tmp_path / "b").mkdir()
    options = ["--json", places[0], "--junit", places[1]]
    ended = run("scan", "gone.safetensors", *options, cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert "only one of them" in ended.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


@pytest.fixture
def saved(tmp_path):
    (tmp_path / "report.json").write_text(render_json.render([report(PASSED, FAILED)]))
    return tmp_path


def test_stdout_is_for_one_format_and_the_rest_goes_to_stderr(saved):
    for name, start in [("junit", "<?xml"), ("sarif", "{"), ("markdown", "## enc"), ("badge", "{")]:
        ended = run("report", "report.json", f"--{name}", "-", cwd=saved, PYTHONIOENCODING="ascii")
        assert ended.returncode == 1, ended
        assert ended.stdout.startswith(start)
        assert "FAILED" in ended.stderr


@pytest.mark.parametrize(
    ("findings", "code"), [([PASSED], 0), ([PASSED, FAILED], 1), ([PASSED, WAIVED], 0), ([], 2)]
)
def test_a_saved_report_has_the_exit_code_of_its_scan(tmp_path, findings, code):
    (tmp_path / "report.json").write_text(render_json.render([report(*findings)]))
    assert run("report", "report.json", cwd=tmp_path).returncode == code


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"reports": []}', "[" * 100_000, "\x00", '"\\ud800"']
)
def test_what_is_no_report_is_one_line_and_two(tmp_path, text):
    (tmp_path / "report.json").write_text(text)
    ended = run("report", "report.json", "--junit", "r.xml", cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert "report.json" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert not (tmp_path / "r.xml").exists()
