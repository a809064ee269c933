"""How a command ends when its streams are closed or full, and when it is told to stop."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
import pytest
import zoo_models
from commands import COMMAND, environment, run

from encodercheck.cache import for_any_system
from encodercheck.cli.scan import _folder_names
from encodercheck.harness.artifacts import folder_name
from encodercheck.report import Outcome, Report
from encodercheck.zoo.keeping import safe_name

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="redirects as a POSIX shell")
FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
CLOSED = "encodercheck: standard output is closed; no verdict; send it to a file or to /dev/null\n"
NO_SPACE = (
    "encodercheck: the output cannot be written (no space left on device); no verdict; send it to "
    "another place\n"
)
ARCH = "resnet,stem_stride=2,maxpool=False"


def shell(line, folder):
    """Run ``encodercheck LINE`` as a shell does, redirections and all."""
    command = ["bash", "-c", f"{sys.executable} -m encodercheck {line}"]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(tmp_path):
    models.write(tmp_path / "model.safetensors")
    (tmp_path / "check_fine.py").write_text("def check_fine(encoder):\n    pass\n")
    return tmp_path


FINE = f"scan model.safetensors --arch {ARCH} --checks check_fine.py -k check_fine --device cpu"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("--version >&-", CLOSED),
        ("scan none.safetensors >&-", CLOSED),
        pytest.param("--version >/dev/full", NO_SPACE, marks=FULL),
        pytest.param("--help >/dev/full", NO_SPACE, marks=FULL),
        pytest.param("checks >/dev/full", NO_SPACE, marks=FULL),
        pytest.param(f"{FINE} >/dev/full", NO_SPACE, marks=FULL),
        pytest.param("scan none.safetensors 2>/dev/full", "", marks=FULL),
        ("scan none.safetensors 2>&-", ""),
        ("scan none.safetensors <&- >&- 2>&-", ""),
        (
            "scan --from - <&-",
            "encodercheck: --from -: names no model; write one on each line\n",
        ),
        ("--help | true; exit ${PIPESTATUS[0]}", ""),
    ],
)
def test_what_cannot_be_said_is_no_verdict(folder, line, says):
    ended = shell(line, folder)
    assert (ended.returncode, ended.stderr) == (2, says)


def test_a_closed_stdin_and_stderr_are_nothing_to_a_scan(folder):
    ended = shell(f"{FINE} --json report.json <&- 2>&-", folder)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "PASSED" in ended.stdout
    # Whatever is opened next does not become the closed stream.
    assert json.loads((folder / "report.json").read_text())["outcome"] == "passed"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that root cannot write to")
@pytest.mark.parametrize("many", [False, True])
def test_a_folder_that_cannot_be_written_to_is_needed_for_witnesses_only(folder, many):
    names = [folder / "model.safetensors"]
    if many:
        names.append(models.write(folder / "twin.safetensors"))
    check = folder / "check_leaves.py"
    check.write_text(
        "import pathlib\n\ndef check_leaves(artifacts, encoder):\n"
        "    (artifacts.directory / 'note').write_text('here')\n"
    )
    options = ["--arch", ARCH, "--checks", check, "-k", "leaves", "--device", "cpu"]
    ended = run("scan", *names, *options, cwd=Path("/proc"))
    assert ended.returncode == 0, ended
    assert "witnesses are not kept; name a folder for them with --artifacts" in ended.stderr
    ended = run("scan", *names, *options, "--artifacts", "/proc/own", cwd=folder)
    assert ended.returncode == 2
    assert "/proc: cannot be written to" in ended.stderr


def _started(folder, *arguments):
    process = subprocess.Popen(
        [*COMMAND, "scan", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(1200):
        if (folder / "began").exists():
            return process
        time.sleep(0.05)
    raise AssertionError(process.communicate())


SLOW = """
import time

def check_a_done(encoder):
    pass

def check_b_failed(encoder):
    assert False, "a backdoor"

def check_c_slow(encoder):
    open("began", "w").close()
    time.sleep(60)

def check_d_never(encoder):
    pass
"""


def test_sigterm_writes_what_is_known(folder):
    (folder / "check_slow.py").write_text(SLOW)
    options = ["--arch", ARCH, "--checks", "check_slow.py", "-k", "check_slow", "--device", "cpu"]
    process = _started(folder, "model.safetensors", *options, "--json", "r.json", "--junit", "j")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors.splitlines() == [
        "encodercheck: findings kept: 2; --resume goes on from there",
        "encodercheck: terminated, no verdict",
    ]
    report = json.loads((folder / "r.json").read_text())
    assert {found["id"]: found["outcome"] for found in report["findings"]} == {
        "a_done": "passed",
        "b_failed": "failed",
        "c_slow": "error",
        "d_never": "error",
        "scan": "error",
    }
    assert report["model"]["path"] == "model.safetensors"
    assert (folder / "j").read_text().count("<error") == 3


def test_sigterm_in_a_run_of_many_writes_what_is_known(folder):
    zoo_models.zoo(folder, zoo_models.FINE, zoo_models.FINE, zoo_models.FINE)
    check = "import pathlib\n\ndef check_slow(encoder):\n"
    check += "    if len(list(pathlib.Path().glob('seen*'))) == 1:\n"
    check += "        open('began', 'w').close()\n        import time; time.sleep(60)\n"
    check += "    open('seen', 'w').close()\n"
    (folder / "check_slow.py").write_text(check)
    options = ["--checks", "check_slow.py", "-k", "check_slow", "--device", "cpu"]
    process = _started(folder, "zoo", "--arch", ARCH, *options, "--json", "r.json")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "encodercheck: terminated, no verdict\n")
    reports = json.loads((folder / "r.json").read_text())["reports"]
    assert [report["outcome"] for report in reports] == ["passed", "error", "error"]
    assert reports[1]["findings"][0]["message"] == "zoo/m1.safetensors: the run was interrupted"


@pytest.mark.parametrize("name", ["CON", "nul", "Aux.v2", "com1", "LPT9"])
def test_names_of_devices_are_no_names_of_folders(name):
    assert for_any_system(name) == f"_{name}"
    assert _folder_names([f"zoo/{name}.safetensors"]) == [f"_{name}"]
    assert folder_name(name).startswith("_")
    assert safe_name(name) == f"_{name}"


def test_namesakes_differ_in_more_than_their_case():
    names = ["a/Model.safetensors", "b/model.safetensors", "console", "command"]
    assert _folder_names(names) == ["Model", "model~2", "console", "command"]


def test_an_interrupted_report_is_no_pass():
    report = Report.unreadable("m", "the scan was interrupted")
    assert (report.outcome, report.exit_code) == (Outcome.ERROR, 2)
