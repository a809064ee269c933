"""``encodercheck explain``: what the page about the checks says of one, and of a user's own."""

import pytest
from commands import run

from encodercheck.cli.explain import sections
from encodercheck.render.explained import EXPLANATIONS

OWN = """
import pytest

@pytest.mark.check("ACME001", severity="low", catches=["badencoder"])
def check_own(encoder):
    \"\"\"What holds for a good encoder.\"\"\"
"""


def test_every_built_in_check_has_a_section_that_says_what_to_do():
    found = sections()
    assert {*found} == {*EXPLANATIONS} - {"EC000"}
    for text in found.values():
        assert "**Cannot see**" in text
        assert "**When it fails**" in text
        assert "](" not in text


@pytest.mark.parametrize("name", ["EC202", "ec202"])
def test_the_section_is_printed_at_the_width_of_the_screen(tmp_path, name):
    ended = run("explain", name, cwd=tmp_path)
    assert ended.returncode == 0, ended
    assert ended.stdout.startswith("EC202 budget inversion (critical)")
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert "\x1b" not in ended.stdout


def test_a_check_of_ones_own_is_explained_by_its_marker_and_docstring(tmp_path):
    (tmp_path / "check_own.py").write_text(OWN)
    ended = run("explain", "ACME001", "--checks", "check_own.py", cwd=tmp_path)
    assert ended.returncode == 0, ended
    for text in ("ACME001 (low)", "What holds for a good encoder.", "check_own", "badencoder"):
        assert text in ended.stdout


def test_an_unknown_check_is_one_line(tmp_path):
    ended = run("explain", "EC299", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("encodercheck: there is no check 'EC299'; did you mean 'EC20")


def test_help_has_a_short_name(tmp_path):
    long, short = (run("scan", option, cwd=tmp_path) for option in ("--help", "-h"))
    assert short.stdout == long.stdout
    assert short.returncode == 0
