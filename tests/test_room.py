"""Images that do not fit into memory are refused before any of them is made."""

import json
import subprocess
import sys

import models
import pytest
import torch
from safetensors.torch import save_file

import encodercheck
from encodercheck import loading, room
from encodercheck.encoder import Encoder
from encodercheck.errors import LoadError
from encodercheck.images import source
from encodercheck.preprocessing import Preprocessing

GIGABYTE = 10**9


def _claiming(path, size):
    about = {"architecture": models.SPEC.to_dict(), "image_size": size}
    about |= {"mean": [0.5] * 3, "std": [0.25] * 3}
    save_file(models.state(), path, {"encodercheck": json.dumps(about)})
    return path


@pytest.fixture
def nothing_runs(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("an image was made")

    monkeypatch.setattr(loading, "_probe", refused)
    monkeypatch.setattr(source, "collect", refused)


def test_a_size_that_the_file_claims_is_held_against_memory(tmp_path, monkeypatch, nothing_runs):
    monkeypatch.setattr(room, "available", lambda: 16 * GIGABYTE)
    path = _claiming(tmp_path / "model.safetensors", 4096)
    with pytest.raises(LoadError) as caught:
        encodercheck.scan(path, profile="quick", device="cpu")
    assert str(caught.value) == (
        f"{path}: 224 images of 4096x4096 pixels (the file's metadata): 56.4 GB of memory, of "
        "which 16.0 GB are free here; name the right size with --image-size, or scan it where "
        "there is more memory"
    )


def test_one_pass_is_counted_without_making_it(tmp_path, monkeypatch, nothing_runs):
    path = _claiming(tmp_path / "model.safetensors", 4096)
    monkeypatch.setattr(room, "available", lambda: GIGABYTE)
    with pytest.raises(LoadError, match=r"a pass of one 4096x4096 image .*--image-size"):
        loading.load(path, device="cpu")


def test_an_encoder_that_is_handed_in_is_held_against_memory_too(monkeypatch):
    monkeypatch.setattr(room, "available", lambda: GIGABYTE)
    encoder = Encoder(torch.nn.Flatten(), preprocessing=Preprocessing(image_size=4096))
    with pytest.raises(LoadError, match="224 images of 4096x4096 pixels"):
        encodercheck.scan(encoder, profile="quick")


def test_the_count_without_numbers_is_that_with_them():
    module = models.ResNet(models.SPEC)
    module.load_state_dict(models.state())
    encoder = Encoder(module, preprocessing=Preprocessing(image_size=64))
    expected, counted = encoder.expected_bytes(), encoder._bytes_per_image()
    assert 0.6 * counted < expected < counted
    assert not any(parameter.is_meta for parameter in module.parameters())


def test_what_is_free_is_the_least_that_anything_says(tmp_path):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemAvailable:    5000 kB\n")
    assert room._of_machine(meminfo) == 5000 * 1024
    assert room._of_machine(tmp_path / "none") is None
    (tmp_path / "memory.max").write_text("4000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 1000000\nfile 2000000\n")
    assert room._of_cgroup(tmp_path) == 3_000_000
    assert room.available(meminfo, tmp_path) <= 3_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert room._of_cgroup(tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_the_command_line_says_it_in_one_line(tmp_path):
    _claiming(tmp_path / "model.safetensors", 4096)
    command = f"{sys.executable} -m encodercheck scan model.safetensors --json report.json"
    ended = subprocess.run(
        ["bash", "-c", f"ulimit -v 16000000; exec {command} --device cpu"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    (line,) = ended.stderr.splitlines()
    assert line.startswith("encodercheck: model.safetensors: 352 images of 4096x4096 pixels")
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["exit_code"] == 2
    assert report["findings"][0]["message"] in line


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
    ],
)
def test_memory_that_ran_out_is_told_from_other_errors(error, expected):
    assert room.ran_out(error) is expected
