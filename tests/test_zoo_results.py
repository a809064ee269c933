"""Folders of results: what a ledger says, whatever became of who wrote it, and what is merged."""

import json
import multiprocessing
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import reports
from hypothesis import given, settings
from hypothesis import strategies as st

from encodercheck.errors import ConfigError
from encodercheck.report import Outcome
from encodercheck.zoo import results
from encodercheck.zoo.keeping import Keeper, safe_name
from encodercheck.zoo.measuring import moved
from encodercheck.zoo.merging import merge
from encodercheck.zoo.rows import worst

FAILED = replace(reports.FAILED, witness="EC202/witness.safetensors")


def report(outcome=Outcome.PASSED, model="m"):
    found = {Outcome.PASSED: reports.PASSED, Outcome.FAILED: FAILED, Outcome.ERROR: reports.BROKEN}
    return reports.report(found[outcome], path=model)


def keep(keeper, model, key, outcome=Outcome.PASSED, files=None):
    made = report(outcome, model)
    return keeper.add(model, key * 64, made, made, files or {})


def test_what_is_kept_is_read_again(tmp_path):
    files = {"EC202/witness.safetensors": b"w", "EC202/witness.png": b"p"}
    keep(Keeper(tmp_path), "zoo/a.safetensors", "a", Outcome.FAILED, files)
    (entry,) = results.read(tmp_path)
    assert entry.report == f"reports/zoo-a-{'a' * 12}/report.json"
    assert (entry.outcome, entry.exit_code, entry.sha256) == ("failed", 1, "ab" * 32)
    line = json.loads((tmp_path / "ledger.jsonl").read_text())
    assert set(line) == {
        *("schema", "key", "model", "sha256", "report"),
        *("outcome", "exit_code", "seconds", "finished", "report_sha256", "measured_sha256"),
    }
    (saved,) = results.reports(tmp_path)
    witness = saved["findings"][0]["witness"]
    assert Path(witness).read_bytes() == b"w"
    told = json.loads((tmp_path / entry.report).read_text())
    assert told["findings"][0]["witness"] == "EC202/witness.safetensors"


def test_a_torn_last_line_is_ignored_and_stays_apart_from_the_next(tmp_path):
    keeper = Keeper(tmp_path)
    for key in "abc":
        keep(keeper, f"m{key}", key)
    ledger = tmp_path / "ledger.jsonl"
    whole = ledger.read_bytes()
    last = whole.rindex(b"\n", 0, len(whole) - 1) + 1
    for end in range(last, len(whole)):
        ledger.write_bytes(whole[:end])
        assert [entry.model for entry in results.lines(tmp_path)] == ["ma", "mb"]
    ledger.write_bytes(whole[:-20])
    again = Keeper(tmp_path)
    assert again.known == {"a" * 64, "b" * 64}
    keep(again, "md", "d")
    assert [entry.model for entry in results.lines(tmp_path)] == ["ma", "mb", "md"]


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[]",
        "{}",
        "[" * 5000,
        '{"schema": "encodercheck.ledger/2"}',
        {"report": "../../etc/report.json"},
        {"report": "/etc/report.json"},
        {"report": "reports/x/other.json"},
        {"exit_code": 7},
        {"exit_code": None},
        {"outcome": "fine"},
        {"seconds": "NaN"},
        {"model": 3},
        "\x00\xff",
    ],
    ids=str,
)
def test_what_is_no_entry_is_passed_over(tmp_path, line):
    keeper = Keeper(tmp_path)
    entry = keep(keeper, "good", "a")
    bad = json.dumps(entry.to_dict() | {"model": "bad"} | line) if isinstance(line, dict) else line
    with (tmp_path / "ledger.jsonl").open("a", encoding="latin-1") as file:
        file.write(bad + "\n")
    assert [found.model for found in results.read(tmp_path)] == ["good"]


def test_the_latest_result_of_a_model_holds(tmp_path):
    keeper = Keeper(tmp_path)
    keep(keeper, "m", "a")
    keep(keeper, "m", "b", Outcome.FAILED)
    assert [entry.key[0] for entry in results.read(tmp_path)] == ["b"]
    assert [entry.key[0] for entry in results.lines(tmp_path)] == ["a", "b"]


def test_copies_of_a_model_have_folders_of_their_own(tmp_path):
    keeper = Keeper(tmp_path)
    places = {keep(keeper, model, "a").report for model in ("a/b", "a-b", "a-b.safetensors")}
    assert len(places) == 3
    assert {saved["model"]["path"] for saved in results.reports(tmp_path)} == {
        "a/b",
        "a-b",
        "a-b.safetensors",
    }


@given(st.text(min_size=1))
def test_names_of_folders_are_safe(model):
    name = safe_name(model)
    assert name and name[0] not in ".-" and not set(name) & set("/\\:*?\0") and len(name) <= 80


def test_a_damaged_report_is_measured_again(tmp_path):
    keeper = Keeper(tmp_path)
    entry = keep(keeper, "m", "a")
    (tmp_path / entry.report).write_text("{")
    assert keeper.find("a" * 64, "m") is None
    with pytest.raises(ConfigError, match="not the report that was written"):
        list(results.reports(tmp_path))


@pytest.mark.parametrize("edited", ["report.json", "measured.json"])
@pytest.mark.parametrize("judged_otherwise", [False, True])
def test_an_edited_report_is_not_believed(tmp_path, edited, judged_otherwise):
    keeper = Keeper(tmp_path)
    made = report(Outcome.FAILED)
    judged = replace(made, strict=True) if judged_otherwise else made
    entry = keeper.add("m", "a" * 64, made, judged, {})
    assert keeper.find("a" * 64, "m") == (entry, made)
    assert keeper.altered("a" * 64, "m") is None
    place = (tmp_path / entry.report).with_name(edited)
    place.write_text(json.dumps(report(Outcome.PASSED).to_dict()))
    for one in (keeper, Keeper(tmp_path)):
        assert one.find("a" * 64, "m") is None
        assert one.altered("a" * 64, "m") == tmp_path / entry.report
    again = keeper.add("m", "a" * 64, made, judged, {})
    assert keeper.find("a" * 64, "m") == (again, made)


def test_a_copy_of_an_edited_result_is_taken_in_its_place(tmp_path):
    keeper = Keeper(tmp_path)
    entry, copy = keep(keeper, "m", "a"), keep(keeper, "copy", "a")
    (tmp_path / entry.report).write_text("{}")
    found, _ = keeper.find("a" * 64, "m")
    assert found == copy


def test_a_ledger_without_digests_is_read_and_nothing_is_taken_over(tmp_path):
    entry = keep(Keeper(tmp_path), "m", "a")
    line = {n: v for n, v in entry.to_dict().items() if not n.endswith("_sha256")}
    (tmp_path / "ledger.jsonl").write_text(json.dumps(line) + "\n")
    assert [found["outcome"] for found in results.reports(tmp_path)] == ["passed"]
    assert Keeper(tmp_path).find("a" * 64, "m") is None


def test_a_witness_outside_its_folder_is_not_read(tmp_path):
    made = moved(report(Outcome.FAILED), lambda _: "../../../secret")
    Keeper(tmp_path).add("m", "a" * 64, made, made, {})
    with pytest.raises(ConfigError, match="damaged report"):
        list(results.reports(tmp_path))


def test_errors_are_no_known_results_and_the_same_error_is_no_news(tmp_path):
    keeper = Keeper(tmp_path)
    keep(keeper, "m", "a", Outcome.ERROR)
    keep(keeper, "m", "a", Outcome.ERROR)
    assert keeper.known == frozenset()
    assert len(list(results.lines(tmp_path))) == 1


def test_no_folder_of_results_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="scan --out"):
        list(results.read(tmp_path / "nowhere"))


def _write_many(folder, who):
    keeper = Keeper(Path(folder))
    for number in range(50):
        keep(keeper, f"{who}-{number}", "ab"[number % 2])
        # And both write the same result.
        keep(keeper, "shared", "c")


def test_two_processes_write_to_one_folder(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(str(tmp_path), who)) for who in "xy"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len((tmp_path / "ledger.jsonl").read_bytes().splitlines()) == 200
    assert len(list(results.lines(tmp_path))) == 200
    names = [saved["model"]["path"] for saved in results.reports(tmp_path)]
    assert sorted(names) == sorted([f"{w}-{n}" for w in "xy" for n in range(50)] + ["shared"])


RESULTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c/d", "c-d"]),
        st.sampled_from("0123"),
        st.sampled_from([Outcome.PASSED, Outcome.FAILED]),
    ),
    max_size=6,
)


def _content(folder):
    """Return all that is in a folder of results."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


@settings(max_examples=25)
@given(st.lists(RESULTS, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_merging_is_free_of_order_and_idempotent(found, chance):
    with tempfile.TemporaryDirectory() as place:
        folders = [Path(place) / str(number) for number in range(len(found))]
        for folder, made in zip(folders, found, strict=True):
            keeper = Keeper(folder)
            for model, key, outcome in made:
                files = {"EC202/w": model.encode()} if outcome is Outcome.FAILED else {}
                keep(keeper, model, key, outcome, files)
        one, other = Path(place) / "one", Path(place) / "other"
        merged = merge(folders, one)
        union = {e.identity for folder in folders for e in results.lines(folder)}
        assert {entry.identity for entry in results.lines(one)} == union
        assert merged.entries == len(union) == len(list(results.lines(one)))
        chance.shuffle(folders)
        merge(folders, other)
        assert _content(one) == _content(other)
        before = _content(one)
        merge([*folders, other], one)
        assert _content(one) == before
        assert len(list(results.reports(one))) == len({model for model, _ in union})


def test_merging_says_what_does_not_agree(tmp_path):
    first, second = Keeper(tmp_path / "1"), Keeper(tmp_path / "2")
    keep(first, "same", "a"), keep(second, "same", "a")
    keep(first, "verdicts", "b"), keep(second, "verdicts", "b", Outcome.FAILED)
    keep(first, "versions", "c"), keep(second, "versions", "d")
    merged = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "out")
    assert [line.partition(":")[0] for line in merged.conflicts] == ["verdicts", "versions"]
    assert "failed and passed" in merged.conflicts[0]
    latest = {entry.model: entry for entry in results.read(tmp_path / "out")}
    assert latest["verdicts"].outcome == "failed"


def test_merging_what_lacks_a_report_is_refused(tmp_path):
    entry = keep(Keeper(tmp_path / "1"), "m", "a", Outcome.FAILED)
    (tmp_path / "1" / entry.report).unlink()
    with pytest.raises(ConfigError, match="scan m again"):
        merge([tmp_path / "1"], tmp_path / "out")


def test_merging_what_is_no_folder_of_results_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="scan --out"):
        merge([tmp_path], tmp_path / "out")


def test_one_beats_two_beats_zero():
    codes = [0, 2, 1, 0]
    random.Random(0).shuffle(codes)
    assert (worst(codes), worst([0, 2]), worst([0]), worst([])) == (1, 2, 0, 2)
