"""What a finding rests on: which edits make a check run again, and which do not."""

import pytest

from encodercheck.harness.runner import collect
from encodercheck.verify.grounds import grounds, python_files

CHECK = """
import pytest

@pytest.mark.check("ONE", severity="high", catches=["bad*"])
def check_one():
    '''It holds.'''
    assert 1 + 1 == 2
"""
OTHER = "def check_two(): ...\n"


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "check_one.py", CHECK)
    write(tmp_path, "check_two.py", OTHER)
    write(tmp_path, "helper.py", "x = 1\n")
    return tmp_path


def write(folder, name, text):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def hashes(*paths, **settings):
    return grounds(collect(paths, None), settings)


def test_they_are_the_same_wherever_the_checks_lie(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for file in folder.iterdir():
        write(elsewhere, file.name, file.read_text())
    assert hashes(folder) == hashes(elsewhere)
    assert len({*hashes(folder).values()}) == 2


@pytest.mark.parametrize(
    ("name", "text", "changed"),
    [
        ("check_one.py", CHECK.replace("== 2", "== 3"), {"ONE"}),
        ("check_one.py", CHECK.replace("high", "low"), {"ONE"}),
        ("check_one.py", CHECK.replace('["bad*"]', '["worse"]'), set()),
        ("check_one.py", CHECK.replace(', catches=["bad*"]', ""), set()),
        ("check_one.py", CHECK + "\n# a remark\n", set()),
        ("check_two.py", OTHER.replace("...", "pass"), {"two"}),
        ("helper.py", "x = 2\n", {"ONE", "two"}),
        ("conftest.py", "x = 2\n", {"ONE", "two"}),
        ("more/helper.py", "x = 2\n", {"ONE", "two"}),
        ("notes.txt", "more", set()),
        (".git/helper.py", "x = 2\n", set()),
    ],
)
def test_an_edit_reaches_what_it_can_change(folder, name, text, changed):
    before = hashes(folder)
    write(folder, name, text)
    after = hashes(folder)
    assert {id_ for id_ in before if after[id_] != before[id_]} == changed


def test_an_environment_is_not_looked_into(folder):
    before = hashes(folder)
    write(folder, "own/pyvenv.cfg", "")
    write(folder, "own/lib/helper.py", "x = 2\n")
    assert hashes(folder) == before


def test_a_loop_of_links_comes_to_an_end(folder):
    (folder / "loop").symlink_to(folder)
    names = sorted(file.name for file in python_files(folder))
    assert names == ["check_one.py", "check_two.py", "helper.py"]


def test_of_a_file_only_what_lies_beside_it_counts(folder):
    before = hashes(folder / "check_one.py")
    write(folder, "more/helper.py", "x = 2\n")
    assert hashes(folder / "check_one.py") == before
    write(folder, "helper.py", "x = 2\n")
    assert hashes(folder / "check_one.py") != before


def test_settings_count(folder):
    assert hashes(folder, seed=0)["ONE"] != hashes(folder, seed=1)["ONE"]
