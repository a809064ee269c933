"""The command line in fresh processes: exit codes, one line for what a user did wrong."""

import contextlib
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import models
import pytest
import torch
from commands import COMMAND, environment, fresh, python, run
from hostile import shapes_only
from PIL import Image
from safetensors.torch import save_file

from encodercheck.weights import index

# Random weights spread images further with a max-pool: read so as well, unless somebody says so.
ARCH = "resnet,stem_stride=2,maxpool=False"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def model(folder):
    return models.write(folder / "model.safetensors")


def _header(path: Path, length: int, text: bytes = b"{}") -> Path:
    path.write_bytes(struct.pack("<Q", length) + text)
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _truncated(path: Path) -> Path:
    models.write(path)
    path.write_bytes(path.read_bytes()[:-1000])
    return path


def _empty(path: Path) -> Path:
    path.touch()
    return path


def _saved(tensors):
    def make(path: Path) -> Path:
        save_file(tensors, path)
        return path

    return make


def _one_channel(path: Path) -> Path:
    tensors = models.state()
    tensors["conv1.weight"] = tensors["conv1.weight"][:, :1].contiguous()
    save_file(tensors, path)
    return path


def _pickle(path: Path) -> Path:
    path = path.with_suffix(".pt")
    torch.save({"weight": torch.ones(2)}, path)
    return path


TEXT = {"text_model.embeddings.token_embedding.weight": torch.ones(10, 4)}
STRANGE = {"blocks.0.weird.weight": torch.ones(4, 4), "blocks.1.weird.weight": torch.ones(4, 4)}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path, "no such"),
        (_folder, "no .safetensors file"),
        (_empty, "empty"),
        (_truncated, "truncated"),
        (lambda path: _header(path, 2**63), "header"),
        (_pickle, "torch.load"),
        (_saved(TEXT), "text encoder"),
        (_saved(STRANGE), "--arch"),
        (_one_channel, "1 channel"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_model_that_cannot_be_read_is_one_line_and_two(folder, make, says, request):
    number = request.node.callspec.indices["make"]
    path = make(folder / f"bad-{number}.safetensors")
    report = folder / f"bad-{number}.json"
    ended = run("scan", path, "--json", report, cwd=folder)
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert path.name in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    saved = json.loads(report.read_text())
    assert (saved["outcome"], saved["exit_code"]) == ("error", 2)
    assert [finding["id"] for finding in saved["findings"]] == ["EC000"]
    assert says in saved["findings"][0]["message"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--arch", "resnet50"], "does not fit"),
        (["--arch", "resnet5O"], "resnet50"),
        (["--arch", "no.such.module:encoder"], "no.such.module"),
        (["--images", "nowhere"], "no such folder"),
        (["--json", "blocked/report.json"], "blocked"),
        (["--artifacts", "blocked/artifacts"], "blocked"),
        (["--checks", "nowhere.py"], "nowhere.py"),
        (["-k", "nothing_is_called_this"], "selects none"),
        (["--device", "mps"], "--device mps"),
    ],
    ids=lambda value: value[0] + "=" + value[1] if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_and_two(folder, model, options, says):
    (folder / "blocked").write_text("a file where a folder should be")
    ended = run("scan", model, *options, cwd=folder)
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


def test_images_that_are_not_images_are_one_line_and_two(folder, model):
    images = folder / "not-images"
    images.mkdir()
    for i in range(400):
        (images / f"{i}.png").write_text("no image")
    ended = run("scan", model, "--images", images, cwd=folder)
    assert ended.returncode == 2
    assert "400 of its 400 files are not images" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_options_that_make_no_sense_are_usage_errors(folder, model):
    assert run("scan", model, "--profile", "hasty", cwd=folder).returncode == 2
    assert run("scan", model, "--mean", "1,2", cwd=folder).returncode == 2
    assert run("scan", cwd=folder).returncode == 2


def test_nan_weights_fail_the_integrity_check(folder):
    tensors = models.state()
    tensors["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    path = models.write(folder / "nan.safetensors", tensors)
    ended = run("scan", path, "--profile", "quick", "--json", folder / "nan.json", cwd=folder)
    assert ended.returncode == 1, ended
    assert ended.stderr == ""
    outcomes = {
        finding["id"]: finding["outcome"]
        for finding in json.loads((folder / "nan.json").read_text())["findings"]
    }
    assert outcomes.pop("EC001") == "failed"
    assert set(outcomes.values()) == {"inconclusive"}


def test_images_that_are_all_alike_are_inconclusive(folder, model):
    images = folder / "alike"
    images.mkdir()
    for i in range(230):
        Image.new("RGB", (32, 32), (120, 120, 120 + i % 2)).save(images / f"{i}.png")
    command = ["scan", model, "--images", images, "--profile", "quick", "-k", "not EC001"]
    ended = run(*command, cwd=folder)
    assert ended.returncode == 2, ended
    assert "NO VERDICT (no trigger search could decide)" in ended.stdout
    # Each of the eight says how to do without, and so does the conclusion.
    assert ended.stdout.count("--images") == 9


def test_a_scan_on_a_pipe_has_no_control_codes_and_repeats_itself(folder, model):
    # The two that take longest are left out.
    chosen = "not EC201 and not EC301"
    command = ["scan", model, "--profile", "quick", "-k", chosen, "--json", "-"]
    first = run(*command, cwd=folder)
    again = fresh(*COMMAND[1:], *command, cwd=folder, FORCE_COLOR="")
    assert first.returncode == 0, first
    assert "\x1b" not in first.stdout + first.stderr
    assert "PASSED" in first.stderr
    reports = [json.loads(ended.stdout) for ended in (first, again)]
    for report in reports:
        del report["seconds"], report["memory"]["peak_bytes"]
        for finding in report["findings"]:
            del finding["seconds"]
    assert reports[0] == reports[1]


def test_a_custom_check_joins_the_suite(folder, model):
    (folder / "check_acme.py").write_text(
        """
import pytest
from encodercheck.methods import collapse

@pytest.mark.check("ACME001", severity="high")
def check_no_collapse(encoder, images, measure):
    '''Embeddings of natural images span many directions.'''
    z = encoder(images)
    measure("effective_rank", collapse.effective_rank(z), at_least=1000)
"""
    )
    command = ["scan", model, "--checks", "check_acme.py", "-k", "ACME001 or EC101"]
    ended = run(*command, cwd=folder)
    assert ended.returncode == 1, ended
    assert "ACME001   failed" in ended.stdout
    assert "EC101     passed" in ended.stdout
    assert "EC202" not in ended.stdout


def test_the_same_check_runs_in_a_teams_own_pytest(folder, model):
    (folder / "check_own.py").write_text(
        "def check_own(encoder, images, measure):\n"
        "    measure('spread', encoder(images).std(), at_least=1e9)\n"
    )
    (folder / "test_own.py").write_text("def test_own():\n    pass\n")
    command = ["-m", "pytest", "--encoder", model, "-p", "no:cacheprovider"]
    # A guest is run on one reading of an encoder: whose it is has to be said.
    options = ["--encoder-arch", ARCH, "--encoder-profile", "quick", "check_own.py", "test_own.py"]
    ended = python(*command, *options, cwd=folder)
    assert ended.returncode == 1, ended
    assert "1 failed, 1 passed" in ended.stdout
    assert "spread" in ended.stdout


def test_a_terminal_shows_live_progress_and_honours_no_color(folder, model):
    def on_a_terminal(**extra):
        ours, theirs = pty.openpty()
        command = [*COMMAND, "scan", str(model), "--profile", "quick", "-k", "EC202 or EC101"]
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(TERM="xterm-256color", COLUMNS="200", **extra),
            stdout=theirs,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        shown = b""
        # Reading fails when the other side is closed.
        with contextlib.suppress(OSError):
            while part := os.read(ours, 4096):
                shown += part
        os.close(ours)
        assert process.wait() == 0
        return shown.decode()

    coloured, plain = on_a_terminal(), on_a_terminal(NO_COLOR="1")
    colour = re.compile(r"\x1b\[[\d;]*3[1-7]")
    assert colour.search(coloured)
    assert not colour.search(plain)
    for shown in (coloured, plain):
        assert "PASSED" in shown
        text = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", shown)
        assert re.search(r"EC202 .*\d+/25 +best score -?0\.\d\d\d +\d\d:\d\d", text)


def test_ctrl_c_is_130_and_leaves_nothing_behind(folder, model):
    (folder / "check_slow.py").write_text(
        "import time\n\ndef check_slow(encoder):\n    time.sleep(60)\n"
    )
    options = ["--checks", "check_slow.py", "-k", "check_slow", "--json", "cut.json"]
    process = subprocess.Popen(
        [*COMMAND, "scan", str(model), *options],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ignored, and inherited, where a shell started the tests in the background.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip().endswith("model.safetensors")
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "encodercheck: interrupted, no verdict\n"
    # What is known is written, and that it is not all.
    cut = json.loads((folder / "cut.json").read_text())
    assert (cut["exit_code"], cut["outcome"]) == (2, "error")
    assert [(found["id"], found["message"]) for found in cut["findings"]] == [
        ("slow", "did not report: the scan was interrupted"),
        ("scan", "the scan was interrupted"),
    ]


def test_several_models_are_one_exit_code_and_artifacts_apart(folder, model):
    (folder / "twin").mkdir(exist_ok=True)
    twin = models.write(folder / "twin" / "model.safetensors")
    (folder / "check_files.py").write_text(
        "def check_files(artifacts):\n    (artifacts.directory / 'note').write_text('here')\n"
    )
    options = ["--checks", "check_files.py", "-k", "check_files", "--json", "both.json"]
    options += ["--arch", ARCH]
    ended = run("scan", model, "missing.safetensors", twin, *options, cwd=folder)
    assert ended.returncode == 2, ended
    assert "missing.safetensors: no such file" in ended.stdout
    outcomes = [r["outcome"] for r in json.loads((folder / "both.json").read_text())["reports"]]
    assert outcomes == ["passed", "error", "passed"]
    kept = sorted(p.parts[-3] for p in (folder / "encodercheck-artifacts").rglob("note"))
    assert kept == ["model", "model~2"]


def test_identify_says_how_the_architecture_was_found(folder, model):
    ended = run("identify", model, "--json", cwd=folder)
    assert ended.returncode == 0, ended
    assert "width 8" in json.loads(ended.stdout)["architecture"]


def test_the_suite_is_listed(folder):
    ended = run("checks", cwd=folder)
    ids = [line.split()[0] for line in ended.stdout.splitlines()]
    assert ids == ["EC001", "EC101", "EC102", "EC201", "EC202", "EC203", "EC204", "EC205", "EC301"]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["scan", "--help"], ["--version"], ["fixtures", "list"]], ids=str
)
def test_help_answers_without_importing_torch(folder, arguments):
    code = (
        "import sys; from encodercheck.cli.main import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    ended = python("-c", code, *arguments, cwd=folder)
    assert ended.returncode == 0, ended
    assert ended.stdout


def test_identify_says_where_each_part_of_the_preprocessing_came_from(folder, model):
    ended = run("identify", model, "--image-size", "48", cwd=folder)
    assert ended.returncode == 0, ended
    assert "image size    48  (--image-size)" in ended.stdout
    assert "mean          0.5, 0.5, 0.5  (the file's metadata)" in ended.stdout
    assert "text tower    none" in ended.stdout


@pytest.fixture(scope="module")
def ambiguous(folder):
    """A file that can be two functions: resnet18, and the same with blurred strides."""
    return shapes_only(folder / "resnet18.safetensors", on_disk("torchvision:resnet18"))


def on_disk(arch):
    return next(entry for entry in index.load().entries() if entry.arch == arch).shapes


def test_an_ambiguous_model_is_two_and_names_the_flag_that_settles_it(folder, ambiguous):
    for command in ("scan", "identify"):
        ended = run(command, ambiguous, cwd=folder)
        assert ended.returncode == 2, ended
        assert "--arch torchvision:resnet18 or --arch timm:resnetblur18" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1, ended.stderr


def test_an_ambiguous_model_lists_its_candidates_in_json(folder, ambiguous):
    ended = run("identify", ambiguous, "--json", cwd=folder)
    assert ended.returncode == 2, ended
    found = json.loads(ended.stdout)
    assert found["candidates"] == ["torchvision:resnet18", "timm:resnetblur18"]
    assert str(ambiguous) in found["error"]


def test_the_flag_settles_it(folder, ambiguous):
    for arch in ("torchvision:resnet18", "timm:resnetblur18"):
        ended = run("identify", ambiguous, "--arch", arch, "--json", cwd=folder)
        assert ended.returncode == 0, ended
        assert json.loads(ended.stdout)["architecture"] == arch


def test_a_text_tower_is_known_and_reported(folder):
    text = {"token_embedding.weight": (1000, 32), "transformer.resblocks.0.ln_1.weight": (32,)}
    visual = {f"visual.{name}": shape for name, shape in on_disk("open_clip:RN50").items()}
    path = shapes_only(folder / "clip.safetensors", visual | text)
    ended = run("identify", path, "--json", cwd=folder)
    assert ended.returncode == 0, ended
    found = json.loads(ended.stdout)
    assert found["architecture"] == "open_clip:RN50"
    assert found["text_tower"] == {
        "token_embedding": "token_embedding.weight",
        "vocabulary": 1000,
        "width": 32,
        "tensors": 2,
        "parameters": 32032,
    }


def test_an_installation_that_cannot_be_imported_is_no_verdict(tmp_path):
    broken = tmp_path / "typer.py"
    broken.write_text("raise ImportError('half an installation')\n")
    result = subprocess.run(
        [sys.executable, "-m", "encodercheck", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 2
    assert result.stderr.endswith("encodercheck: this installation is broken; reinstall it\n")
