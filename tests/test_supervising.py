"""Code that runs in a scan cannot end it with a verdict of its own."""

import json
import os
import subprocess
import sys

import models
import pytest
import zoo_models
from commands import COMMAND, environment, fresh, run

from encodercheck.cli import supervising

ARCH = "resnet,stem_stride=2,maxpool=False"
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals")
EXITS = {
    "exit": "import os\n\ndef check_it(encoder):\n    os._exit(0)\n",
    "import": "import os\n\nos._exit(0)\n",
    "sys.exit": "import sys\n\ndef check_it(encoder):\n    sys.exit(0)\n",
    "sys.exit on import": "import sys\n\nsys.exit(0)\n",
    "thread": (
        "import os, threading, time\n\ndef check_it(encoder):\n"
        "    threading.Timer(0.1, os._exit, [0]).start()\n    time.sleep(60)\n"
    ),
    "crash": "import os, signal\n\ndef check_it(encoder):\n    os.kill(os.getpid(), 11)\n",
    "killed": "import os, signal\n\ndef check_it(encoder):\n    os.kill(os.getpid(), 9)\n",
    "replaced": "import os\n\ndef check_it(encoder):\n    os.execv('/bin/true', ['true'])\n",
}
AT_EXIT = """
import atexit, os
atexit.register(os._exit, 0)

def check_it(encoder):
    assert False
"""


@pytest.fixture
def folder(tmp_path):
    models.write(tmp_path / "model.safetensors")
    (tmp_path / "report.json").write_text('{"exit_code": 0}')
    return tmp_path


def scanned(folder, *more, runner=run):
    options = ["--arch", ARCH, "--checks", "check_it.py", "-k", "it", "--device", "cpu"]
    return runner("scan", "model.safetensors", *options, "--json", "report.json", *more, cwd=folder)


@POSIX
@pytest.mark.parametrize("how", EXITS)
def test_a_check_that_ends_the_process_is_no_verdict(folder, how):
    (folder / "check_it.py").write_text(EXITS[how])
    ended = scanned(folder)
    assert ended.returncode == 2, ended
    assert "Traceback" not in ended.stderr
    report = json.loads((folder / "report.json").read_text())
    assert (report["exit_code"], report["outcome"]) == (2, "error")
    assert report["model"]["path"] == "model.safetensors"


def test_a_check_that_ends_the_process_at_its_end_changes_no_verdict(folder):
    (folder / "check_it.py").write_text(AT_EXIT)
    assert scanned(folder).returncode == 1


def test_what_ended_the_scan_is_said_in_one_line(folder):
    (folder / "check_it.py").write_text(EXITS["exit"])
    assert scanned(folder).stderr == (
        "encodercheck: the scan ended with exit code 0 before its verdict; a check, or other code "
        "that runs in it, may have ended it, or memory ran out; no verdict\n"
    )


@pytest.mark.parametrize("where", ["conftest.py", "box.py"])
def test_other_code_that_runs_in_a_scan_gives_no_verdict_either(folder, where):
    (folder / "check_it.py").write_text("def check_it(encoder):\n    pass\n")
    (folder / where).write_text("import os\n\nos._exit(0)\n")
    if where == "conftest.py":
        assert scanned(folder).returncode == 2
        return
    for command in (["scan"], ["samples", "."]):
        ended = run(*command, "--arch", "box:embed", cwd=folder, PYTHONPATH=str(folder))
        assert ended.returncode == 2, ended


@pytest.mark.parametrize("options", [[], ["--jobs", "2"], ["--out", "out"]], ids=str)
def test_a_run_of_many_models_has_a_row_for_each(folder, options):
    names = zoo_models.zoo(folder, *([zoo_models.FINE] * 3))
    (folder / "check_it.py").write_text(
        "import os\n\ndef check_it(encoder):\n"
        "    if round(float(encoder.module.conv1.weight[0, 0, 0, 1]) * 1000) == 1:\n"
        "        os._exit(0)\n"
    )
    given = ["--arch", ARCH, "--checks", "check_it.py", "-k", "it", "--device", "cpu"]
    ended = run("scan", "zoo", *given, *options, "--json", "all.json", cwd=folder)
    assert ended.returncode == 2, ended
    reports = json.loads((folder / "all.json").read_text())["reports"]
    assert [report["model"]["path"] for report in reports] == names
    assert 2 in [report["exit_code"] for report in reports]


def test_where_processes_cannot_be_forked_the_command_is_run_once_more(folder):
    script = folder / "restarting.py"
    script.write_text(
        "from encodercheck.cli import supervising\nsupervising.FORKS = False\n"
        "from encodercheck.cli.main import main\nmain()\n"
    )

    def restarting(*arguments, cwd):
        return fresh(script, *arguments, cwd=cwd)

    for text, code in ((EXITS["exit"], 2), (AT_EXIT, 1), ("def check_it(encoder):\n    pass\n", 0)):
        (folder / "check_it.py").write_text(text)
        ended = scanned(folder, runner=restarting)
        assert ended.returncode == code, ended
        assert json.loads((folder / "report.json").read_text())["exit_code"] == code
    assert supervising.CHANNEL not in os.environ


@pytest.mark.skipif(sys.platform != "linux", reason="a child that dies with its parent")
def test_no_process_is_left_when_the_first_one_is_killed(folder):
    (folder / "check_it.py").write_text(
        "import os, time\n\ndef check_it(encoder):\n"
        "    open('pid', 'w').write(str(os.getpid()))\n    time.sleep(60)\n"
    )
    options = ["--arch", ARCH, "--checks", "check_it.py", "-k", "it", "--device", "cpu"]
    process = subprocess.Popen(
        [*COMMAND, "scan", "model.safetensors", *options],
        cwd=folder,
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    pid = None
    for _ in range(1200):
        if (folder / "pid").exists() and (text := (folder / "pid").read_text()):
            pid = int(text)
            break
        supervising.signal.sigtimedwait([], 0.05)
    assert pid is not None and pid != process.pid
    process.kill()
    process.wait()
    for _ in range(200):
        if not os.path.exists(f"/proc/{pid}"):  # noqa: PTH110
            return
        supervising.signal.sigtimedwait([], 0.05)
    raise AssertionError("it still runs")


@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        (b'{"code": 0}\n', 0, 0),
        (b'{"code": 1}\n', 1, 1),
        (b'{"code": 1}\n', 0, 1),
        (b'{"code": 0}\n', 1, 2),
        (b'{"code": 0}\n', -9, 2),
        (b'{"code": "0"}\n', 0, 2),
        (b"", 0, 2),
        (b"", 1, 2),
        (b'{"code": 0', 0, 2),
        (b"[]\n", 0, 2),
    ],
)
def test_the_exit_code_is_what_was_told_and_nothing_else(told, status, code):
    assert supervising._verdict(told, status) == code
