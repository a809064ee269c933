"""The harness: hermetic pytest, outcomes, fixtures that nobody can spoil."""

import math
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import models
import numpy as np
import pytest
import torch
from torch import nn

from encodercheck import scanning
from encodercheck.encoder import Encoder
from encodercheck.errors import ConfigError, ImagesError, LoadError
from encodercheck.harness import packs, runner
from encodercheck.harness.artifacts import folder_name
from encodercheck.harness.listener import CheckInfo, SilentListener, uncaptured_stream
from encodercheck.harness.record import describe_shortfalls
from encodercheck.harness.state import ScanState
from encodercheck.images.split import CleanImages
from encodercheck.methods import battery, inversion
from encodercheck.methods.collapse import Clean
from encodercheck.nulls import Nulls
from encodercheck.preprocessing import Preprocessing
from encodercheck.profiles import Profile
from encodercheck.report import Direction, Finding, Measurement, Outcome, exit_code

PASSED, FAILED, INCONCLUSIVE, ERROR = (
    Outcome.PASSED,
    Outcome.FAILED,
    Outcome.INCONCLUSIVE,
    Outcome.ERROR,
)
TOY = Profile(
    "toy", 8, 16, 8, restarts=2, steps=2, decree_steps=2, battery_images=2, decoder_images=300
)


@pytest.fixture
def state() -> ScanState:
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
    )
    encoder = Encoder(module, preprocessing=Preprocessing(image_size=16))
    return ScanState(encoder, CleanImages.of(torch.rand(24, 3, 16, 16), TOY.search), 7, TOY)


@pytest.fixture
def lending(state: ScanState) -> ScanState:
    """A scan whose checks share the memory of the encoder's weights."""
    saved = {name: values.clone() for name, values in state.encoder.module.state_dict().items()}
    state.restore = lambda: saved
    return state


def write(file: Path, source: str) -> Path:
    """Write a check file that begins with the usual imports; return the folder."""
    imports = "import pytest\nfrom encodercheck.errors import *\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(imports + textwrap.dedent(source))
    return file.parent


def run(state: ScanState, *paths: Path, **options: object) -> dict[str, Finding]:
    findings = runner.run_suite(state, paths=paths, **options)
    return {finding.id: finding for finding in findings}


def run_one(state: ScanState, folder: Path, source: str) -> Finding:
    """Run a file of one check."""
    (finding,) = runner.run_suite(state, paths=[write(folder / "check_one.py", source)])
    return finding


class Log(SilentListener):
    """Remembers what it hears."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []

    def collected(self, checks: Sequence[CheckInfo]) -> None:
        self.events.append(("collected", *(info.id for info in checks)))

    def started(self, info: CheckInfo) -> None:
        self.events.append(("started", info.id))

    def progress(self, info: CheckInfo, step: int, total: int, note: str) -> None:
        self.events.append(("progress", info.id, f"{step}/{total}", note))

    def finished(self, finding: Finding) -> None:
        self.events.append(("finished", finding.id, str(finding.outcome)))


# Hosting checks on pytest: what goes wrong.


def test_pitfall_1_optimized_python_is_refused() -> None:
    code = (
        "from encodercheck.harness.runner import run_suite\n"
        "import sys\n"
        "try: run_suite(None, paths=[])\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print('torch' in sys.modules)"
    )
    output = subprocess.run(
        [sys.executable, "-O", "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.startswith("ConfigError python -O removes asserts")
    assert output.endswith("False\n"), "listing checks must not pay for torch"


@pytest.mark.parametrize("limit", ["at_least=0", "at_most=0", "at_least=0, at_most=1"])
def test_pitfall_1_nan_is_within_no_limit(state: ScanState, tmp_path: Path, limit: str) -> None:
    finding = run_one(
        state,
        tmp_path,
        f"""
        def check_nan(measure):
            if measure("value", float("nan"), {limit}):
                raise RuntimeError("within")
        """,
    )
    assert finding.outcome is FAILED
    assert math.isnan(finding.measurements[0].value)
    assert finding.message.startswith("value nan, not at ")


def test_pitfall_2_a_crash_is_no_failure(state: ScanState, tmp_path: Path) -> None:
    crashed = run_one(state, tmp_path, "def check_crash():\n    [].missing")
    assert crashed.outcome is ERROR
    assert crashed.message == "AttributeError: 'list' object has no attribute 'missing'"
    assert exit_code([crashed.outcome]) == 2


@pytest.mark.parametrize(
    "source",
    [
        "def check_b():\n    pytest.exit('enough', returncode=0)",
        "@pytest.fixture\ndef out():\n    pytest.exit('', returncode=0)\ndef check_b(out): ...",
        "@pytest.fixture\ndef out():\n    yield\n    pytest.exit('', 0)\ndef check_b(out): ...",
        "def check_b():\n    import sys\n    sys.exit(0)",
        "def check_b():\n    raise SystemExit",
        "def check_b(request):\n    request.session.shouldstop = 'enough'",
        "def check_b(request):\n    request.session.shouldfail = 'enough'",
    ],
)
def test_pitfall_3_a_check_cannot_end_the_scan(
    state: ScanState, tmp_path: Path, source: str
) -> None:
    folder = write(tmp_path / "check_it.py", f"def check_a(): ...\n{source}\ndef check_c(): ...\n")
    findings = run(state, folder)
    assert set(findings) == {"a", "b", "c"}
    assert findings["a"].outcome is PASSED
    assert exit_code([finding.outcome for finding in findings.values()]) == 2


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("pytest_runtest_protocol(item): return True", "did not report"),
        (
            "pytest_runtestloop(): pytest.exit('over', returncode=0)",
            "did not report: the run was stopped (over)",
        ),
        (
            "pytest_runtestloop(): 1 / 0",
            "did not report: pytest broke down: ZeroDivisionError: division by zero",
        ),
        (
            "pytest_runtestloop(): raise SystemExit(0)",
            "did not report: pytest broke down: SystemExit: 0",
        ),
        ("pytest_collection_modifyitems(items): items.clear()", "did not report"),
    ],
)
def test_pitfall_3_every_collected_check_owes_a_finding(
    state: ScanState, tmp_path: Path, hook: str, message: str
) -> None:
    register = f"""
    class Running:
        def {hook}

    def pytest_configure(config):
        if not config.option.collectonly:
            config.pluginmanager.register(Running())
    """
    write(
        tmp_path / "conftest.py", register.replace("(item", "(self, item").replace("p()", "p(self)")
    )
    log = Log()
    folder = write(tmp_path / "check_it.py", "def check_a(): ...\n")
    (finding,) = run(state, folder, listener=log).values()
    assert (finding.id, finding.outcome, finding.message) == ("a", ERROR, message)
    assert log.events[-1] == ("finished", "a", "error")


def test_pitfall_3_an_odd_end_is_an_error(state: ScanState, tmp_path: Path) -> None:
    write(tmp_path / "conftest.py", "def pytest_unconfigure(config):\n    raise SystemExit(0)\n")
    folder = write(tmp_path / "check_it.py", "def check_a(): ...\n")
    with pytest.raises(ConfigError, match="SystemExit: 0"):
        run(state, folder)


def test_pitfall_4_nothing_of_the_users_pytest_leaks_in(
    state: ScanState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = "@pytest.fixture\ndef encoder(): return 'fake'\n"
    write(tmp_path / "conftest.py", fake + "def pytest_itemcollected(item): raise ValueError\n")
    for name in ("pytest.ini", "pyproject.toml", "tox.ini"):
        (tmp_path / name).write_text(
            "[tool.pytest.ini_options]\naddopts = '--no-such-option'\n"
            if name == "pyproject.toml"
            else "[pytest]\naddopts = --no-such-option\npython_functions = verify_\n"
        )
    folder = write(tmp_path / "checks/check_it.py", "def check_a(encoder): encoder.copy()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    before = dict(os.environ)
    assert run(state, folder)["a"].outcome is PASSED
    assert dict(os.environ) == before


def test_pitfall_4_the_folders_own_conftest_counts_there_and_nowhere_else(
    state: ScanState, tmp_path: Path
) -> None:
    write(tmp_path / "a/conftest.py", "@pytest.fixture\ndef seed(): return 'mine'\n")
    write(tmp_path / "a/check_a.py", "def check_a(seed): assert seed == 'mine'\n")
    write(tmp_path / "b/check_b.py", "def check_b(seed): assert seed == 7\n")
    findings = run(state, tmp_path / "a", tmp_path / "b")
    assert [finding.outcome for finding in findings.values()] == [PASSED, PASSED]


def test_pitfall_5_installed_plugins_are_not_loaded(
    state: ScanState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    distribution = site / "reorder-1.0.dist-info"
    distribution.mkdir(parents=True)
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: reorder\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text("[pytest11]\nreorder = reorder_plugin\n")
    (site / "reorder_plugin.py").write_text(
        "def pytest_collection_modifyitems(items): items.reverse()\n"
    )
    monkeypatch.syspath_prepend(site)
    assert any(entry.name == "reorder" for entry in metadata.entry_points(group="pytest11"))
    folder = write(tmp_path / "checks/check_it.py", "def check_a(): ...\ndef check_b(): ...\n")
    assert list(run(state, folder)) == ["a", "b"]
    assert "reorder_plugin" not in sys.modules


def test_pitfall_5_packs_are_found_and_a_broken_one_is_an_error(
    state: ScanState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "acme_pack/__init__.py", "")
    write(tmp_path / "acme_pack/limits.py", "LIMIT = 3\n")
    write(tmp_path / "acme_pack/check_a.py", "from .limits import LIMIT\ndef check_a(): ...\n")
    write(tmp_path / "acme_single.py", "def check_single():\n    value = 3\n    assert value < 2\n")
    write(tmp_path / "acme_broken.py", "import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)

    def install(*modules: str) -> None:
        entries = [metadata.EntryPoint(name, name, packs.GROUP) for name in modules]
        monkeypatch.setattr(packs.metadata, "entry_points", lambda group: entries)

    install("acme_single", "acme_pack")
    found = packs.installed_packs()
    assert found == [tmp_path / "acme_pack", tmp_path / "acme_single.py"]
    findings = run(state, *found)
    assert {id_: finding.outcome for id_, finding in findings.items()} == {
        "a": PASSED,
        "single": FAILED,
    }
    assert findings["single"].message == "assert 3 < 2"
    install("acme_broken")
    with pytest.raises(ConfigError, match=r"check pack acme_broken .*No module named 'no_such_lib"):
        packs.installed_packs()
    install("math:pi")
    with pytest.raises(ConfigError, match="neither a package nor a module, but a float"):
        packs.installed_packs()


def test_pitfall_6_progress_is_seen_while_output_is_captured(
    state: ScanState, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with uncaptured_stream() as stream:

        class Live(SilentListener):
            def progress(self, info: CheckInfo, step: int, total: int, note: str) -> None:
                print(f"{info.id} {step}/{total} {note}", file=stream)

        folder = write(
            tmp_path / "check_it.py",
            """
            import os

            def check_a(progress):
                print("swallowed")
                os.write(1, b"swallowed")
                progress(1, 2, "best 0.9")
            """,
        )
        run(state, folder, listener=Live())
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("a 1/2 best 0.9\n", "")


@pytest.mark.parametrize("packages", [False, True])
def test_pitfall_7_folders_of_one_name_do_not_collide(
    state: ScanState, tmp_path: Path, packages: bool
) -> None:
    folders = []
    for name in ("one", "two"):
        folder = tmp_path / name / "checks"
        if packages:
            write(folder / "__init__.py", "")
            write(folder / "helpers.py", f"NAME = {name!r}\n")
            source = "from .helpers import NAME\n"
        else:
            source = f"NAME = {name!r}\n"
        source += f"def check_{name}(): assert NAME == {name!r}\n"
        folders.append(write(folder / "check_it.py", source))
    before, path = set(sys.modules), list(sys.path)
    findings = run(state, *folders)
    assert [finding.outcome for finding in findings.values()] == [PASSED, PASSED]
    assert {name for name in set(sys.modules) - before if "check" in name} == set()
    assert sys.path == path


def test_pitfall_7_a_module_of_the_same_name_is_not_taken_for_the_check_file(
    state: ScanState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unrelated = type(sys)("check_it")
    monkeypatch.setitem(sys.modules, "check_it", unrelated)
    folder = write(tmp_path / "check_it.py", "def check_a(): ...\n")
    assert run(state, folder)["a"].outcome is PASSED
    assert sys.modules["check_it"] is unrelated


@pytest.mark.parametrize("sharing", [False, True])
def test_pitfall_8_a_check_cannot_spoil_the_next_one(
    sharing: bool, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    state: ScanState = request.getfixturevalue("lending" if sharing else "state")
    folder = write(
        tmp_path / "check_it.py",
        """
        import torch

        def check_a(encoder, images, clean_split):
            encoder.module.train()
            encoder.module(torch.randn_like(images) * 9)
            for weight in encoder.module.parameters():
                weight.data.zero_()
            images.zero_()
            clean_split.search.zero_()
            clean_split.held_out.zero_()

        def check_b(encoder, images, clean_split, measure):
            assert not encoder.module.training
            measure("embedding", encoder(images).sum())
            measure("search", clean_split.search.sum())
            measure("held_out", clean_split.held_out.sum())
        """,
    )
    expected = [
        state.encoder(state.images.held_out_images()).sum(),
        state.images.search_images().sum(),
        state.images.held_out_images().sum(),
    ]
    finding = run(state, folder)["b"]
    assert [m.value for m in finding.measurements] == [float(value) for value in expected]


ZEROING = """
import torch

def zero(encoder):
    for weight in encoder.module.parameters():
        weight.data.zero_()

KEPT = []

@pytest.fixture
def late(encoder):
    yield
    zero(encoder)

def check_passing(encoder): zero(encoder)
def check_failing(encoder):
    zero(encoder)
    assert 0
def check_crashing(encoder):
    zero(encoder)
    1 / 0
def check_exiting(encoder):
    zero(encoder)
    raise SystemExit
def check_undecided(encoder):
    zero(encoder)
    pytest.skip("no")
def check_late(late): ...
def check_unsettling(encoder):
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    zero(encoder)
def check_keeping(encoder): KEPT.append(encoder)
def check_kept(): zero(KEPT[0])
def check_next(encoder, images, measure): measure("embedding", encoder(images).sum())
"""
SPOILERS = [
    "passing",
    "failing",
    "crashing",
    "exiting",
    "undecided",
    "late",
    "unsettling",
    "keeping or kept",
]


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_pitfall_8_what_a_check_writes_into_the_weights_is_undone(
    lending: ScanState, tmp_path: Path, spoiler: str
) -> None:
    expected = float(lending.encoder(lending.images.held_out_images()).sum())
    folder = write(tmp_path / "check_it.py", ZEROING)
    findings = run(lending, folder, keyword=f"{spoiler} or next")
    assert len(findings) > 1
    assert [m.value for m in findings["next"].measurements] == [expected]
    # Nor does the last check of a scan spoil the next scan.
    run(lending, folder, keyword="passing")
    assert run(lending, folder, keyword="next")["next"].measurements[0].value == expected


def test_checks_share_the_memory_of_the_weights(lending: ScanState, tmp_path: Path) -> None:
    def unused() -> Mapping[str, torch.Tensor]:
        raise AssertionError("nothing was written into")

    lending.restore = unused
    source = """
    def check_a(encoder, measure):
        encoder.module.train()
        for weight in encoder.module.parameters():
            measure("address", weight.data_ptr())
            weight.data = weight.data + 1

    def check_b(encoder, measure):
        check_a(encoder, measure)
    """
    findings = run(lending, write(tmp_path / "check_it.py", source))
    addresses = [weight.data_ptr() for weight in lending.encoder.module.parameters()]
    for finding in findings.values():
        assert [m.value for m in finding.measurements] == addresses


@pytest.mark.parametrize("fault", ["gone", "changed"])
def test_weights_that_cannot_be_put_back_are_an_error_from_then_on(
    lending: ScanState, tmp_path: Path, fault: str
) -> None:
    def restore() -> Mapping[str, torch.Tensor]:
        if fault == "gone":
            raise LoadError("model.safetensors: no such file")
        return {name: values + 1 for name, values in lending.encoder.module.state_dict().items()}

    lending.restore = restore
    source = """
    def check_a(encoder):
        encoder.module[0].weight.data.zero_()

    def check_b(encoder): ...
    def check_c(trigger): ...
    def check_d(inversion): ...
    def check_e(images): ...
    """
    findings = run(lending, write(tmp_path / "check_it.py", source))
    outcomes = [finding.outcome for finding in findings.values()]
    assert outcomes == [PASSED, ERROR, ERROR, ERROR, PASSED]
    reason = {"gone": "model.safetensors: no such file", "changed": "the model file has changed"}
    message = f"check_a wrote into the weights, and they cannot be put back: {reason[fault]}; "
    for id_ in "bcd":
        assert findings[id_].message.startswith(message)


@pytest.mark.parametrize("sharing", [False, True])
def test_what_a_check_did_to_its_encoder_stays_out_of_the_shared_inversion(
    sharing: bool,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    state: ScanState = request.getfixturevalue("lending" if sharing else "state")

    def invert(encoder: Encoder, images: torch.Tensor, **options: object) -> float:
        found = float(encoder(images).sum())
        encoder.module[0].weight.data.zero_()
        return found

    monkeypatch.setattr(inversion, "invert", invert)
    source = """
    def check_a(encoder, request, measure):
        encoder.module[0].weight.data.fill_(3)
        measure("inversion", request.getfixturevalue("inversion"))
        measure("own", encoder.module[0].weight.mean())

    def check_b(inversion, encoder, images, measure):
        measure("inversion", inversion)
        measure("embedding", encoder(images).sum())
    """
    folder = write(tmp_path / "check_it.py", source)
    search, held_out = (
        float(state.encoder(images).sum())
        for images in (state.images.search_images(), state.images.held_out_images())
    )
    values = {i: [m.value for m in f.measurements] for i, f in run(state, folder).items()}
    assert values == {"a": [search, 3], "b": [search, held_out]}
    assert [m.value for m in run(state, folder, keyword="b")["b"].measurements] == values["b"]


def test_a_scan_puts_weights_back_from_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models.write(tmp_path / "model.safetensors")
    source = """
    import os

    def check_once(encoder, measure):
        os.chdir("/")
        measure("weights", sum(weight.sum() for weight in encoder.module.parameters()))
        for weight in encoder.module.parameters():
            weight.data.zero_()

    def check_once_more(encoder, measure):
        check_once(encoder, measure)
    """
    folder = write(tmp_path / "checks/check_it.py", source)
    report = scanning.scan("model.safetensors", checks=[folder], keyword="once", profile="quick")
    first, second = (finding.measurements[0] for finding in report.findings)
    assert first == second
    assert first.value != 0


def test_pitfall_9_xdist_has_no_hold_on_a_scan(
    state: ScanState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-n 4 --dist load")
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw1")
    folder = write(
        tmp_path / "check_it.py",
        """
        import os

        def check_a(request):
            assert not request.config.pluginmanager.hasplugin("xdist")
            assert not [name for name in os.environ if "XDIST" in name]
        """,
    )
    assert run(state, folder)["a"].outcome is PASSED


# Outcomes.

RAISING = {
    "...": (PASSED, ""),
    "assert 1 == 1": (PASSED, ""),
    "assert [1] == [2]": (FAILED, "assert [1] == [2]"),
    "assert 0, 'too few'": (FAILED, "too few"),
    "raise AssertionError": (FAILED, "raise AssertionError"),
    "raise CheckFailed('the margin is gone')": (FAILED, "the margin is gone"),
    "pytest.fail('no good')": (FAILED, "no good"),
    "raise CheckInconclusive('needs 64 images')": (INCONCLUSIVE, "needs 64 images"),
    "pytest.skip('no GPU')": (INCONCLUSIVE, "no GPU"),
    "pytest.importorskip('no_such_module', reason='no extra')": (INCONCLUSIVE, "no extra"),
    "pytest.xfail('known')": (INCONCLUSIVE, "known"),
    "1 / 0": (ERROR, "ZeroDivisionError: division by zero"),
    "raise TypeError('one\\ntwo')": (ERROR, "TypeError: one"),
    "raise RuntimeError": (ERROR, "RuntimeError"),
    "raise WitnessError('w.safetensors: gone')": (ERROR, "w.safetensors: gone"),
    "import sys; sys.exit(0)": (ERROR, "the check called sys.exit(0)"),
    "pytest.exit('x', 0)": (
        ERROR,
        "the check called pytest.exit(); one check cannot end the scan",
    ),
    "return True": (ERROR, None),
    "measure('x', [1, 2])": (ERROR, "TypeError: measure('x', ...) takes one number, not a list"),
    "measure('x', '1')": (ERROR, "TypeError: measure('x', ...) takes one number, not a str"),
    "import torch; measure('x', torch.ones(2))": (
        ERROR,
        "TypeError: measure('x', ...) takes one number, not a Tensor of shape (2,)",
    ),
    "measure('gain', 0.991, at_most=0.9)": (FAILED, "gain 0.991 > 0.9"),
    "measure('rank', 3, at_least=16); measure('gain', 2, at_most=1); measure('ok', 0, at_most=1)": (
        FAILED,
        "rank 3 < 16; gain 2 > 1",
    ),
    "measure('gain', 2, at_most=1); raise CheckInconclusive('hm')": (FAILED, "gain 2 > 1"),
    "measure('gain', 2, at_most=1); pytest.skip('hm')": (FAILED, "gain 2 > 1"),
    "measure('gain', 2, at_most=1); 1 / 0": (
        ERROR,
        "ZeroDivisionError: division by zero (after gain 2 > 1)",
    ),
}


def test_outcomes(state: ScanState, tmp_path: Path) -> None:
    source = "".join(f"def check_{i}(measure):\n    {body}\n" for i, body in enumerate(RAISING))
    findings = run(state, write(tmp_path / "check_it.py", source))
    assert list(findings) == [str(i) for i in range(len(RAISING))]
    for (body, (outcome, message)), finding in zip(RAISING.items(), findings.values(), strict=True):
        assert finding.outcome is outcome, body
        assert message is None or finding.message == message, body
        assert "\n" not in finding.message


PHASES = """
@pytest.fixture
def asserting():
    assert 0, "not ready"

@pytest.fixture
def undecided():
    raise CheckInconclusive("no images")

@pytest.fixture
def breaking():
    yield
    raise ValueError("late")

@pytest.fixture
def short_at_setup(measure):
    measure("setup", 2, at_most=1)

@pytest.fixture
def short_at_teardown(measure):
    yield
    measure("teardown", 2, at_most=1)

def check_setup_assert(asserting): ...
def check_setup_undecided(undecided): ...
def check_setup_unknown(enocder): ...
def check_setup_short(short_at_setup): ...
def check_teardown_after_pass(breaking): ...
def check_teardown_after_fail(breaking): assert 0, "first"
def check_teardown_after_skip(breaking): pytest.skip("no")
def check_teardown_short(short_at_teardown): ...

@pytest.mark.skip(reason="later")
def check_mark_skip(): ...

@pytest.mark.xfail(reason="known")
def check_mark_xfail(): assert 0

@pytest.mark.xfail(reason="known")
def check_mark_xfail_measured(measure): measure("gain", 2, at_most=1)

@pytest.mark.xfail(reason="known", strict=True)
def check_mark_xfail_strict_passing(): ...

@pytest.mark.parametrize("n", [])
def check_empty(n): ...
"""


def test_outcomes_of_setup_and_teardown(state: ScanState, tmp_path: Path) -> None:
    findings = run(state, write(tmp_path / "check_it.py", PHASES))
    assert {id_: (f.outcome, f.message) for id_, f in findings.items() if "[" not in id_} == {
        "setup_assert": (ERROR, "AssertionError: not ready"),
        "setup_undecided": (INCONCLUSIVE, "no images"),
        "setup_unknown": (ERROR, "there is no fixture called 'enocder'"),
        "setup_short": (FAILED, "setup 2 > 1"),
        "teardown_after_pass": (ERROR, "ValueError: late"),
        "teardown_after_fail": (FAILED, "first"),
        "teardown_after_skip": (ERROR, "ValueError: late"),
        "teardown_short": (FAILED, "teardown 2 > 1"),
        "mark_skip": (INCONCLUSIVE, "later"),
        "mark_xfail": (INCONCLUSIVE, "known"),
        "mark_xfail_measured": (FAILED, "gain 2 > 1"),
        "mark_xfail_strict_passing": (FAILED, "[XPASS(strict)] known"),
    }
    (empty,) = (finding for id_, finding in findings.items() if id_.startswith("empty["))
    assert empty.outcome is INCONCLUSIVE


def test_details_explain_crashes_and_asserts_but_not_verdicts(
    state: ScanState, tmp_path: Path
) -> None:
    source = """
    def check_crash():
        print("printed")
        {}["key"]

    def check_assert(): assert {"a": 1} == {"a": 2}
    def check_measured(measure): measure("gain", 2, at_most=1)
    def check_config(): raise ConfigError("no such option")
    """
    findings = run(state, write(tmp_path / "check_it.py", source))
    assert "KeyError" in findings["crash"].details and "printed" in findings["crash"].details
    assert "Differing items" in findings["assert"].details
    assert findings["measured"].details == findings["config"].details == ""


def test_a_finding_says_which_check_it_is(state: ScanState, tmp_path: Path) -> None:
    source = '''
    @pytest.mark.check("ACME001", severity="high")
    @pytest.mark.parametrize("size", [3, 5])
    def check_patches(size, measure):
        """No patch matters.

        More on that.
        """
        measure("size", size, at_least=1, at_most=4)
        measure("note", 1)

    def check_plain(): ...
    '''
    findings = run(state, write(tmp_path / "check_it.py", source))
    assert list(findings) == ["ACME001[3]", "ACME001[5]", "plain"]
    five, plain = findings["ACME001[5]"], findings["plain"]
    assert (five.check, five.severity) == ("check_it.py::check_patches[5]", "high")
    assert five.title == "No patch matters."
    assert five.measurements == (
        Measurement("size", 5.0, 1.0, Direction.AT_LEAST),
        Measurement("size", 5.0, 4.0, Direction.AT_MOST),
        Measurement("note", 1.0),
    )
    assert (plain.severity, plain.title) == ("medium", "")


def test_limits_can_be_replaced(state: ScanState, tmp_path: Path) -> None:
    source = """
    @pytest.mark.check("A")
    @pytest.mark.parametrize("n", [1, 2])
    def check_a(n, measure): measure("x", 5, at_most=4)
    @pytest.mark.check("B")
    def check_b(measure): measure("x", 5, at_least=1, at_most=4)
    @pytest.mark.check("C")
    def check_c(measure): measure("x", 5, at_least=1, at_most=4)
    """
    state.limits = {"A.x": 6, "A[2].x": 5.5, "B.x.at_most": 7, "C.x": 8}
    findings = run(state, write(tmp_path / "check_it.py", source))
    assert [findings[id_].outcome for id_ in ("A[1]", "A[2]", "B")] == [PASSED] * 3
    assert [findings[id_].measurements[0].limit for id_ in ("A[1]", "A[2]", "B")] == [6, 5.5, 1]
    assert findings["C"].message.startswith("limit C.x: it has two sides; set C.x.at_least or")


def test_a_shortfall_shows_as_many_digits_as_it_takes() -> None:
    below = Measurement("gain", 0.900004, 0.9, Direction.AT_MOST)
    assert describe_shortfalls([below]) == "gain 0.900004 > 0.9"


# Selecting and collecting.

NAMED = """
@pytest.mark.check("EC901")
def check_alpha(): ...
@pytest.mark.check("EC902")
def check_beta(): ...
def helper(): raise ValueError
def test_not_a_check(): raise ValueError
class TestNeither:
    def check_method(self): raise ValueError
check_number = 3
"""


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        (None, ["EC901", "EC902"]),
        ("", ["EC901", "EC902"]),
        ("ec901", ["EC901"]),
        ("EC901 or beta", ["EC901", "EC902"]),
        ("not EC901", ["EC902"]),
        ("check_it", ["EC901", "EC902"]),
    ],
)
def test_k_selects_by_name_and_by_id(
    state: ScanState, tmp_path: Path, expression: str | None, ids: list[str]
) -> None:
    folder = write(tmp_path / "check_it.py", NAMED)
    assert list(run(state, folder, keyword=expression)) == ids


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("gamma", r"^-k gamma selects none of 2 checks$"),
        ("(alpha", r"Wrong expression passed to '-k': \(alpha: at column 7"),
        ("-alpha", r"^-k -alpha selects none of 2 checks$"),
    ],
)
def test_k_that_selects_nothing_is_refused(
    state: ScanState, tmp_path: Path, expression: str, message: str
) -> None:
    folder = write(tmp_path / "check_it.py", NAMED)
    with pytest.raises(ConfigError, match=message):
        run(state, folder, keyword=expression)


UNUSABLE = {
    "check_it.py:3: SyntaxError": "def check_a(:\n",
    "check_it.py:3: ModuleNotFoundError: No module named 'no_such'": "import no_such",
    "check_it.py:5: NameError: name 'missing' is not defined": "def check_a(): ...\n\nmissing",
    "check_it.py:3: SystemExit: 0": "import sys; sys.exit(0)",
    "check_it.py: enough": "pytest.exit('enough', returncode=0)",
    "check_a: severity 'urgent': choose one of info, low, medium, high, critical": (
        "@pytest.mark.check('A', severity='urgent')\ndef check_a(): ..."
    ),
    "check_a: write @pytest.mark.check(id, severity=..., catches=[...], cost=...)": (
        "@pytest.mark.check('A', level='high')\ndef check_a(): ..."
    ),
    "check_a: catches 'bad*': write a list of names of fixtures": (
        "@pytest.mark.check('A', catches='bad*')\ndef check_a(): ..."
    ),
    "check_a: catches 3: write a list of names of fixtures": (
        "@pytest.mark.check('A', catches=3)\ndef check_a(): ..."
    ),
    "check_a: catches ['bad', 3]: write a list of names of fixtures": (
        "@pytest.mark.check('A', catches=['bad', 3])\ndef check_a(): ..."
    ),
    "check_a: catches ['']: write a list of names of fixtures": (
        "@pytest.mark.check('A', catches=[''])\ndef check_a(): ..."
    ),
    "check_a: catches 'bad@1': a fixture is caught with any seed; write 'bad'": (
        "@pytest.mark.check('A', catches=['bad@1'])\ndef check_a(): ..."
    ),
    "check_a: cost -1: give a number, 0 or more": (
        "@pytest.mark.check('A', cost=-1)\ndef check_a(): ..."
    ),
    "check_a: check id '../A': use letters": "@pytest.mark.check('../A')\ndef check_a(): ...",
    "check_a: a check is a plain function": "async def check_a(): ...",
    "check id A: taken by": (
        "@pytest.mark.check('A')\ndef check_a(): ...\n@pytest.mark.check('A')\ndef check_b(): ..."
    ),
    "no checks in": "def test_a(): ...",
    "function uses no argument 'n'": "@pytest.mark.parametrize('n', [1])\ndef check_a(): ...",
}


@pytest.mark.parametrize("message", UNUSABLE)
def test_an_unusable_check_file_is_one_line(
    state: ScanState, tmp_path: Path, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "check_it.py", UNUSABLE[message])
    with pytest.raises(ConfigError) as caught:
        run(state, folder)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("conftest", "message"),
    [
        (
            "import no_such_library",
            "conftest.py:3: ModuleNotFoundError: No module named 'no_such_l",
        ),
        ("def (", "conftest.py:3: SyntaxError"),
        ("raise SystemExit(0)", "conftest.py:3: SystemExit: 0"),
    ],
)
def test_an_unusable_conftest_is_one_line(
    state: ScanState, tmp_path: Path, conftest: str, message: str
) -> None:
    write(tmp_path / "conftest.py", conftest)
    with pytest.raises(ConfigError) as caught:
        run(state, write(tmp_path / "check_it.py", "def check_a(): ..."))
    assert message in str(caught.value)


def test_two_checks_of_one_id_are_refused_wherever_they_are(
    state: ScanState, tmp_path: Path
) -> None:
    one = write(tmp_path / "one/check_x.py", "def check_same(): ...\n")
    two = write(tmp_path / "two/check_x.py", "def check_same(): ...\n")
    with pytest.raises(ConfigError) as caught:
        run(state, one, two)
    assert "one/check_x.py::check_same" in str(caught.value)
    assert "two/check_x.py::check_same" in str(caught.value)


def test_overlapping_paths_run_a_check_once(state: ScanState, tmp_path: Path) -> None:
    write(tmp_path / "sub/check_b.py", "def check_b(): ...\n")
    folder = write(tmp_path / "check_a.py", "def check_a(): ...\n")
    paths = (folder, folder / "check_a.py", folder / "sub", folder / "sub/check_b.py")
    assert sorted(run(state, *paths)) == ["a", "b"]


def test_a_file_of_any_name_can_be_given(state: ScanState, tmp_path: Path) -> None:
    write(tmp_path / "mine.py", "def check_mine():\n    x = 1\n    assert x > 2\n")
    finding = run(state, tmp_path / "mine.py")["mine"]
    assert (finding.outcome, finding.message) == (FAILED, "assert 1 > 2")


@pytest.mark.parametrize("name", ["missing", "notes.txt"])
def test_a_path_that_holds_no_checks_is_refused(
    state: ScanState, tmp_path: Path, name: str
) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=name):
        run(state, tmp_path / name)


def test_a_file_that_skips_itself_is_inconclusive(state: ScanState, tmp_path: Path) -> None:
    write(tmp_path / "check_b.py", "pytest.importorskip('no_such', reason='needs the extra')\n")
    folder = write(tmp_path / "check_a.py", "def check_a(): ...\n")
    log = Log()
    findings = run(state, folder, listener=log)
    assert findings["check_b"].outcome is INCONCLUSIVE
    assert findings["check_b"].message == "needs the extra"
    assert log.events[0] == ("collected", "a", "check_b")


def test_listing_needs_no_encoder(tmp_path: Path) -> None:
    folder = write(tmp_path / "check_it.py", NAMED)
    assert [info.id for info in runner.list_checks([folder])] == ["EC901", "EC902"]


def test_the_built_in_suite_can_be_listed() -> None:
    infos = runner.list_checks([runner.builtin_suite()])
    assert infos
    assert all(info.id.startswith("EC") and info.title for info in infos)


# Running.


def test_the_listener_hears_everything(state: ScanState, tmp_path: Path) -> None:
    log = Log()
    source = "def check_a(progress): progress(1, 2, 'hm')\ndef check_b(): assert 0\n"
    run(state, write(tmp_path / "check_it.py", source), listener=log)
    assert log.events == [
        ("collected", "a", "b"),
        ("started", "a"),
        ("progress", "a", "1/2", "hm"),
        ("finished", "a", "passed"),
        ("started", "b"),
        ("finished", "b", "failed"),
    ]


DRAWING = """
import random, numpy, torch

def check_a(measure):
    measure("draw", torch.rand(()) + numpy.random.rand() + random.random())

def check_b(measure):
    measure("draw", torch.rand(()) + numpy.random.rand() + random.random())
    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)

def check_c():
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() is torch.float32
"""


def test_random_numbers_do_not_depend_on_what_ran_before(state: ScanState, tmp_path: Path) -> None:
    folder = write(tmp_path / "check_it.py", DRAWING)
    generators = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    both, alone = run(state, folder), run(state, folder, keyword="b")
    assert random.getstate() == generators[0]
    assert np.random.get_state()[1].tolist() == generators[1]
    assert torch.equal(torch.get_rng_state(), generators[2])
    assert both["c"].outcome is PASSED
    assert both["b"].measurements == alone["b"].measurements
    assert both["a"].measurements != both["b"].measurements
    state.seed += 1
    assert run(state, folder)["b"].measurements != both["b"].measurements


INVERTING = """
def check_a(inversion, measure):
    measure("draw", inversion)

def check_b(inversion, measure):
    measure("draw", inversion)
"""


def test_the_inversion_is_computed_once(
    state: ScanState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Encoder] = []

    def invert(encoder: Encoder, images: torch.Tensor, **options: object) -> float:
        assert len(images) == state.profile.search
        options["progress"](1, 2, "best")  # type: ignore[operator]
        calls.append(encoder)
        return float(torch.rand(()))

    monkeypatch.setattr(inversion, "invert", invert)
    folders = [
        write(tmp_path / name / "check_it.py", INVERTING.replace("check_", f"check_{name}"))
        for name in ("x", "y")
    ]
    log = Log()
    findings = run(state, *folders, listener=log)
    assert len(calls) == 1
    assert calls[0].module is not state.encoder.module
    assert len({finding.measurements for finding in findings.values()}) == 1
    assert ("progress", "xa", "1/2", "best") in log.events
    # Which check asks first makes no difference to what is drawn.
    alone = run(state, *folders, keyword="yb")
    assert alone["yb"].measurements == findings["yb"].measurements


def test_the_battery_is_sifted_once_and_the_inversion_starts_from_it(
    state: ScanState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sifted: list[int] = []
    given: list[object] = []

    def sift(
        encoder: Encoder, candidates: list[object], images: torch.Tensor, clean: Clean, **_: object
    ) -> list[str]:
        sifted.append(len(images))
        return ["hit"]

    def invert(encoder: Encoder, images: torch.Tensor, **options: object) -> float:
        given.append(options["hits"])
        return 0.0

    monkeypatch.setattr(battery, "sift", sift)
    monkeypatch.setattr(inversion, "invert", invert)
    source = """
    def check_a(battery_hits): assert battery_hits == ("hit",)
    def check_b(inversion, battery_hits): assert battery_hits == ("hit",)
    """
    findings = run(state, write(tmp_path / "check_it.py", source))
    assert [finding.outcome for finding in findings.values()] == [PASSED] * 2
    assert sifted == [state.profile.battery_images]
    assert given == [("hit",)]


def test_a_limit_set_by_hand_needs_no_clean_encoders_and_ends_the_search(
    state: ScanState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[object] = []

    def invert(encoder: Encoder, images: torch.Tensor, **options: object) -> float:
        limits.append(options["limit"])
        return 0.6

    monkeypatch.setattr(inversion, "invert", invert)
    source = """
    @pytest.mark.check("EC202")
    def check_b(inversion, compare): compare("gain", inversion)
    """
    folder = write(tmp_path / "check_it.py", source)
    state.nulls = Nulls()
    state.bank = replace(state.bank, values=())
    assert run(state, folder)["EC202"].outcome is INCONCLUSIVE
    state.limits = {"EC202.gain": 0.5}
    assert run(state, folder)["EC202"].outcome is FAILED
    state.limits = {"EC202.gain.at_most": 0.7}
    assert run(state, folder)["EC202"].outcome is PASSED
    assert limits == [None, 0.5, 0.7]


@pytest.mark.parametrize(
    ("error", "outcome", "message"),
    [
        ("CheckInconclusive", INCONCLUSIVE, "no"),
        ("ConfigError", ERROR, "no"),
        ("ValueError", ERROR, "ValueError: no"),
    ],
)
def test_an_inversion_that_fails_fails_alike_for_all(
    state: ScanState,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: str,
    outcome: Outcome,
    message: str,
) -> None:
    import encodercheck.errors

    kind = getattr(encodercheck.errors, error, ValueError)
    calls: list[int] = []

    def invert(*arguments: object, **options: object) -> None:
        calls.append(1)
        raise kind("no")

    monkeypatch.setattr(inversion, "invert", invert)
    findings = run(
        state, write(tmp_path / "check_it.py", INVERTING.replace("inversion", "trigger"))
    )
    assert [(f.outcome, f.message) for f in findings.values()] == [(outcome, message)] * 2
    assert len(calls) == 1
    explained = ["raise kind" in finding.details for finding in findings.values()]
    assert explained == [error == "ValueError"] * 2


def test_an_interrupt_is_the_users(state: ScanState, tmp_path: Path) -> None:
    log = Log()
    source = "def check_a(): ...\ndef check_b(): raise KeyboardInterrupt\ndef check_c(): ...\n"
    before = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        run(state, write(tmp_path / "check_it.py", source), listener=log)
    assert log.events[-2:] == [("finished", "a", "passed"), ("started", "b")]
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_left_behind(state: ScanState, tmp_path: Path) -> None:
    source = """
    import os, sys

    def check_a(tmp_path):
        os.chdir(tmp_path)
        os.environ["LEFT"] = "over"
        sys.path.insert(0, "left-over")
        raise ValueError
    """
    before = dict(os.environ), Path.cwd(), list(sys.path), getattr(sys, "last_value", None)
    run(state, write(tmp_path / "check_it.py", source))
    assert (
        dict(os.environ),
        Path.cwd(),
        list(sys.path),
        getattr(sys, "last_value", None),
    ) == before


# Artifacts.

WITNESSING = """
import torch
from encodercheck.trigger import Trigger
from encodercheck.witness import Witness

@pytest.mark.check("W1")
def check_witness(measure, artifacts):
    trigger = Trigger(torch.ones(1, 16, 16), torch.zeros(3, 16, 16))
    if not measure("gain", 0.99, at_most=0.9):
        SAVE
"""
SAVE = "artifacts.witness(Witness(trigger, cosine=0.99, base=0.5, count=16))"


def test_a_witness_is_saved_and_worded(state: ScanState, tmp_path: Path) -> None:
    from encodercheck.witness import Witness

    state.artifacts_dir = tmp_path / "artifacts"
    finding = run_one(state, tmp_path / "checks", WITNESSING.replace("SAVE", SAVE))
    assert finding.outcome is FAILED
    assert finding.witness == str(tmp_path / "artifacts/W1/witness.safetensors")
    assert finding.message.startswith("a 16x16 patch at (0, 0)")
    witness = Witness.load(Path(finding.witness))
    assert witness.origin["check"] == "W1"
    assert witness.seed == state.seed


def test_a_witness_needs_no_place(state: ScanState, tmp_path: Path) -> None:
    finding = run_one(state, tmp_path, WITNESSING.replace("SAVE", SAVE))
    assert (finding.outcome, finding.witness) == (FAILED, None)
    assert finding.message.startswith("a 16x16 patch at (0, 0)")


@pytest.mark.parametrize(
    "save",
    [SAVE, f"try: {SAVE}\n        except Exception: pass", "artifacts.directory"],
)
def test_an_artifact_that_cannot_be_written_is_no_verdict(
    state: ScanState, tmp_path: Path, save: str
) -> None:
    state.artifacts_dir = tmp_path / "file"
    state.artifacts_dir.touch()
    finding = run_one(state, tmp_path / "checks", WITNESSING.replace("SAVE", save))
    assert finding.outcome is ERROR
    assert "cannot be written to" in finding.message
    assert finding.message.endswith("(after gain 0.99 > 0.9)")
    assert exit_code([finding.outcome]) == 2


def test_a_checks_own_folder(state: ScanState, tmp_path: Path) -> None:
    source = """
    def check_a(artifacts):
        (artifacts.directory / "note.txt").write_text(str(artifacts.directory))
    """
    assert run_one(state, tmp_path / "checks", source).outcome is PASSED
    state.artifacts_dir = tmp_path / "artifacts"
    run_one(state, tmp_path / "checks", source)
    assert (tmp_path / "artifacts/a/note.txt").is_file()


def test_folder_names_stay_in_their_folder_and_apart() -> None:
    names = ["A[1]", "A[../../x]", "A[.._.._x]", "A[a/b]", "A[a_b]", "A" * 300, ".."]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert folders[0] == "A[1]"
    assert not any("/" in folder or folder.startswith(".") for folder in folders)
    assert max(map(len, folders)) <= 100


def test_the_split_holds_images_out() -> None:
    split = CleanImages.of(torch.arange(4.0).reshape(4, 1, 1, 1) / 255, 3).split()
    assert (len(split.search), len(split.held_out)) == (3, 1)
    with pytest.raises(ImagesError, match="3 images are too few"):
        CleanImages.of(torch.zeros(3, 3, 4, 4), 3)
