"""How much memory a scan says that it used."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from encodercheck import memory
from encodercheck.encoder import Encoder

MEGABYTES = 10**6


def test_the_peak_counts_what_was_held():
    held = torch.ones(50 * MEGABYTES)
    size = held.nbytes
    del held
    peak = memory.peak_resident()
    assert peak is None or size < peak


def test_the_peak_is_not_that_of_the_parent():
    held = bytearray(400 * MEGABYTES)
    held[::4096] = b"x" * len(held[::4096])
    code = "from encodercheck.memory import peak_resident; print(peak_resident())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if sys.platform == "linux":
        assert int(child.stdout) < 400 * MEGABYTES


def test_the_peak_is_read_off_the_status_of_the_process(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t 9999 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 99 kB\n")
    assert memory.peak_resident(status) == 1234 * 1024


@pytest.mark.parametrize("content", [None, "Name:\tpython\n"])
def test_without_a_status_the_system_is_asked(tmp_path, content):
    pytest.importorskip("resource")
    status = tmp_path / "status"
    if content is not None:
        status.write_text(content)
    assert memory.peak_resident(status) > 10 * MEGABYTES


def test_where_nothing_can_be_asked_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory.peak_resident(tmp_path / "none") is None


def test_the_weights_are_counted_as_they_are_kept():
    module = nn.Sequential(nn.Linear(10, 10), nn.BatchNorm1d(10).half())
    used = memory.used_with(Encoder(module))
    assert used.weights_bytes == 110 * 4 + 20 * 2
    assert used.device_peak_bytes is None
    assert used.to_dict() == {
        "weights_bytes": 480,
        "peak_bytes": used.peak_bytes,
        "device_peak_bytes": None,
    }
