"""The benchmark for GPUs, on small encoders and whatever device there is."""

import json
import sys

import pytest

from benchmarks import gpu

pytest.importorskip("timm")


def test_it_scans_and_writes_a_row_for_each_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "FIXTURES", ())
    monkeypatch.setattr(gpu, "TINY", (("test_resnet", 32),))
    page = tmp_path / "gpu.md"
    monkeypatch.setattr(sys, "argv", ["gpu", "--tiny", "--device", "cpu", "--out", str(page)])
    gpu.main()
    result = json.loads(page.with_suffix(".json").read_text())
    (row,) = result["rows"]
    assert (row["encoder"], row["device"], len(row["seconds"])) == ("test_resnet", "cpu", 1)
    assert 0 < row["inside"] <= 1
    assert row["checks"].keys() >= {"EC102", "EC202", "EC205"}
    assert page.read_text().count("test_resnet") == 1


def test_every_fixture_is_scanned_on_the_cpu_too():
    found = [(case.name, device) for case, device in gpu.plan("cuda", tiny=False) if case.fixture]
    assert found == [(name, device) for name in gpu.FIXTURES for device in ("cuda", "cpu")]
    real = [(case.name, case.profile) for case, _ in gpu.plan("cuda", tiny=False)][len(found) :]
    assert len(real) == 2 * len(gpu.REAL)


def test_it_ends_when_its_time_is_up(tmp_path, monkeypatch):
    page = tmp_path / "gpu.md"
    monkeypatch.setattr(
        sys, "argv", ["gpu", "--tiny", "--device", "cpu", "--minutes", "0", "--out", str(page)]
    )
    gpu.main()
    assert not page.exists()
