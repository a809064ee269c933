"""Mutation testing: its table fits the sources, and what it calls red is red."""

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.defects import DEFECTS
from benchmarks.mutations import Copy, digest, edited, page, work_through

ROOT = Path(__file__).parents[1]
BY_NAME = {defect.name: defect for defect in DEFECTS}
EVERY = pytest.mark.parametrize("name", BY_NAME)


def test_defects_have_names_of_their_own():
    assert len(BY_NAME) == len(DEFECTS)


@EVERY
def test_a_defect_is_one_edit_that_can_be_run(name):
    defect = BY_NAME[name]
    source = (ROOT / defect.file).read_text()
    mutated = edited(source, defect)
    assert ast.dump(ast.parse(mutated)) != ast.dump(ast.parse(source))
    compile(mutated, defect.file, "exec")
    assert defect.suffers.endswith(".")


@EVERY
def test_the_tests_that_are_to_notice_exist(name):
    assert BY_NAME[name].tests
    for test in BY_NAME[name].tests:
        file, _, function = test.partition("::")
        tree = ast.parse((ROOT / "tests" / file).read_text())
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not function or function.partition("[")[0] in names


def test_text_that_is_not_there_once_is_refused():
    defect = BY_NAME["compare-flipped"]
    for source in ("", 2 * defect.old):
        with pytest.raises(ValueError, match=r"compare-flipped: .* has its text [02] times"):
            edited(source, defect)


CAUGHT = BY_NAME["nan-passes"]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return Copy.make(tmp_path_factory.mktemp("copy"))


def test_only_a_test_that_fails_is_red(copy):
    """Nor does a defect stay in the copy."""
    run = copy.judge(CAUGHT)
    assert run.red, run.output
    assert run.failed[0].startswith("test_report.py::test_nan_never_passes")
    assert copy.run(CAUGHT.tests).green
    nothing = replace(CAUGHT, tests=("test_report.py::test_gone",))
    broken = replace(CAUGHT, new="else else")
    for silent in (nothing, broken):
        run = copy.judge(silent)
        assert not run.red and not run.green, run.output


def test_a_defect_that_only_a_command_shows_is_noticed(copy):
    """Commands are processes of their own, which import the package anew, or are forked."""
    run = copy.judge(BY_NAME["exit-code-of-the-command"])
    assert run.red, run.output


def test_a_package_from_elsewhere_is_no_run(copy, monkeypatch):
    monkeypatch.setattr(Copy, "site", copy.folder / "nowhere")
    run = copy.run(CAUGHT.tests)
    assert run.status == 70, run.output
    assert not run.red


def test_a_run_goes_on_where_it_was_left(copy, tmp_path, monkeypatch):
    out = tmp_path / "mutations"
    assert [row["caught"] for row in work_through(copy, [CAUGHT], out)] == [True]
    assert "`test_report.py::test_nan_never_passes" in out.with_suffix(".md").read_text()
    monkeypatch.setattr(Copy, "run", lambda *_: pytest.fail("was judged again"))
    rows = work_through(copy, [CAUGHT], out)
    assert page(rows) == out.with_suffix(".md").read_text()
    assert digest(copy, replace(CAUGHT, new="else True")) != rows[0]["digest"]


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_every_defect_is_noticed(copy):
    every = dict.fromkeys(test for defect in DEFECTS for test in defect.tests)
    assert copy.run(every).green
    assert [defect.name for defect in DEFECTS if not copy.judge(defect).red] == []
