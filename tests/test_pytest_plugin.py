"""Checks in a team's own pytest: ``pytest --encoder model.safetensors checks/``."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from encodercheck import scanning
from encodercheck.encoder import Encoder
from encodercheck.errors import LoadError
from encodercheck.harness.state import ScanState
from encodercheck.images.split import CleanImages
from encodercheck.preprocessing import Preprocessing
from encodercheck.profiles import PROFILES, Profile

pytest_plugins = ["pytester"]

CHECKS = '''
import pytest
from encodercheck.errors import CheckInconclusive

@pytest.mark.check("ACME001", severity="high")
def check_rank(encoder, images, measure):
    """Embeddings span many directions."""
    measure("finite", encoder(images).isfinite().all(), at_least=1)

def check_gain(measure):
    measure("gain", 0.991, at_most=0.9)
    measure("rank", 3, at_least=16)

def check_plain(seed):
    assert seed == 8

def check_undecided():
    raise CheckInconclusive("needs 64 images")

def check_crash(trigger_of_nobody): ...

def check_exit():
    pytest.exit("enough", returncode=0)
'''


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, dict[str, Any]]]:
    """Replace the loading of models; return what it was called with."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def prepare(model: str, **options: Any) -> ScanState:
        calls.append((model, options))
        if "bad" in model:
            raise LoadError(f"{model}: not a safetensors file")
        module = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        encoder = Encoder(module, preprocessing=Preprocessing(image_size=16))
        saved = {name: values.clone() for name, values in module.state_dict().items()}
        profile = Profile(
            "toy",
            8,
            16,
            8,
            restarts=2,
            steps=2,
            decree_steps=2,
            battery_images=2,
            decoder_images=300,
        )
        images = CleanImages.of(torch.rand(24, 3, 16, 16), profile.search)
        return ScanState(encoder, images, options["seed"], profile, restore=lambda: saved)

    monkeypatch.setattr(scanning, "prepare", prepare)
    return calls


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a test, a check file, and settings of its own."""
    pytester.makeini("[pytest]\naddopts = --strict-markers\n")
    pytester.makepyfile(test_own="def test_own(): ...\n")
    checks = pytester.mkdir("checks")
    (checks / "check_acme.py").write_text(CHECKS)
    return pytester


def run(project: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run pytest in this process, without what else is installed."""
    plugins = ("-p", "encodercheck.harness.pytest_plugin", "-p", "no:cacheprovider")
    return project.runpytest_inprocess(*plugins, *arguments)


@pytest.fixture(autouse=True)
def _no_autoload(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def test_the_users_own_report_shows_the_outcomes(
    project: pytest.Pytester, prepared: list[tuple[Any, dict[str, Any]]]
) -> None:
    result = run(
        project, "--encoder=m.safetensors", "--encoder-seed=7", "-rsf", "--junitxml=out.xml", "."
    )
    result.assert_outcomes(passed=2, failed=3, skipped=1, errors=1)
    output = result.stdout.str()
    assert "encoder: m.safetensors" in output
    assert "lifecycle.py" not in output
    assert "check_acme.py::check_gain - gain 0.991 > 0.9; rank" in output
    assert "gain = 0.991 (at_most 0.9)" in output
    assert "assert 7 == 8" in output
    assert re.search(r"SKIPPED \[1\] checks.check_acme.py:\d+: inconclusive: needs 64 im", output)
    assert "fixture 'trigger_of_nobody' not found" in output
    assert "one check cannot end the scan" in output
    assert '<property name="ACME001.finite" value="1.0"' in Path("out.xml").read_text()
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_options_reach_the_scan(
    project: pytest.Pytester, prepared: list[tuple[Any, dict[str, Any]]]
) -> None:
    result = run(
        project,
        "--encoder=m",
        "--encoder-arch=resnet18",
        "--encoder-tower=student",
        "--encoder-images=photos",
        "--encoder-profile=quick",
        "--encoder-seed=3",
        "--encoder-device=cpu",
        "--encoder-artifacts=out",
        "--encoder-null=clean.json",
        "-kacme001",
        "checks",
    )
    result.assert_outcomes(passed=1, deselected=5)
    (call,) = prepared
    assert call == (
        "m",
        {
            "arch": "resnet18",
            "tower": "student",
            "images": "photos",
            "profile": "quick",
            "seed": 3,
            "device": "cpu",
            "artifacts": Path("out"),
            "null": "clean.json",
        },
    )


def test_a_bad_model_is_one_line_and_status_4(
    project: pytest.Pytester, prepared: list[tuple[Any, dict[str, Any]]]
) -> None:
    result = run(project, "--encoder=bad.pt", "checks")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: bad.pt: not a safetensors file"])


def test_a_bad_marker_is_one_line_and_status_4(
    project: pytest.Pytester, prepared: list[tuple[Any, dict[str, Any]]]
) -> None:
    project.makepyfile(
        check_bad="import pytest\n@pytest.mark.check('A', severity='urgent')\ndef check_a(): ...\n"
    )
    result = run(project, "--encoder=m", "check_bad.py")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: check_bad.py::check_a: severity 'urgent': choose *"])


def test_listing_loads_no_model(
    project: pytest.Pytester, prepared: list[tuple[Any, dict[str, Any]]]
) -> None:
    result = run(project, "--encoder=m", "--collect-only", "-q", "checks")
    result.stdout.fnmatch_lines(["checks/check_acme.py::check_rank"])
    assert prepared == []


def test_without_an_encoder_nothing_happens(project: pytest.Pytester) -> None:
    result = run(project)
    result.assert_outcomes(passed=1)
    marked = project.makepyfile(
        test_marked="import pytest\n@pytest.mark.check('A')\ndef test_a(): ...\n"
    )
    run(project, marked).assert_outcomes(passed=1)
    result = run(project, "--fixtures")
    assert "measure" not in result.stdout.str()


def test_a_test_that_asks_for_a_checks_fixture_is_told(
    project: pytest.Pytester, prepared: list[tuple[Any, dict[str, Any]]]
) -> None:
    tests = project.makepyfile(
        test_it="def test_a(encoder): encoder.copy()\ndef test_b(measure): ...\n"
    )
    result = run(project, "--encoder=m", tests)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*'measure' is a fixture of encodercheck: only checks can*"])


def test_a_test_that_writes_into_the_weights_spoils_no_check(
    project: pytest.Pytester, prepared: list[tuple[Any, dict[str, Any]]]
) -> None:
    tests = project.makepyfile(
        test_it="def test_a(encoder): encoder.module[0].weight.data.zero_()\n",
        check_it="def check_a(encoder): assert encoder.module[0].weight.any()\n",
    )
    files = (tests.with_name("test_it.py"), tests.with_name("check_it.py"))
    run(project, "--encoder=m", *map(str, files)).assert_outcomes(passed=2)


def test_pitfall_9_xdist_is_refused(
    project: pytest.Pytester, prepared: list[tuple[Any, dict[str, Any]]]
) -> None:
    project.makeconftest(
        "def pytest_addoption(parser):\n"
        "    parser.addoption('--numprocesses', type=int, default=0)\n"
    )
    result = run(project, "--encoder=m", "--numprocesses=2", "checks")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: --encoder does not go with pytest-xdist: *"])
    assert prepared == []
    run(project, "--encoder=m", "-kACME001", "checks").assert_outcomes(passed=1, deselected=5)


def test_every_profile_can_be_chosen() -> None:
    from encodercheck.harness import pytest_plugin

    assert tuple(PROFILES) == pytest_plugin.PROFILES


def test_the_installed_plugin_costs_an_unrelated_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_it(pytestconfig):\n"
        "    assert pytestconfig.pluginmanager.hasplugin('encodercheck')\n"
        "    assert not {'torch', 'numpy', 'encodercheck.harness.guest'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    # Another plugin may import numpy; only ours is asked.
    command += ["-p", "no:hypothesispytest", "-p", "no:anyio", "-p", "no:syrupy"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
