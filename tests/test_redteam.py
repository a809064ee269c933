"""The cases of ``python -m benchmarks.redteam``: what they try is real, and none of it passes."""

import subprocess
from pathlib import Path

import pytest
import test_edits

from benchmarks import redteam
from benchmarks.further_edits import FURTHER
from encodercheck import fixtures, loading

# Generating a fixture takes a minute or two where the cache has none.
pytestmark = pytest.mark.timeout(1500)
CASES = dict(redteam.cases())
# Scans of whole suites, which take a minute each, are left to the slow ones.
QUICK = ("claim", "check", "stdout closed")


def _marks(name):
    return [] if name.startswith(QUICK) else [pytest.mark.slow]


def test_there_are_enough_cases_of_each_kind():
    assert len(FURTHER) >= 10
    kinds = {name.partition(":")[0] for name in CASES}
    assert {"edit", "further edit", "claim", "check", "pull request"} < kinds


@pytest.mark.parametrize("name", FURTHER)
def test_further_edits_leave_the_attack_where_it_is(name, tmp_path):
    built = fixtures.build("badencoder")
    (trigger,) = built.triggers()
    encoder = loading.load(redteam.edited(FURTHER[name], tmp_path / "m.safetensors"), device="cpu")
    clean, stamped = test_edits._alike(encoder, trigger, 0)
    assert clean < 0.2
    assert stamped > 0.8


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=_marks(n), id=n) for n in CASES if not n.startswith("edit: ")],
)
def test_no_case_ends_with_a_pass(name, tmp_path: Path):
    command = ["bash", "-c", CASES[name](tmp_path)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode in (1, 2), ended
    assert "Traceback" not in ended.stderr
