"""``encodercheck scan`` of many models: one run, one table, one exit code, and what is kept."""

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import zoo_models
from commands import COMMAND, environment, run
from zoo_models import (
    CHEAP,
    CRASHES,
    FAILS,
    FINE,
    HANGS,
    HUNGRY,
    KILLED,
    SLOW,
    ledger,
    scan,
    wait_for,
    zoo,
)

TOMORROW = "2999-01-01"

# Where a scan keeps what checks write about a second reading of a file.
OTHERWISE = "read-otherwise"


def outcomes(folder):
    """Return how each model of a folder of results ended, each once."""
    found = [(entry["model"], entry["outcome"]) for entry in ledger(folder)]
    assert len(dict(found)) == len(found)
    return dict(found)


def table(ended):
    """Return the rows of the table: verdicts by model."""
    lines = ended.stdout.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("verdict "))
    rows = [line.split("zoo/")[0].strip() for line in lines[start + 1 :] if "zoo/" in line]
    names = [line.split("zoo/")[1].split()[0] for line in lines[start + 1 :] if "zoo/" in line]
    return dict(zip(names, rows, strict=True))


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A run over five models, two of which are no good, and its folder."""
    folder = tmp_path_factory.mktemp("zoo")
    zoo(folder, FINE, FAILS, FINE, FINE)
    (folder / "zoo" / "broken.safetensors").write_bytes(b"nothing")
    ended = scan(folder, "zoo/*.safetensors", "--out", "out", "--json", "all.json")
    return ended, folder


def test_a_result_that_was_edited_is_measured_again_and_that_is_said(tmp_path):
    zoo(tmp_path, FAILS)
    # As more than one model, since a single file has no table.
    zoo_models.write(tmp_path / "zoo" / "m1.safetensors", FINE, seed=1)
    assert scan(tmp_path, "zoo", "--out", "out").returncode == 1
    entry = next(entry for entry in ledger(tmp_path / "out") if entry["exit_code"] == 1)
    place = tmp_path / "out" / entry["report"]
    measured = json.loads(place.read_text())
    for finding in measured["findings"]:
        finding |= {"outcome": "passed", "witness": None, "message": ""}
        for value in finding["measurements"]:
            value["outcome"] = "passed"
    place.write_text(json.dumps(measured | {"outcome": "passed", "exit_code": 0}))
    for command in (["merge", "out", "--out", "all"], ["diff", "out", "out"]):
        ended = run(*command, cwd=tmp_path)
        assert ended.returncode == 2
        assert "not the report that was written" in ended.stdout + ended.stderr
    ended = scan(tmp_path, "zoo", "--out", "out")
    assert ended.returncode == 1
    assert f"{Path('out') / entry['report']}: not as it was written, by its digest" in ended.stdout
    assert "scanning zoo/m0.safetensors again" in ended.stdout
    assert json.loads(place.read_text())["exit_code"] == 1
    ended = scan(tmp_path, "zoo", "--out", "out")
    assert (ended.returncode, "not as it was written" in ended.stdout) == (1, False)


def test_what_a_pattern_passes_over_is_said(tmp_path):
    zoo(tmp_path, FINE)
    (tmp_path / "zoo" / "m0.safetensors").rename(tmp_path / "zoo" / "M0.SAFETENSORS")
    for link in ("one", "two"):
        (tmp_path / "zoo" / link).symlink_to(".")
    ended = scan(tmp_path, "zoo/**/*.safetensors", "--out", "out")
    assert (ended.returncode, list(outcomes(tmp_path / "out"))) == (0, ["zoo/M0.SAFETENSORS"])
    assert ended.stderr == (
        "encodercheck: passed over: 2 links to folders (zoo/one, zoo/two); name what is to be "
        "scanned\n"
    )


def test_many_models_are_one_run(first):
    ended, folder = first
    assert ended.returncode == 1, ended
    assert ended.stderr == ""
    assert table(ended) == {
        "broken.safetensors": "NO VERDICT (error)",
        "m0.safetensors": "PASSED",
        "m1.safetensors": "FAILED",
        "m2.safetensors": "PASSED",
        "m3.safetensors": "PASSED",
    }
    assert "FAILED  5 models: 3 passed, 1 failed, 1 error  in " in ended.stdout
    # Of what failed more is said than a line.
    assert ended.stdout.count("fate 1 (at most 0.5)") == 1
    reports = json.loads((folder / "all.json").read_text())["reports"]
    assert [Path(r["model"]["path"]).stem for r in reports] == ["broken", "m0", "m1", "m2", "m3"]


def test_each_model_has_a_report_of_its_own(first):
    _, folder = first
    entries = ledger(folder / "out")
    assert len(entries) == 5
    for entry in entries:
        report = json.loads((folder / "out" / entry["report"]).read_text())
        assert report["schema"] == "encodercheck.report/1"
        assert report["model"]["path"] == entry["model"]
        assert (report["outcome"], report["exit_code"]) == (entry["outcome"], entry["exit_code"])
        assert report["model"]["sha256"] == entry["sha256"]
        assert Path(entry["report"]).parent.name.endswith(f"-{entry['key'][:12]}")
        ended = run("report", folder / "out" / entry["report"], cwd=folder)
        assert ended.returncode == entry["exit_code"]
    kept = [path for path in (folder / "out").rglob("note.txt") if OTHERWISE not in path.parts]
    assert [path.read_text() for path in kept] == ["kept"]


def test_a_rerun_measures_only_what_has_changed(first, tmp_path):
    _, folder = first
    before = {entry["model"]: entry for entry in ledger(folder / "out")}
    zoo_models.write(folder / "zoo" / "m2.safetensors", FAILS, seed=9)
    ended = scan(folder, "zoo", "--out", "out")
    assert ended.returncode == 1
    assert "4 models" not in ended.stdout and "3 of them known from before" in ended.stdout
    new = ledger(folder / "out")[5:]
    assert [(entry["model"], entry["outcome"]) for entry in new] == [
        ("zoo/m2.safetensors", "failed")
    ]
    assert new[0]["key"] != before["zoo/m2.safetensors"]["key"]
    # A broken one is tried again, without news; a copy under another name is no other model.
    (folder / "zoo" / "copy.safetensors").write_bytes(
        (folder / "zoo" / "m1.safetensors").read_bytes()
    )
    ended = scan(folder, "zoo", "--out", "out")
    assert "5 of them known from before" in ended.stdout
    (entry,) = ledger(folder / "out")[6:]
    assert entry["key"] == before["zoo/m1.safetensors"]["key"]
    assert (folder / "out" / entry["report"]).parent.joinpath("FATE", "note.txt").exists()


@pytest.mark.slow
def test_settings_and_checks_are_part_of_the_key_and_verdicts_are_not(tmp_path):
    zoo(tmp_path, FINE, FAILS)

    def again(*options):
        ended = scan(tmp_path, "zoo", "--out", "out", *options)
        return ended.returncode, "known from before" in ended.stdout

    assert again() == (1, False)
    assert again() == (1, True)
    assert again("--no-cache") == (1, False)
    assert again("--seed", "1") == (1, False)
    # What is failed is not measured again for it to count, or not to.
    assert again("--strict") == (1, True)
    assert again("--fail-on", "critical") == (0, True)
    entries = {entry["model"]: entry for entry in ledger(tmp_path / "out")}
    assert entries["zoo/m1.safetensors"]["exit_code"] == 0
    sha256 = entries["zoo/m1.safetensors"]["sha256"]
    (tmp_path / "encodercheck.toml").write_text(
        f'[[waivers]]\nmodel = "sha256:{sha256}"\ncheck = "FATE"\nreason = "a test"\n'
        f"expires = {TOMORROW}\n"
    )
    assert again() == (0, True)
    (tmp_path / "encodercheck.toml").unlink()
    assert again() == (1, True)
    assert again("--limit", "FATE.fate=2") == (0, False)
    with (tmp_path / "check_fate.py").open("a") as file:
        file.write("\n# another check\nTHRESHOLD = 1\n")
    assert again() == (1, False)


def test_without_a_folder_nothing_is_kept(tmp_path):
    zoo(tmp_path, FINE, FAILS)
    for _ in range(2):
        ended = scan(tmp_path, "zoo")
        assert "known" not in ended.stdout
    notes = [path for path in tmp_path.rglob("note.txt") if OTHERWISE not in path.parts]
    assert [path.parent.parent.name for path in notes] == ["m1"]


def test_one_model_into_a_folder(tmp_path):
    zoo(tmp_path, FAILS)
    ended = scan(tmp_path, "zoo/m0.safetensors", "--out", "out")
    assert ended.returncode == 1
    assert outcomes(tmp_path / "out") == {"zoo/m0.safetensors": "failed"}


def test_lists_and_standard_input(tmp_path):
    names = zoo(tmp_path, FINE, FINE, FINE)
    listed = f"# models\n{names[0]}\nzoo/m[12].safetensors\n"
    (tmp_path / "list.txt").write_text(listed)
    assert "3 passed" in scan(tmp_path, "--from", "list.txt").stdout
    ended = subprocess.run(
        [*COMMAND, "scan", "--from", "-", *CHEAP],
        cwd=tmp_path,
        env=environment(),
        input=listed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 passed" in ended.stdout


def test_shards_are_the_whole(tmp_path):
    names = zoo(tmp_path, *([FINE] * 5), FAILS)
    codes, found = [], {}
    for i in (1, 2, 3):
        ended = scan(tmp_path, *names, "--shard", f"{i}/3", "--out", f"s{i}", "--json", "one.json")
        codes.append(ended.returncode)
        here = outcomes(tmp_path / f"s{i}")
        assert not here.keys() & found.keys()
        found |= here
    assert sorted(found) == names
    assert sorted(codes) == [0, 0, 1]
    formats = ["--json", "m.json", "--junit", "m.xml", "--sarif", "m.sarif", "--markdown", "m.md"]
    ended = run("merge", "s1", "s2", "s3", "--out", "all", *formats, cwd=tmp_path)
    assert ended.returncode == 1, ended
    assert len(table(ended)) == 6
    assert len(json.loads((tmp_path / "m.json").read_text())["reports"]) == 6
    assert all((tmp_path / name).stat().st_size for name in formats[1::2])


def test_a_shard_without_models_is_no_failure_and_can_be_merged(tmp_path):
    (name,) = zoo(tmp_path, FINE)
    ended = [scan(tmp_path, name, "--shard", f"{i}/2", "--out", f"s{i}") for i in (1, 2)]
    assert [each.returncode for each in ended] == [0, 0]
    assert sum("no model is in it, of 1 model in all" in each.stdout for each in ended) == 1
    assert run("merge", "s1", "s2", "--out", "all", cwd=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["zoo/*.onnx"], "no model matches"),
        (["zoo", "--shard", "3/2"], "--shard"),
        (["zoo", "--from", "gone.txt"], "gone.txt"),
        (["zoo", "--jobs", "2", "--cluster", "local"], "exclude each other"),
        (["zoo", "--gpus-per-model", "1"], "--cluster"),
        (["zoo", "--images", "nowhere"], "nowhere"),
        (["zoo", "--out", "blocked/out"], "blocked"),
        (["zoo", "--device", "mps"], "--device mps"),
        (["--out", "out", "--arch", "a.b:c"], "black box"),
    ],
    ids=str,
)
def test_bad_usage_is_one_line_and_two(tmp_path, options, says):
    zoo(tmp_path, FINE, FINE)
    (tmp_path / "blocked").write_text("a file where a folder should be")
    ended = run("scan", *CHEAP[:-2], *options, cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


def test_workers_that_die_take_nothing_with_them(tmp_path):
    zoo(tmp_path, KILLED, FINE, CRASHES, HANGS, FAILS, HUNGRY, FINE)
    options = ["--jobs", "2", "--timeout", "20", "--max-memory", "1MB"]
    ended = scan(tmp_path, "zoo", "--out", "out", *options)
    assert ended.returncode == 1, ended
    assert outcomes(tmp_path / "out") == {
        "zoo/m0.safetensors": "error",
        "zoo/m1.safetensors": "passed",
        "zoo/m2.safetensors": "error",
        "zoo/m3.safetensors": "error",
        "zoo/m4.safetensors": "failed",
        # On half the memory.
        "zoo/m5.safetensors": "passed",
        "zoo/m6.safetensors": "passed",
    }
    assert "killed by SIGKILL twice, the second time on smaller batches" in ended.stdout
    assert "was killed by SIGSEGV; scan it alone" in ended.stdout
    assert "took more than 20 s; allow more with --timeout" in ended.stdout


def test_a_kill_loses_no_more_than_the_model_under_way(tmp_path):
    names = zoo(tmp_path, *([SLOW] * 6))
    command = [*COMMAND, "scan", "zoo", "--out", "out", *CHEAP]
    for count in (2, 4):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL
        )
        wait_for(tmp_path / "out" / "ledger.jsonl", count)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for entry in ledger(tmp_path / "out"):
            json.loads((tmp_path / "out" / entry["report"]).read_text())
    before = outcomes(tmp_path / "out")
    ended = scan(tmp_path, "zoo", "--out", "out")
    assert ended.returncode == 0, ended
    assert f"{len(before)} of them known from before" in ended.stdout
    assert outcomes(tmp_path / "out") == dict.fromkeys(names, "passed")


def test_an_interrupted_run_has_no_verdict_and_leaves_no_process(tmp_path):
    zoo(tmp_path, HANGS, HANGS, FINE)
    process = subprocess.Popen(
        [*COMMAND, "scan", "zoo", "--jobs", "2", *CHEAP],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has it ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(12)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "encodercheck: interrupted, no verdict\n"


def test_merge_and_targets_do_without_torch(first):
    _, folder = first
    code = (
        "import sys; from encodercheck.cli.main import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, "merge", "out", "--out", "merged"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended
    assert "Error" not in ended.stderr
