"""Check packs as they are installed: the example, and where checks are said to come from."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import models
import pytest
from commands import python, run

EXAMPLE = Path(__file__).parents[1] / "examples" / "check-pack"
BUILT_IN = ["EC001", "EC101", "EC102", "EC201", "EC202", "EC203", "EC204", "EC205", "EC301"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that the example pack is installed in, without a network."""
    source = tmp_path_factory.mktemp("source") / "pack"
    shutil.copytree(EXAMPLE, source)
    target = tmp_path_factory.mktemp("target")
    options = ["--quiet", "--no-build-isolation", "--no-deps", "--no-index", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True)
    return target


def listed(cwd, *options, **extra):
    ended = run("checks", "--json", *options, cwd=cwd, **extra)
    assert ended.returncode == 0, ended
    told = json.loads(ended.stdout)
    assert told["schema"] == "encodercheck.checks/1"
    return {check["id"]: check for check in told["checks"]}


def test_the_suite_names_an_installed_packs_checks_and_their_version(installed, tmp_path):
    ended = run("checks", cwd=tmp_path, PYTHONPATH=str(installed))
    assert ended.returncode == 0, ended
    lines = {line.split()[0]: line for line in ended.stdout.splitlines()}
    assert set(lines) == {*BUILT_IN, "ACME001", "ACME002"}
    assert " built-in " in lines["EC101"]
    assert " pack acme-checks 0.1.0 " in lines["ACME001"]
    assert lines["ACME001"].endswith("makes embeddings of different images alike.")


def test_json_says_where_each_check_is_from(installed, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "check_own.py").write_text("def check_own(encoder):\n    '''Mine.'''\n")
    checks = listed(tmp_path, "--checks", "own", PYTHONPATH=str(installed))
    assert list(checks)[: len(BUILT_IN)] == BUILT_IN
    assert checks["EC101"]["origin"]["kind"] == "built-in"
    assert Path(checks["EC101"]["file"]).name == "check_ec101_collapse.py"
    pack = checks["ACME001"]
    assert pack["origin"] == {
        "kind": "pack",
        "name": "acme-checks",
        "version": "0.1.0",
        "path": str(installed / "acme_checks"),
    }
    assert pack["catches"] == ["badencoder", "badencoder-multi"]
    assert pack["function"] == "check_squares"
    assert (pack["severity"], pack["file"]) == (
        "high",
        str(installed / "acme_checks" / "check_squares.py"),
    )
    own = checks["own"]
    assert (own["origin"]["kind"], own["origin"]["path"]) == ("path", str(tmp_path / "own"))
    assert own["title"] == "Mine."


def test_a_single_file_is_its_own_origin_beside_others_of_its_folder(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"check_{name}.py").write_text(f"def check_{name}(encoder): ...\n")
    ended = run("checks", "--checks", "check_b.py", "--checks", "check_a.py", cwd=tmp_path)
    lines = [line.split() for line in ended.stdout.splitlines()[-2:]]
    assert sorted((line[0], line[2]) for line in lines) == [
        ("a", "check_a.py"),
        ("b", "check_b.py"),
    ]


def test_a_scan_runs_an_installed_packs_checks(installed, tmp_path):
    model = models.write(tmp_path / "model.safetensors")
    options = ["--profile", "quick", "-k", "ACME", "--json", "report.json"]
    ended = run("scan", model, *options, cwd=tmp_path, PYTHONPATH=str(installed))
    found = {f["id"]: f for f in json.loads((tmp_path / "report.json").read_text())["findings"]}
    assert set(found) == {"ACME001", "ACME002"}, ended
    assert found["ACME001"]["measurements"][0]["name"] == "gain"


def test_the_examples_own_tests_pass(installed, tmp_path):
    """It catches the backdoor that it declares, and lets the clean encoder pass."""
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "tests"]
    ended = python(*command, cwd=tmp_path, PYTHONPATH=str(installed))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


def test_a_packs_checks_run_in_a_teams_own_pytest(installed, tmp_path):
    model = models.write(tmp_path / "model.safetensors")
    # As the user's own word: of random weights another reading may spread images further.
    arch = ["--encoder-arch", "resnet,stem_stride=2,maxpool=False"]
    options = ["--encoder", model, *arch, "--encoder-profile", "quick", "--pyargs", "acme_checks"]
    command = ["-m", "pytest", "-p", "no:cacheprovider", "-c", os.devnull, "-v", *options]
    ended = python(*command, cwd=tmp_path, PYTHONPATH=str(installed))
    assert "check_squares.py::check_squares" in ended.stdout, ended.stdout + ended.stderr
    assert "check_directions.py::check_directions" in ended.stdout
    assert ended.returncode in (0, 1)


def test_a_pack_that_cannot_be_imported_is_no_verdict(installed, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(installed, broken)
    (broken / "acme_checks" / "__init__.py").write_text("import no_such_library\n")
    model = models.write(tmp_path / "model.safetensors")
    for command in (["checks"], ["scan", model, "-k", "EC001"]):
        ended = run(*command, cwd=tmp_path, PYTHONPATH=str(broken))
        assert ended.returncode == 2
        assert ended.stderr.splitlines()[-1].startswith(
            "encodercheck: check pack acme (acme_checks) cannot be imported: ModuleNotFoundError"
        )
