"""``encodercheck card``: a section in a README that is somebody else's."""

import json
from pathlib import Path

import pytest
import yaml
from commands import python, run
from hypothesis import given
from hypothesis import strategies as st
from reports import FAILED, PASSED, report

from encodercheck.model_card import BEGIN, END, METADATA, UnbalancedMarkers, tagged, updated

SECTION = "## Backdoor scan\n\nFine."
BLOCK = f"{BEGIN}\n{SECTION}\n{END}"


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        ("", f"{BLOCK}\n"),
        ("# Model\n", f"# Model\n\n{BLOCK}\n"),
        ("# Model", f"# Model\n\n{BLOCK}\n"),
        (f"a\n{BEGIN}\nold\n{END} b\n", f"a\n{BLOCK} b\n"),
        (f"{BEGIN}{END}", BLOCK),
    ],
)
def test_the_section_is_put_where_it_belongs(card, expected):
    assert updated(card, SECTION) == expected
    assert updated(expected, SECTION) == expected


def test_lines_end_as_they_do_in_the_card():
    card = "---\r\nlicense: mit\r\n---\r\n# Model\r\n"
    new = updated(card, SECTION)
    assert new.startswith(
        "---\r\nlicense: mit\r\ntags:\r\n- encodercheck\r\n---\r\n# Model\r\n\r\n"
    )
    assert new.count("\n") == new.count("\r\n")
    assert updated(new, SECTION) == new


@pytest.mark.parametrize(
    "card", [BEGIN, END, f"{END}{BEGIN}", f"{BEGIN}{BEGIN}{END}", f"{BEGIN}{END}{END}"]
)
def test_markers_that_are_no_pair_are_an_error(card):
    with pytest.raises(UnbalancedMarkers):
        updated(card, SECTION)


TAGGED = {
    "license: mit": "license: mit\ntags:\n- encodercheck",
    "": "tags:\n- encodercheck",
    "# nothing\n": "# nothing\n\ntags:\n- encodercheck",
    "tags:\n- a\nlicense: mit": "tags:\n- encodercheck\n- a\nlicense: mit",
    "tags:\n  # mine\n  - a # b\nx: 1": "tags:\n  # mine\n  - encodercheck\n  - a # b\nx: 1",
    "'tags':  # mine\n- a": "'tags':  # mine\n- encodercheck\n- a",
    "tags: [a, 'b']": "tags: [encodercheck, a, 'b']",
    "tags: []  # none": "tags: [encodercheck]  # none",
    "tags: [\n  a,\n]\nlicense: mit": "tags: [encodercheck, \n  a,\n]\nlicense: mit",
    "tags:\nlicense: mit": "tags:\n- encodercheck\nlicense: mit",
    "language: [\n  en,\n]": "language: [\n  en,\n]\ntags:\n- encodercheck",
    "a: |\n  tags: x\n\n  y": "a: |\n  tags: x\n\n  y\ntags:\n- encodercheck",
}
UNTOUCHED = [
    "tags:\n- encodercheck",
    "tags:\n- a\n- 'encodercheck'  # scanned\nx: 1",
    "tags: [a, encodercheck]",
    'tags: ["encodercheck"]',
    "tags: one",
    "tags: &all [a]",
    "tags: ~",
    "{license: mit}",
    "- a\n- b",
    "? tags\n: - a",
    "just words",
    "tags:\n  a: 1",
]


@pytest.mark.parametrize("metadata", TAGGED)
def test_metadata_get_a_tag_and_keep_the_rest(metadata):
    card = f"---\n{metadata}\n---\n# Model\n"
    if not metadata:
        card = "---\n---\n# Model\n"
    new = tagged(card)
    assert new == f"---\n{TAGGED[metadata]}\n---\n# Model\n"
    before, after = (yaml.safe_load(METADATA.match(text)[2]) or {} for text in (card, new))
    tags = after.pop("tags")
    assert sorted(tags) == sorted([*(before.pop("tags", None) or []), "encodercheck"])
    assert before == after
    assert tagged(new) == new


@pytest.mark.parametrize("metadata", UNTOUCHED)
def test_metadata_that_cannot_be_tagged_safely_stay(metadata):
    card = f"---\n{metadata}\n---\n"
    assert tagged(card) == card


@pytest.mark.parametrize(
    "card", ["# Model\n", "---\nno end\n", "text\n---\na: 1\n---\n", "----\na\n----\n"]
)
def test_what_has_no_metadata_gets_none(card):
    assert tagged(card) == card


scalars = st.one_of(
    st.text(max_size=12),
    st.integers(),
    st.booleans(),
    st.none(),
    st.dates(),
    st.just("encodercheck"),
)
documents = st.dictionaries(
    st.one_of(st.sampled_from(["license", "tags", "language"]), st.text(min_size=1, max_size=8)),
    st.one_of(
        scalars, st.lists(scalars, max_size=3), st.dictionaries(st.text(max_size=4), scalars)
    ),
    max_size=5,
)


@given(documents, st.sampled_from([None, True, False]), st.booleans())
def test_metadata_stay_what_they_were(document, flow, crlf):
    text = yaml.safe_dump(document, default_flow_style=flow, allow_unicode=True)
    card = f"---\n{text}---\n"
    if crlf:
        card = card.replace("\n", "\r\n")
    found = METADATA.match(card)
    before = yaml.safe_load(found[2])
    new = tagged(card, "\r\n" if crlf else "\n")
    after = yaml.safe_load(METADATA.match(new)[2])
    if new != card:
        tags = after.pop("tags")
        assert tags.pop(0) == "encodercheck"
        assert tags == ((before or {}).pop("tags", None) or [])
    assert (after or {}) == (before or {})
    assert tagged(new) == new


@pytest.fixture
def saved(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(report(PASSED, FAILED).to_dict()))
    return tmp_path


def test_the_command_updates_and_checks(saved):
    readme = saved / "README.md"
    original = b"---\r\nlicense: mit\r\n---\r\n# M\xe9lange, in Latin-1\r\n"
    readme.write_bytes(original)
    stale = run("card", "report.json", "README.md", "--check", cwd=saved)
    assert (stale.returncode, readme.read_bytes()) == (1, original)
    assert "not up to date" in stale.stdout
    assert run("card", "report.json", "README.md", cwd=saved).returncode == 0
    first = readme.read_bytes()
    assert b"M\xe9lange, in Latin-1\r\n\r\n<!-- encodercheck:begin -->\r\n" in first
    assert b"**EC202**" in first
    assert run("card", "report.json", "README.md", "--check", cwd=saved).returncode == 0
    assert run("card", "report.json", "README.md", cwd=saved).stdout == "README.md: up to date\n"
    assert readme.read_bytes() == first


def test_a_link_to_a_card_stays_one(saved):
    (saved / "real.md").write_text("# Model\n")
    (saved / "README.md").symlink_to("real.md")
    assert run("card", "report.json", "README.md", cwd=saved).returncode == 0
    assert (saved / "README.md").is_symlink()
    assert BEGIN in (saved / "real.md").read_text()


@pytest.mark.parametrize(
    ("report_", "readme", "says"),
    [
        ("report.json", f"{BEGIN} and no end", "not one pair"),
        ("report.json", None, "no such file"),
        ("missing.json", "# Model", "missing.json"),
        ("README.md", "# Model", "no usable report"),
        ("altered.json", "# Model", "not what its findings add up to"),
    ],
)
def test_what_cannot_be_is_one_line_and_two(saved, report_, readme, says):
    altered = report(PASSED, FAILED).to_dict() | {"outcome": "passed", "exit_code": 0}
    (saved / "altered.json").write_text(json.dumps(altered))
    if readme is not None:
        (saved / "README.md").write_text(readme)
    ended = run("card", report_, "README.md", cwd=saved)
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    if readme is not None:
        assert (saved / "README.md").read_text() == readme


def test_it_needs_no_torch(saved):
    Path(saved / "README.md").write_text("")
    code = (
        "import sys; from encodercheck.cli.main import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    ended = python("-c", code, "card", "report.json", "README.md", cwd=saved)
    assert ended.returncode == 0, ended
    options = ["--junit", "r.xml", "--sarif", "r.sarif", "--markdown", "r.md", "--badge", "r.svg"]
    ended = python("-c", code, "report", "report.json", *options, cwd=saved)
    assert ended.returncode == 1, ended
