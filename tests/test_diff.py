"""What changed between two runs: who is compared with whom, what is worse, and how it is told."""

import dataclasses
import json
from datetime import date

import pytest
from commands import python, run
from hypothesis import given
from hypothesis import strategies as st
from zoos import FAILED, PASSED, UNDECIDED, fill, report, some

from encodercheck.errors import ConfigError
from encodercheck.render import diff_markdown
from encodercheck.render import json as render
from encodercheck.report import Direction, Finding, Measurement, Outcome, Report, Waiver
from encodercheck.zoo.diffing import Fate, Run, Subject, as_json, diff

P, F, U, E = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.ERROR
WAIVER = Waiver("known", date(2027, 3, 1))


def _run(*reports, path="run"):
    held = [Subject(r.model["path"], r.model["sha256"], lambda r=r: r) for r in reports]
    return Run(path, tuple(held))


def _check(outcome, id_="EC102", gain=0.5, **changes):
    measured = (Measurement("gain", gain, 0.9, Direction.AT_MOST),)
    return Finding(id_, "c.py::c", "high", outcome, measurements=measured, **changes)


def _model(*findings, path="m", sha256="1" * 64, **changes):
    made = report(*findings, path=path, sha256=sha256)
    return dataclasses.replace(made, **changes)


def _only(before, after, **options):
    found = diff(_run(before), _run(after), **options)
    (model,) = found.models
    return model, found.exit_code


@pytest.mark.parametrize(
    ("before", "after", "fate", "code"),
    [
        (P, F, Fate.NEWLY_FAILED, 1),
        (U, F, Fate.NEWLY_FAILED, 1),
        (E, F, Fate.NEWLY_FAILED, 1),
        (P, U, Fate.LOST_VERDICT, 1),
        (F, E, Fate.LOST_VERDICT, 1),
        (F, P, Fate.FIXED, 0),
        (U, P, Fate.VERDICT, 0),
        (E, U, Fate.CHECKS, 0),
    ],
)
def test_verdicts(before, after, fate, code):
    model, exit_code = _only(_model(_check(before)), _model(_check(after)))
    assert (model.fate, exit_code) == (fate, code)
    assert ("verdict" in model.worse) == (code == 1) == ("EC102" in model.worse)


def test_one_is_no_plural():
    first, second = _model(_check(P, gain=0.5)), _model(_check(P, gain=0.6))
    told = diff_markdown.render(diff(_run(first), _run(second)))
    assert "1 model in both" in told
    assert "1 measurement moved by more than 0.001 of it" in told
    assert "0 models in both" in diff_markdown.render(diff(_run(first), _run()))


def test_a_check_that_got_worse_under_the_same_verdict():
    before = _model(_check(F, "A"), _check(P, "B"), _check(F, "C", waiver=WAIVER))
    after = _model(_check(F, "A"), _check(F, "B"), _check(F, "C"))
    model, code = _only(before, after)
    assert (model.fate, model.worse, code) == (Fate.CHECKS, ("B", "C"), 1)
    # Accepting a failure, or knowing it to be none, is nothing worse.
    assert _only(after, before)[1] == 0


def test_a_new_check_that_fails_is_worse_and_one_that_passes_is_not():
    before = _model(_check(P, "A"), _check(F, "Z"))
    assert _only(before, _model(*before.findings, _check(F, "B")))[1] == 1
    assert _only(before, _model(*before.findings, _check(P, "B")))[1] == 0


def test_what_is_gone_has_lost_its_verdict_unless_that_is_allowed():
    before = _model(_check(P, "A"), _check(P, "B"))
    model, code = _only(before, _model(_check(P, "A")))
    assert (model.worse, code) == (("B",), 1)
    assert _only(before, _model(_check(P, "A")), allow_gone=True)[1] == 0
    runs = _run(before, _model(_check(P), path="n", sha256="2")), _run(before)
    assert [model.fate for model in diff(*runs).models] == [Fate.GONE]
    assert diff(*runs).exit_code == 1
    assert diff(*runs, allow_gone=True).exit_code == 0
    # Who never had a verdict cannot lose it.
    undecided = _model(_check(U), path="n", sha256="2")
    assert diff(_run(before, undecided), _run(before)).exit_code == 0


def test_new_models():
    before = _model(_check(P))
    for outcome, code in ((P, 0), (U, 0), (F, 1)):
        new = _model(_check(outcome), path="new", sha256="2")
        found = diff(_run(before), _run(before, new))
        assert ([model.fate for model in found.models], found.exit_code) == ([Fate.NEW], code)


def test_models_are_matched_by_name_then_by_weights():
    old = _run(_model(PASSED, path="a", sha256="1"), _model(FAILED, path="b", sha256="2"))
    # The weights changed their names: under the name "a" there is something bad now.
    swapped = _run(_model(FAILED, path="a", sha256="2"), _model(PASSED, path="b", sha256="1"))
    found = diff(old, swapped)
    assert [(m.model, m.fate, m.was) for m in found.models] == [
        ("a", Fate.NEWLY_FAILED, None),
        ("b", Fate.FIXED, None),
    ]
    assert all(model.other_weights for model in found.models)
    renamed = _run(_model(PASSED, path="c", sha256="1"), _model(FAILED, path="b", sha256="2"))
    found = diff(old, renamed)
    assert (found.compared, found.models) == (2, ())


def test_a_name_twice_and_no_weights_at_all():
    twice = _run(_model(PASSED, sha256="1"), _model(FAILED, sha256="2"))
    assert diff(twice, twice).models == ()
    nameless = _run(Report.unreadable("x", "gone")), _run(Report.unreadable("y", "gone"))
    assert [model.fate for model in diff(*nameless).models] == [Fate.GONE, Fate.NEW]


def test_other_weights_with_the_same_results_are_told():
    model, code = _only(_model(PASSED), _model(PASSED, sha256="2" * 64))
    assert (model.fate, code) == (Fate.WEIGHTS, 0)


def test_values_move_beyond_the_tolerance():
    pair = _model(_check(P, gain=0.5)), _model(_check(P, gain=0.52))
    model, code = _only(*pair)
    assert (model.fate, code) == (Fate.MEASUREMENTS, 0)
    ((moved,),) = (change.measurements for change in model.changes)
    assert (moved.before.value, moved.after.value) == (0.5, 0.52)
    assert diff(*map(_run, pair), tolerance=0.1).models == ()
    assert diff(*map(_run, pair), tolerance=0).moved == 1


def test_what_was_set_otherwise_is_counted():
    def many(**changes):
        return _run(*(dataclasses.replace(made, **changes) for made in some(3)))

    found = diff(many(), many(seed=3, versions={"torch": "3"}))
    assert found.settings == (("seed: 0 -> 3", 3), ("torch: 2 -> 3", 3))
    assert found.exit_code == 0
    # A scan that could not begin had no settings.
    unread = Report.unreadable("m", "gone", seed=7)
    assert diff(_run(_model(PASSED)), _run(unread)).settings == ()


def test_what_cannot_be_read_is_named_and_no_pass():
    def fail():
        raise ConfigError("zoo/report.json: a damaged report")

    good = _model(UNDECIDED)
    broken = Run("run", (Subject("m", good.model["sha256"], fail),))
    found = diff(_run(good), broken)
    assert (found.unreadable, found.exit_code) == (("zoo/report.json: a damaged report",), 2)
    # It had a verdict, and has none.
    assert diff(_run(_model(PASSED)), broken).exit_code == 1


REPORTS = st.lists(
    st.builds(
        lambda path, sha256, outcomes: _model(
            *(_check(outcome, f"C{n}") for n, outcome in enumerate(outcomes)),
            path=path,
            sha256=sha256,
        ),
        st.text(max_size=3),
        st.sampled_from(["", "1", "2", "3"]),
        st.lists(st.sampled_from(Outcome), max_size=3),
    ),
    max_size=4,
)


@given(REPORTS, REPORTS)
def test_every_model_is_compared_once(before, after):
    found = diff(_run(*before), _run(*after), allow_gone=True)
    fates = found.fates
    assert found.compared + fates[Fate.NEW] == len(after)
    assert found.compared + fates[Fate.GONE] == len(before)
    assert diff(_run(*after), _run(*after)).models == ()
    json.loads(as_json(found))
    # A table's rows stay rows.
    lines = [line for line in diff_markdown.render(found).splitlines() if line.startswith("|")]
    assert len(lines) == (len(found.models) + 2 if found.models else 0)


def test_names_cannot_break_out_of_markdown_or_the_terminal(tmp_path):
    name = "<img src=x>\x1b[2J|`@team\n# big"
    _save(tmp_path / "a.json", _model(PASSED, path=name))
    _save(tmp_path / "b.json", _model(FAILED, path=name))
    done = run("diff", "a.json", "b.json", "--markdown", "d.md", cwd=tmp_path)
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    told = (tmp_path / "d.md").read_text()
    assert "<img" not in told and "\n# big" not in told and "@team" not in told


def _save(path, *reports):
    path.write_text(render.render(reports), encoding="utf-8")


def test_files_and_folders_compare(tmp_path):
    fill(tmp_path / "old", some(3))
    new = [*some(2), _model(FAILED, path="hf://acme/model-2", sha256=f"{2:064x}")]
    fill(tmp_path / "new", new)
    _save(tmp_path / "new.json", *new)
    for after in ("new", "new.json"):
        done = run("diff", "old", after, "--json", "d.json", cwd=tmp_path, COLUMNS="120")
        assert (done.returncode, done.stderr) == (1, "")
        assert "3 models in both" in done.stdout and "WORSE: 1 model\n" in done.stdout
        assert "hf://acme/model-2  passed -> failed" in done.stdout
        told = json.loads((tmp_path / "d.json").read_text())
        assert told["schema"] == "encodercheck.diff/1"
        assert told["counts"]["models"]["newly_failed"] == told["counts"]["worse"] == 1
        (model,) = told["models"]
        assert (model["model"], model["fate"]) == ("hf://acme/model-2", "newly_failed")
    done = run("diff", "old", "old", cwd=tmp_path)
    assert done.returncode == 0 and "NOTHING CHANGED" in done.stdout


def test_thousands_of_changes_are_cut_and_counted(tmp_path):
    _save(tmp_path / "a.json", *some(70))
    _save(tmp_path / "b.json", *some(70, FAILED))
    done = run("diff", "a.json", "b.json", "--show", "5", cwd=tmp_path)
    assert done.stdout.count("passed -> failed") == 5
    assert "65 more models changed" in done.stdout
    done = run("diff", "a.json", "b.json", "--show", "0", "--markdown", "-", cwd=tmp_path)
    assert done.stdout.startswith("## encodercheck diff: ❌ WORSE: 70 models")
    assert "passed -> failed" not in done.stderr


def test_the_last_result_of_a_model_counts(tmp_path):
    (made,) = some(1, FAILED)
    fill(tmp_path / "zoo", [made], finished="2026-11-20T10:00:00+00:00")
    _save(tmp_path / "a.json", made)
    (mended,) = some(1, dataclasses.replace(FAILED, outcome=P))
    fill(tmp_path / "zoo", [mended], finished="2026-11-21T10:00:00+00:00")
    with (tmp_path / "zoo" / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"schema": "encodercheck.ledger/1", "model": "torn')
    done = run("diff", "a.json", "zoo", cwd=tmp_path)
    assert done.returncode == 0 and "1 fixed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a.json", "none.json"], "none.json"),
        (["a.json", "empty"], "ledger.jsonl"),
        (["a.json", "bare"], "no result in it"),
        (["a.json", "broken.json"], "no usable report"),
        (["a.json", "a.json", "--tolerance", "nan"], "--tolerance"),
        (["a.json", "a.json", "--json", "x", "--markdown", "x"], "only one of them"),
        (["a.json", "a.json", "--json", "empty"], "is a folder"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_exit_code_2(tmp_path, arguments, says):
    _save(tmp_path / "a.json", _model(PASSED))
    (tmp_path / "broken.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "ledger.jsonl").write_text("")
    done = run("diff", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and says in done.stderr


def test_a_report_that_is_not_what_the_ledger_says_is_no_pass(tmp_path):
    fill(tmp_path / "zoo", some(1, FAILED))
    (file,) = tmp_path.glob("zoo/reports/*/report.json")
    file.write_text(render.render(some(1)), encoding="utf-8")
    _save(tmp_path / "a.json", *some(1, UNDECIDED))
    done = run("diff", "a.json", "zoo", cwd=tmp_path)
    assert done.returncode == 2
    assert "in the ledger with 1" in done.stdout


def test_torch_is_not_needed(tmp_path):
    _save(tmp_path / "a.json", _model(PASSED))
    code = (
        "import sys; from encodercheck.cli.main import app;"
        "app(['diff', 'a.json', 'a.json'], standalone_mode=False); print('torch' in sys.modules)"
    )
    assert python("-c", code, cwd=tmp_path).stdout.endswith("False\n")
