"""Results of many models as a table: what a row is, and that nothing is missing in it."""

import dataclasses
import json
import sys

import pytest
from commands import python, run
from hypothesis import given
from hypothesis import strategies as st
from zoos import FAILED, FINISHED, PASSED, UNDECIDED, fill, report, some

from encodercheck.errors import OutputError
from encodercheck.report import Direction, Measurement, Outcome, Report
from encodercheck.zoo import parquet, saved
from encodercheck.zoo.results import Entry

pq = pytest.importorskip("pyarrow.parquet")
GAIN = Measurement("gain", 0.9961, 0.9, Direction.AT_MOST)


def entry(made, finished=FINISHED):
    return Entry("k", made.model["path"], "", "r", made.outcome.value, 0, 1.0, finished)


def rows(*reports, tmp_path, **options):
    """Return what a reader finds in the table of these reports."""
    pairs = [(saved.Result(tmp_path, entry(made)), made) for made in reports]
    file = tmp_path / "results.parquet"
    assert parquet.write(file, pairs, **options) == pq.read_metadata(file).num_rows
    return pq.read_table(file).to_pylist()


def test_the_schema_is_stable():
    """Whoever reads these files relies on it: a change is a new version of ``parquet.SCHEMA``."""
    word = "dictionary<values=string, indices=int32, ordered=0>"
    types = {field.name: str(field.type) for field in parquet.schema()}
    assert parquet.schema().metadata == {b"encodercheck.schema": b"encodercheck.results/1"}
    assert types == {
        **dict.fromkeys(("model", "sha256", "architecture", "provenance"), word),
        "parameters": "int64",
        "image_size": "int32",
        "embedding_dim": "int32",
        "model_outcome": word,
        "exit_code": "int8",
        "model_seconds": "double",
        "finished": "timestamp[us, tz=UTC]",
        "profile": word,
        "strict": "bool",
        "seed": "int64",
        "device": word,
        "images": word,
        "image_count": "int64",
        **dict.fromkeys(("compared_with", "encodercheck_version", "torch_version"), word),
        **dict.fromkeys(("versions", "check_id", "check_name", "severity", "outcome"), word),
        **dict.fromkeys(("counts", "waived"), "bool"),
        "message": "string",
        "seconds": "double",
        "witness": "string",
        "measurement": word,
        **dict.fromkeys(("value", "limit_value", "p_value"), "double"),
        **dict.fromkeys(("direction", "measurement_outcome"), word),
    }


def test_a_file_has_that_schema(tmp_path):
    rows(report(FAILED), tmp_path=tmp_path)
    read = pq.read_schema(tmp_path / "results.parquet")
    assert read.equals(parquet.schema(), check_metadata=False)
    assert read.metadata[b"encodercheck.schema"] == b"encodercheck.results/1"


def test_a_row_is_a_measurement(tmp_path):
    found = rows(report(PASSED, FAILED), tmp_path=tmp_path)
    assert [(row["check_id"], row["measurement"]) for row in found] == [
        ("EC001", "non_finite_weights"),
        ("EC202", "stamped_cosine"),
        ("EC202", "gain"),
    ]
    row = found[2]
    expected = {
        "model": "fixture:badencoder",
        "sha256": "ab" * 32,
        "architecture": "resnet(basic, width 16)",
        "parameters": 312000,
        "image_size": 32,
        "embedding_dim": 128,
        "model_outcome": "failed",
        "exit_code": 1,
        "severity": "critical",
        "outcome": "failed",
        "counts": True,
        "value": 0.9961,
        "limit_value": 0.9,
        "direction": "at_most",
        "measurement_outcome": "failed",
        "p_value": None,
        "seconds": 1.31,
        "model_seconds": 12.345,
        "torch_version": "2",
        "encodercheck_version": None,
    }
    assert {name: row[name] for name in expected} == expected
    assert json.loads(row["versions"]) == {"torch": "2"}
    assert row["finished"].isoformat() == FINISHED


def test_p_values_stand_beside_what_they_are_of(tmp_path):
    chances = Measurement("p_value", 0.25), Measurement("p_value", 1e-5)
    values = (Measurement("cosine", 0.5), chances[0], GAIN, chances[1])
    found = rows(report(dataclasses.replace(FAILED, measurements=values)), tmp_path=tmp_path)
    assert [(row["measurement"], row["value"], row["p_value"]) for row in found] == [
        ("cosine", 0.5, None),
        ("gain", 0.9961, 0.25),
        ("p_value", 1e-5, 1e-5),  # the check stopped before what it is of
    ]


def test_who_counts_checks_and_models_counts_all_of_them(tmp_path):
    unreadable = Report.unreadable("gone.safetensors", "no such file")
    found = rows(report(UNDECIDED), report(path="bare"), unreadable, tmp_path=tmp_path)
    assert [(row["model"], row["check_id"], row["measurement"]) for row in found] == [
        ("fixture:badencoder", "EC101", None),
        ("bare", None, None),
        ("gone.safetensors", "EC000", None),
    ]
    assert [row["model_outcome"] for row in found] == ["inconclusive", "inconclusive", "error"]


@given(st.data())
def test_any_report_can_be_written_and_read(tmp_path_factory, data):
    text = data.draw(st.text(st.characters(codec=None, exclude_categories=()), max_size=20))
    value = data.draw(st.floats())
    measured = Measurement(text, value, data.draw(st.none() | st.floats()), Direction.AT_MOST)
    finding = dataclasses.replace(
        FAILED, id=text, message=text, severity=text, witness=text, measurements=(measured,)
    )
    made = report(finding, path=text, architecture=text, parameters=2**62, image_size=2**40)
    (row,) = rows(made, tmp_path=tmp_path_factory.mktemp("any"))
    whole = text.encode("utf-8", "backslashreplace").decode()
    assert row["model"] == row["check_id"] == row["message"] == whole
    assert row["value"] == value or value != value
    assert row["parameters"] == 2**62


def test_rows_are_written_in_groups(tmp_path):
    made = [report(PASSED, FAILED, path=str(number)) for number in range(10)]
    assert len(rows(*made, tmp_path=tmp_path, group=7)) == 30
    metadata = pq.read_metadata(tmp_path / "results.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [
        *(7, 7, 7, 7),
        2,
    ]
    assert pq.read_table(tmp_path / "results.parquet")["model"].to_pylist()[-1] == "9"


def test_no_result_is_a_table_too(tmp_path):
    assert rows(tmp_path=tmp_path) == []


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    rows(report(PASSED), tmp_path=tmp_path)
    file = tmp_path / "results.parquet"
    before = file.read_bytes()

    def broken():
        yield saved.Result(tmp_path, entry(report(PASSED))), report(PASSED)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        parquet.write(file, broken(), group=1)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["results.parquet"]
    with pytest.raises(OutputError, match="cannot be written"):
        parquet.write(tmp_path / "none" / "results.parquet", [])


def test_the_command_writes_it(tmp_path):
    fill(tmp_path / "zoo", some(3, PASSED, FAILED))
    done = run("zoo", "zoo", "--parquet", "results.parquet", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "results.parquet: 9 rows on 3 models\n"
    assert not (tmp_path / "zoo" / "index.html").exists()
    table = pq.read_table(tmp_path / "results.parquet")
    assert sorted(set(table["model"].to_pylist())) == [f"hf://acme/model-{n}" for n in range(3)]


def test_a_damaged_report_is_no_verdict_and_exit_code_2(tmp_path):
    fill(tmp_path / "zoo", some(2))
    next((tmp_path / "zoo").glob("reports/*0#*/report.json")).write_text("{")
    done = run("zoo", "zoo", "--parquet", "results.parquet", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "report.json" in done.stderr
    found = pq.read_table(tmp_path / "results.parquet").to_pylist()
    assert [row["model_outcome"] for row in found] == ["error", Outcome.PASSED.value]
    assert "damaged report" in found[0]["message"]


def test_without_pyarrow_the_extra_is_named(tmp_path):
    fill(tmp_path / "zoo", some(1))
    code = (
        "import sys; sys.modules['pyarrow'] = None; sys.argv[1:] = ['zoo', 'zoo', '--parquet', 'F']"
        "; from encodercheck.cli.main import main; main()"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'encodercheck[parquet]'" in done.stderr
    assert not (tmp_path / "F").exists()


def test_torch_is_not_needed(tmp_path):
    fill(tmp_path / "zoo", some(1))
    code = (
        "import sys; from pathlib import Path; from encodercheck.zoo import parquet, saved; f = [];"
        "parquet.write('F', [(r, saved.readable(r, f)) for r in saved.of(Path('zoo'))]);"
        "print('torch' in sys.modules)"
    )
    assert python("-c", code, cwd=tmp_path).stdout == "False\n", sys.version
