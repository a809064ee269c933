"""What the benchmark of many models finds wrong, and how it counts."""

import json

import pytest
import torch
from test_zoo_results import keep
from torch import nn

from benchmarks.zoo_scale import __main__ as scale
from benchmarks.zoo_scale import classes, pages, scans
from benchmarks.zoo_scale.endure import Life
from benchmarks.zoo_scale.making import make
from benchmarks.zoo_scale.ways import BASE, DEFAULT, Way, together, told
from encodercheck.encoder import Encoder
from encodercheck.preprocessing import Preprocessing
from encodercheck.zoo.keeping import Keeper

NAMES = ["ma", "mb"]


@pytest.fixture
def out(tmp_path):
    """Return a folder of results of two models."""
    keeper = Keeper(tmp_path / "out")
    for name in NAMES:
        keep(keeper, name, name[1])
    return tmp_path / "out"


def found(out, names=NAMES):
    return {kind: models for kind, models in scans.faults(out, names).items() if models}


def test_what_is_lost_doubled_or_broken_is_found(out):
    assert found(out) == {}
    assert found(out, [*NAMES, "mc"]) == {"lost": ["mc"]}
    ledger = out / "ledger.jsonl"
    text = ledger.read_text()
    ledger.write_text(text + text.splitlines(keepends=True)[0])
    assert found(out)["doubled"] == ["ma", "ma-aaaaaaaaaaaa"]
    ledger.write_text(text.splitlines(keepends=True)[1])
    assert found(out) == {"lost": ["ma"], "doubled": ["ma-aaaaaaaaaaaa"]}
    ledger.write_text(text)
    (report,) = out.glob("reports/mb-*/report.json")
    report.write_text(report.read_text().replace('"mb"', '"mx"'))
    assert found(out) == {"broken": ["mb"]}


def test_what_has_changed_since_the_kill_is_found(out):
    life = Life(out.parent, [], [], every=1)
    life.note_kill()
    kept = json.loads(life.killed.read_text())
    keep(Keeper(out), "mc", "c")
    assert list(life._changed(kept)) == []
    (report,) = out.glob("reports/ma-*/report.json")
    report.write_text(report.read_text() + "\n")
    ledger = out / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace("mb", "mx", 1))
    assert list(life._changed(kept)) == ["the ledger", "ma"]


def test_models_are_made_once_and_differ(tmp_path):
    make(tmp_path, 6)
    first = {path: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / "m00003.safetensors").unlink()
    make(tmp_path, 6)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == first
    assert len(set(first.values())) == 6


def test_overhead_is_what_workers_did_beside(out):
    entries = scans.entries(out)
    # The clock of the second one stops a minute later.
    times = [f"2026-11-20T10:0{minute}:10+00:00" for minute in (0, 1)]
    entries = [
        type(entry)(**{**vars(entry), "finished": time, "seconds": 10.0})
        for entry, time in zip(entries, times, strict=True)
    ]
    began = scans.ended(entries[0]) - 10
    row = told(Way("two", workers=2), entries, began - 5)
    assert row["startup"] == 5
    assert row["span"] == 70
    assert row["overhead"] == (2 * 70 - 20) / 2


def test_turns_of_a_way_are_added_up():
    first = {"way": "--jobs 2", "cores": 2, "workers": 2, "models": 10, "startup": 4.0}
    first |= {"span": 60.0, "per_model": 6.0, "overhead": 0.1, "exit_code": 0}
    second = first | {"models": 30, "span": 90.0, "per_model": 2.0, "exit_code": 1}
    outcomes = [{"passed": 10}, {"passed": 28, "failed": 2}]
    row = together(
        [one | {"outcomes": o} for one, o in zip((first, second), outcomes, strict=True)]
    )
    assert (row["models"], row["span"], row["per_model"], row["exit_code"]) == (40, 150.0, 3.0, 1)
    assert row["rates"] == [10.0, 20.0]
    assert row["outcomes"] == {"passed": 38, "failed": 2}


def test_tables_say_what_was_measured():
    row = {"models": 10, "cores": 1, "startup": 5, "per_model": 6.0, "overhead": 0.06}
    row["rates"] = [14.0, 16.0]
    rows = [
        {"way": BASE, "span": 60, **row, "rates": [6.0, 10.0]},
        {"way": f"{DEFAULT} (2 threads)", "span": 40, **row, "cores": 2},
        {"way": "--jobs 2", "span": 32, **row, "cores": 2},
    ]
    ways = {"models": 10, "certified": 4, "keyword": "", "cores": 2, "rows": rows}
    text = pages.tables({"ways": ways})
    assert "10 models of a fixture's size (4 certified, the rest variations of one)" in text
    assert "| one process, as it comes (2 threads) | 15.0 (14.0, 16.0) | 0.75 | 1.00 |" in text
    assert "| --jobs 2 | 18.8 (14.0, 16.0) | 0.94 | 1.25 | 6.00 | 0.06 s, 1.0% | 5 |" in text


def test_the_drift_is_that_of_the_second_half():
    taken = [100, 200, 250, 250, 251, 252]
    samples = [
        {"life": 1, "done": 50 * n, "driver": 300.0, "workers": {"7": float(megabytes)}}
        for n, megabytes in enumerate(taken)
    ]
    assert list(pages._memory(samples)) == [
        "| run 1, driver | 6 | 300 | 300 | 300 | +0.0 |\n",
        "| run 1, worker 1 | 6 | 100 | 252 | 252 | +2.0 |\n",
    ]


def test_passes_are_counted_by_whether_a_gradient_is_wanted():
    encoder = Encoder(nn.Flatten(), preprocessing=Preprocessing(image_size=8))
    images = torch.rand(3, 3, 8, 8)
    with classes.counted_passes() as passes:
        encoder(images)
        encoder(images.requires_grad_()).sum().backward()
        with torch.no_grad():
            encoder(images)
    assert passes == {"forward": 6, "gradient": 3}
    assert classes.within(passes, {"forward": 0.5, "gradient": 2.0}) == 9
    encoder(images)
    assert passes == {"forward": 6, "gradient": 3}


def test_a_hub_takes_the_sum_over_its_classes():
    rows = [{"class": "small", "seconds": 36.0}, {"class": "RN50", "seconds": 3600.0}]
    hub = scale.estimate(rows, 1000, 0.5, ["small=0.5", "RN50=0.25"])
    assert [part["hours"] for part in hub["classes"]] == [5.0, 250.0]
    assert (hub["hours"], hub["cost"]) == (255.0, 127.5)
    with pytest.raises(SystemExit, match="no class of small, RN50"):
        scale.estimate(rows, 1000, 0.5, ["ViT-L=1"])
