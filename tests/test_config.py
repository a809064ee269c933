"""The configuration file: found, read strictly, and overridden in the right order."""

import contextlib
import hashlib
import json
import math
import os
import re
from datetime import date
from pathlib import Path

import models
import pytest
from commands import python, run
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import encodercheck
from encodercheck import config
from encodercheck.cli import options
from encodercheck.cli.main import app
from encodercheck.config import Config, find, parse, read, rules
from encodercheck.config.keys import DEVICES, KEYS
from encodercheck.config.rules import Rules, overlay
from encodercheck.errors import ConfigError
from encodercheck.known.waivers import ModelWaiver
from encodercheck.profiles import PROFILES
from encodercheck.report import Direction, Finding, Measurement, Outcome, Report, exit_code
from encodercheck.severities import SEVERITIES, as_grave_as

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/configuration.md"
FILE = Path("/somewhere/encodercheck.toml")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".git").mkdir()
    for name in list(os.environ):
        if name.startswith("ENCODERCHECK_") and name != "ENCODERCHECK_CACHE":
            monkeypatch.delenv(name)
    return tmp_path


def _parsed(text: str) -> Config:
    return parse(FILE, text.encode())


# Finding the file.


def test_without_a_file_there_is_nothing(here):
    assert find() == Config()
    assert find().shown == ""


def test_the_nearest_file_is_taken(here):
    below = here / "a/b"
    below.mkdir(parents=True)
    (here / "encodercheck.toml").write_text("seed = 1")
    assert find(below).values == {"seed": 1}
    (here / "a/pyproject.toml").write_text("[tool.encodercheck]\nseed = 2")
    assert find(below).values == {"seed": 2}
    (here / "a/encodercheck.toml").write_text("seed = 3")
    assert find(below).values == {"seed": 3}
    (below / "pyproject.toml").write_text("[tool.ruff]\nline-length = 3")
    assert find(below).values == {"seed": 3}
    (below / "pyproject.toml").write_text("[tool.encodercheck]")
    assert find(below).values == {}
    assert find(below).path == below / "pyproject.toml"


def test_the_root_of_a_repository_is_the_end(here):
    inner = here / "vendored"
    (inner / "src").mkdir(parents=True)
    (inner / ".git").write_text("gitdir: elsewhere")
    (here / "encodercheck.toml").write_text("seed = 1")
    assert find(inner / "src").path is None
    (inner / "encodercheck.toml").write_text("seed = 2")
    assert find(inner / "src").values == {"seed": 2}


def test_another_users_file_above_is_refused_outside_a_repository(tmp_path, monkeypatch):
    below = tmp_path / "below"
    below.mkdir()
    (tmp_path / "encodercheck.toml").write_text("seed = 1")
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1, raising=False)
    real = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **kw: _owned(real(path, **kw), 4711))
    with pytest.raises(ConfigError, match="belongs to another user"):
        find(below)
    assert find(tmp_path).values == {"seed": 1}
    (tmp_path / ".git").mkdir()
    assert find(below).values == {"seed": 1}


def _owned(stat, uid):
    fields = list(stat)
    fields[4] = uid
    return os.stat_result(fields)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_text("seed = "), "is not TOML"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not TOML"),
        (lambda path: path.write_text("seed = 1\nseed = 2"), "is not TOML"),
        (lambda path: path.write_text("a = " + "[" * 100_000), "is not TOML"),
        (lambda path: path.write_bytes(b"#" * 1_000_001), "more than 1 MB"),
        (lambda path: path.mkdir(), "is no file"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read"),
    ],
    ids=["broken", "binary", "twice", "deep", "large", "folder", "dangling"],
)
@pytest.mark.parametrize("name", [config.OWN, config.PYPROJECT])
def test_a_file_that_cannot_be_read_is_one_line(here, make, says, name):
    make(here / name)
    with pytest.raises(ConfigError, match=f"{name}: .*{says}.*--no-config") as caught:
        find()
    assert len(str(caught.value).splitlines()) == 1


def test_a_named_pyproject_needs_the_table(here):
    (here / "pyproject.toml").write_text("[project]\nname = 'x'")
    assert find().path is None
    with pytest.raises(ConfigError, match=r"no table \[tool.encodercheck\]"):
        read(Path("pyproject.toml"))
    (here / "pyproject.toml").write_text("tool.encodercheck = 3")
    with pytest.raises(ConfigError, match="expected a table"):
        find()


def test_a_working_directory_that_is_gone_has_no_file(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert find() == Config()


# What it says.


def test_paths_are_relative_to_the_file(here):
    below = here / "below"
    below.mkdir()
    values = 'images = "cifar10:../data"\nnull = "a.json"\nartifacts = "/x"\nchecks = [".", "c.py"]'
    (below / "encodercheck.toml").write_text(values)
    assert read(Path("below/encodercheck.toml")).values == {
        "images": "cifar10:data",
        "null": "below/a.json",
        "artifacts": "/x",
        "checks": ["below", "below/c.py"],
    }


WRONG = {
    "images": ["3", '""', '["a"]'],
    "profile": ['"hasty"', "1"],
    "seed": ["-1", "1.0", '"1"', "true", str(2**31)],
    "device": ['"gpu"', "0"],
    "strict": ["1", '"yes"'],
    "checks": ['"a.py"', "[1]", '[""]'],
    "select": ['"EC101"', "[1]"],
    "ignore": ['"EC101"', "{}"],
    "null": ["false", "[]"],
    "max-memory": ['"much"', "0", "1.5", "true"],
    "artifacts": ["1", '"a\\u0000b"'],
    "fail-on": ['"grave"', "1"],
    "fail-fast": ["1", '"yes"'],
    "limits": ["1", "[]", "{A = {}}", '{A = 1}', '{"A.x" = "1"}', '{"A.x" = true}',
               '{"A.x" = nan}', '{"A.x" = 1, A.x = 2}', '{A.at_most = 1}',
               f'{{"A.x" = {10**400}}}'],
    "severity": ["1", '{A = "grave"}', "{A = 1}"],
    "waivers": ["1", "{}", "[1]", "[{}]"],
}  # fmt: skip


def test_every_key_has_wrong_values_here():
    assert list(WRONG) == list(KEYS)


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in WRONG.items() for v in vs])
@pytest.mark.parametrize("name", [config.OWN, config.PYPROJECT])
def test_a_wrong_value_names_file_key_and_what_is_expected(key, value, name):
    path = Path("/somewhere") / name
    table = "[tool.encodercheck]\n" if name == config.PYPROJECT else ""
    with pytest.raises(ConfigError) as caught:
        parse(path, f"{table}{key} = {value}".encode())
    said = str(caught.value)
    assert said.startswith(f"/somewhere/{name}: {config.prefix(path)}{key}")
    assert KEYS[key].expected in said
    assert len(said.splitlines()) == 1


@given(st.text(min_size=1).filter(lambda name: name not in KEYS))
def test_unknown_keys_are_always_refused(name):
    with pytest.raises(ConfigError, match="unknown key; ") as caught:
        _parsed(f"{json.dumps(name, ensure_ascii=False)} = 1".replace("\x7f", "\\u007f"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("near", "meant"), [("profil", "profile"), ("max_memory", "max-memory"), ("Limits", "limits")]
)
def test_an_unknown_key_gets_a_suggestion(near, meant):
    with pytest.raises(ConfigError, match=f"{near}: unknown key; did you mean '{meant}'"):
        _parsed(f"{near} = 1")


def test_limits_are_one_table_however_they_are_written():
    quoted = '[limits]\n"EC202.gain" = 1\n"EC202.rank.at_most" = 0.5\n"A.b.c" = inf'
    plain = "[limits]\nEC202.gain = 1\nEC202.rank.at_most = 0.5\nA.b.c = inf"
    limits = {"EC202.gain": 1.0, "EC202.rank.at_most": 0.5, "A.b.c": math.inf}
    assert _parsed(quoted).limits == _parsed(plain).limits == limits


@given(st.floats())
def test_no_limit_is_ever_nan(number):
    text = f'[limits]\n"A.x" = {number!r}'
    if math.isnan(number):
        with pytest.raises(ConfigError, match="NaN"):
            _parsed(text)
        with pytest.raises(ConfigError, match="NaN"):
            Rules(limits={"A.x": number})
    else:
        assert _parsed(text).limits == {"A.x": number}


def test_the_names_are_those_of_the_options():
    assert [name.value for name in options.DeviceName] == list(DEVICES)
    assert [name.value for name in options.SeverityName] == list(SEVERITIES)
    assert [name.value for name in options.ProfileName] == list(PROFILES)


# Which layer wins.

LAYERED = {
    "profile": st.sampled_from(list(PROFILES)),
    "seed": st.integers(0, 2**31 - 1),
    "device": st.sampled_from(DEVICES),
    "strict": st.booleans(),
    "fail-on": st.sampled_from(SEVERITIES),
    "fail-fast": st.booleans(),
    "artifacts": st.sampled_from(["/a", "/b", "/c"]),
    "select": st.lists(st.sampled_from(["EC1*", "EC202"]), min_size=1),
    "max-memory": st.integers(1, 10**12),
}
VARIABLES = [name for name in LAYERED if KEYS[name].environment]


def _layer(names):
    return st.fixed_dictionaries({}, optional={name: LAYERED[name] for name in names})


@contextlib.contextmanager
def _folder(path: Path, file: str):
    before = Path.cwd()
    path.mkdir(exist_ok=True)
    (path / "encodercheck.toml").write_text(file)
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def _arguments(typed):
    for name, value in typed.items():
        if isinstance(value, bool):
            yield f"--{name}" if value else f"--no-{name}"
        elif isinstance(value, list):
            yield from (part for item in value for part in (f"--{name}", item))
        else:
            yield from (f"--{name}", str(value))


@given(typed=_layer(LAYERED), environment=_layer(VARIABLES), file=_layer(LAYERED))
def test_the_command_line_beats_the_environment_beats_the_file(
    tmp_path_factory, typed, environment, file
):
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in file.items())
    variables = {KEYS[name].environment: str(value) for name, value in environment.items()}
    with _folder(tmp_path_factory.getbasetemp() / "layers", text):
        ended = CliRunner().invoke(app, ["config", "--json", *_arguments(typed)], env=variables)
    assert ended.exit_code == 0, ended
    values = json.loads(ended.stdout)["values"]
    layers = [
        (typed, lambda _: "command line"),
        (environment, lambda name: KEYS[name].environment),
        (file, lambda _: "encodercheck.toml"),
    ]
    for name in LAYERED:
        expected = next(
            (
                {"value": layer[name], "from": where(name)}
                for layer, where in layers
                if name in layer
            ),
            None,
        )
        if expected is None:
            assert values[name]["from"] == "default"
        else:
            assert values[name] == expected


@given(
    below=st.dictionaries(
        st.sampled_from(["A.x", "A.x.at_most", "A.x.at_least", "A[1].x", "A[1].x.at_most", "B.x"]),
        st.floats(allow_nan=False),
    ),
    above=st.dictionaries(
        st.sampled_from(["A.x", "A.x.at_most", "A[1].x", "B.x"]), st.floats(allow_nan=False)
    ),
)
def test_a_limit_above_is_never_beaten_by_one_below(below, above):
    merged = overlay(below, above)
    assert merged.items() >= above.items()
    assert merged.items() <= {**below, **above}.items()
    if "A.x" in above:
        assert {key for key in merged if key.startswith("A")} <= {"A.x", *above}
    if "B.x" not in above and "B.x" in below:
        assert merged["B.x"] == below["B.x"]


@pytest.mark.parametrize(
    "text", ["EC202.gain", "EC202=1", "=1", "EC202.gain=", "EC202.gain=much", "EC202.gain=nan"]
)
def test_a_limit_that_is_none_is_one_line(here, text):
    ended = run("config", "--limit", text, cwd=here)
    assert ended.returncode == 2
    assert "limit" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


def test_the_command_says_where_everything_comes_from(here):
    (here / "encodercheck.toml").write_text(
        'profile = "quick"\n[limits]\nEC202.gain = 0.9\nEC102.gain.at_most = 0.8\n'
        f'[severity]\nEC101 = "low"\n[[waivers]]\nmodel = "sha256:{"0" * 64}"\ncheck = "EC102"\n'
        'reason = "known"\nexpires = 2001-01-01\n'
    )
    ended = run("config", "--limit", "EC102.gain=0.7", cwd=here, ENCODERCHECK_SEED="7")
    assert ended.returncode == 0, ended
    lines = [re.split(r"\s{2,}", line) for line in ended.stdout.splitlines()]
    told = {line[0]: line[1:] for line in lines}
    assert told["file"] == ["encodercheck.toml"]
    assert told["profile"] == ["quick", "encodercheck.toml"]
    assert told["seed"] == ["7", "ENCODERCHECK_SEED"]
    assert told["device"] == ["auto", "default"]
    drawn = run("config", "--json", cwd=here, ENCODERCHECK_SEED="random")
    assert json.loads(drawn.stdout)["values"]["seed"]["value"] == "random"
    assert told["limit EC202.gain"] == ["0.9", "encodercheck.toml"]
    assert told["limit EC102.gain"] == ["0.7", "command line"]
    assert told["severity EC101"] == ["low", "encodercheck.toml"]
    assert "limit EC102.gain.at_most" not in told
    assert "expired on 2001-01-01: known" in ended.stdout
    without = run("config", "--no-config", "--json", cwd=here, ENCODERCHECK_CONFIG="missing.toml")
    assert json.loads(without.stdout)["file"] is None


@pytest.mark.parametrize("order", [1, -1])
def test_config_and_no_config_exclude_each_other(here, order):
    pair = [["--config", "x.toml"], ["--no-config"]][::order]
    (here / "x.toml").touch()
    ended = run("config", *pair[0], *pair[1], cwd=here)
    assert ended.returncode == 2
    assert "exclude each other" in ended.stderr


def test_the_command_does_not_import_torch(here):
    code = (
        "import sys; from encodercheck.cli.main import main\n"
        "try: main()\n"
        "finally: assert not {'torch', 'numpy', 'pytest'} & set(sys.modules)"
    )
    (here / "encodercheck.toml").write_text("seed = 1")
    ended = python("-c", code, "config", cwd=here)
    assert ended.returncode == 0, ended


# What the rules do to findings.

P, F, U, E = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.ERROR
IDS = ["EC101", "EC102", "EC202", "A[1]", "A[2]"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (Rules(limits={"EC22.gain": 1}), "limit EC22.gain: .*did you mean 'EC202'"),
        (Rules(limits={"EC2.x": 1}), "limit EC2.x: there is no such check"),
        (Rules(severities={"ec101": "low"}), "severity of ec101: .*did you mean 'EC101'"),
        (Rules(select=("EC9*",)), "select 'EC9\\*': there is no such check"),
        (Rules(ignore=("EC103",), source="x.toml"), "x.toml: ignore 'EC103': .*EC10"),
    ],
)
def test_what_names_no_check_is_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        wrong.require_known(IDS)


def test_what_names_a_check_is_not_refused():
    limits = dict.fromkeys(["EC202.gain", "A.x", "A[2].x.at_most"], 1.0)
    severities = {"A": "low", "A[1]": "high"}
    chosen = Rules(select=("EC*", "A"), ignore=("A[1]",), limits=limits, severities=severities)
    chosen.require_known(IDS)
    assert [id_ for id_ in IDS if chosen.runs(id_)] == ["EC101", "EC102", "EC202", "A[2]"]
    assert [chosen.severity(id_, "medium") for id_ in IDS[2:]] == ["medium", "high", "low"]


def _finding(outcome, *measurements, id_="EC202"):
    return Finding(id_, "check.py::check", "high", outcome, measurements=measurements)


GAIN = Measurement("gain", 0.1, 0.5, Direction.AT_MOST)
COSINE = Measurement("cosine", 0.1)


@pytest.mark.parametrize(
    ("key", "findings", "unused"),
    [
        ("EC202.gain", [_finding(P, GAIN)], False),
        ("EC202.gain.at_most", [_finding(P, GAIN)], False),
        ("EC202.gain.at_least", [_finding(P, GAIN)], True),
        ("EC202.gian", [_finding(P, GAIN)], True),
        ("EC202.cosine", [_finding(P, GAIN, COSINE)], True),
        ("EC202.gain", [_finding(P)], True),
        # None of these has passed.
        ("EC202.gain", [_finding(U)], False),
        ("EC202.gain", [_finding(E)], False),
        ("EC202.gain", [_finding(F)], False),
        ("EC202.gain", [_finding(P, id_="EC101")], False),
        # One of them measures it.
        ("A.gain", [_finding(P, GAIN, id_="A[1]"), _finding(P, id_="A[2]")], False),
        ("A[2].gain", [_finding(P, GAIN, id_="A[1]"), _finding(P, id_="A[2]")], True),
    ],
)
def test_a_limit_that_was_used_for_nothing_is_an_error(key, findings, unused):
    errors = Rules(limits={key: 0.9}).unused_limits(findings)
    assert [(error.id, error.outcome) for error in errors] == [(rules.UNUSED, E)] * unused
    assert all(f"limit {key}: " in error.message for error in errors)


# The page.


def _examples(page: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)


def test_every_key_is_on_the_page():
    rows = re.findall(r"^\| `([^`]+)` \|([^|]*)\|(.*)\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    told = {name.strip("[]"): (sets, variable.strip(" `")) for name, sets, _, variable in rows}
    assert list(told) == list(KEYS)
    for name, key in KEYS.items():
        assert told[name][1] == (key.environment or "")
        if name not in ("limits", "severity", "waivers"):
            assert told[name][0].strip() == key.sets


@pytest.mark.parametrize("number", range(len(_examples(PAGE))))
def test_every_example_on_the_page_is_right(number):
    text = _examples(PAGE)[number]
    name = config.PYPROJECT if "[tool.encodercheck" in text else config.OWN
    assert parse(Path("/somewhere") / name, text.encode()).values


def test_the_file_that_init_writes_is_right():
    text = (ROOT / "encodercheck/scaffold/encodercheck.toml.template").read_text()
    assert _parsed(text).values
    # What is commented out is right too, but for the hash, which nobody knows yet.
    everything = re.sub(r"^# (?=[\[a-zA-Z\"].*(=|\]$))", "", text, flags=re.MULTILINE)
    everything = everything.replace("sha256:...", f"sha256:{'0' * 64}")
    assert list(_parsed(everything).values.keys() ^ KEYS.keys()) == []


# A scan with a configuration: tests/test_cli.py has those without.

OWN_CHECKS = """
import pytest

@pytest.mark.check("OWN1", severity="high")
def check_fails(measure): measure("x", 5, at_most=4)

@pytest.mark.check("OWN2", severity="low")
def check_passes(measure): measure("y", 1, at_most=4)
"""
BASE = 'checks = ["check_own.py"]\nprofile = "quick"\n'
BOTH = BASE + 'select = ["OWN*"]\n'


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("place")
    (place / ".git").mkdir()
    (place / "check_own.py").write_text(OWN_CHECKS)
    models.write(place / "model.safetensors")
    return place


def _scan(place, file, *arguments):
    (place / "encodercheck.toml").write_text(file)
    (place / "report.json").unlink(missing_ok=True)
    ended = run("scan", "model.safetensors", "--json", "report.json", *arguments, cwd=place)
    written = (place / "report.json").exists()
    return ended, json.loads((place / "report.json").read_text()) if written else None


def _outcomes(report):
    return {finding["id"]: finding["outcome"] for finding in report["findings"]}


def test_a_scan_goes_by_its_file_and_says_so(place):
    ended, report = _scan(place, BOTH)
    assert ended.returncode == 1, ended
    assert _outcomes(report) == {"OWN1": "failed", "OWN2": "passed"}
    assert "by encodercheck.toml · only OWN*" in ended.stdout
    assert report["profile"] == "quick"
    assert report["rules"] == {
        "source": "encodercheck.toml",
        "select": ["OWN*"],
        "ignore": [],
        "limits": {},
        "severity": {},
        "fail_on": None,
        "fail_fast": False,
    }
    without = run("scan", "model.safetensors", "--no-config", "-k", "OWN1", cwd=place)
    assert "-k OWN1 selects none" in without.stderr


def test_a_limit_replaces_that_of_the_check(place):
    limits = "[limits]\nOWN1.x = 6\n"
    ended, report = _scan(place, BOTH + limits)
    assert ended.returncode == 0, ended
    assert report["findings"][0]["measurements"][0]["limit"] == 6
    assert report["rules"]["limits"] == {"OWN1.x": 6}
    ended, report = _scan(place, BOTH + limits, "--limit", "OWN1.x=3", "--limit", "OWN2.y=0")
    assert ended.returncode == 1
    assert _outcomes(report) == {"OWN1": "failed", "OWN2": "failed"}


def test_a_limit_of_nothing_is_no_pass(place):
    chosen = BASE + 'select = ["OWN2"]\n[limits]\nOWN2.z = 1\n'
    ended, report = _scan(place, chosen)
    assert ended.returncode == 2, ended
    assert _outcomes(report) == {"OWN2": "passed", "limits": "error"}
    assert "limit OWN2.z: the check holds no such value" in ended.stdout
    assert "did you mean 'OWN2.y'" in ended.stdout
    ended, report = _scan(place, BOTH + "[limits]\nOWN2.z = 1\n")
    assert ended.returncode == 1


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ("[limits]\nOWN9.x = 1\n", "limit OWN9.x: there is no such check; did you mean 'OWN"),
        ("[severity]\nOWN = 'low'\n", "severity of OWN: there is no such check"),
        ("ignore = ['EC9*']\n", "ignore 'EC9*': there is no such check"),
        ("select = ['OWN1']\nignore = ['OWN*']\n", "leave none of"),
        ("sede = 1\n", "sede: unknown key; did you mean 'seed'"),
        ("seed = 'one'\n", "seed: expected 0 to 2147483647, or random, not 'one'"),
    ],
)
def test_a_file_that_is_wrong_is_one_line_and_two(place, file, says):
    ended, _ = _scan(place, BASE + file)
    assert ended.returncode == 2, ended
    assert says in ended.stderr.replace('"', "'").replace("\\", "")
    assert "encodercheck.toml" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


def test_a_failure_below_fail_on_stays_failed_and_does_not_count(place):
    severity = "[severity]\nOWN1 = 'low'\n"
    ended, report = _scan(place, f"{BOTH}fail-on = 'medium'\n{severity}")
    assert ended.returncode == 0, ended
    assert _outcomes(report) == {"OWN1": "failed", "OWN2": "passed"}
    assert (report["findings"][0]["severity"], report["findings"][0]["minor"]) == ("low", True)
    assert "failed (severity low: not counted)" in ended.stdout
    assert "1 passed, 1 not counted" in ended.stdout
    assert "failures below medium do not count" in ended.stdout
    # It has not passed either.
    ended, report = _scan(place, f"{BOTH}fail-on = 'medium'\n{severity}", "--ignore", "OWN2")
    assert ended.returncode == 2, ended
    assert report["outcome"] == "inconclusive"
    # Counted again from the command line.
    ended, _ = _scan(place, f"{BOTH}fail-on = 'medium'\n{severity}", "--fail-on", "low")
    assert ended.returncode == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"limits": {"OWN1.x": 6}},
        {"severities": {"OWN1": "low"}, "fail_on": "high"},
        {"ignore": ["OWN1"]},
        {"waivers": True},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_python_takes_the_rules_as_arguments(place, monkeypatch, arguments):
    # The file there says otherwise, and is not read.
    (place / "encodercheck.toml").write_text("sede = 1")
    monkeypatch.chdir(place)
    common = {"checks": ["check_own.py"], "profile": "quick", "select": ["OWN*"]}
    if "waivers" in arguments:
        sha256 = hashlib.sha256((place / "model.safetensors").read_bytes()).hexdigest()
        waiver = ModelWaiver(sha256, "OWN1", "known", date.today())
        arguments = {"waivers": [waiver]}
    assert encodercheck.scan("model.safetensors", **common).exit_code == 1
    report = encodercheck.scan("model.safetensors", **common, **arguments)
    assert report.exit_code == 0
    assert Report.from_dict(report.to_dict()).to_dict() == report.to_dict()


@given(
    findings=st.lists(
        st.builds(
            Finding,
            st.sampled_from(IDS),
            st.just("check.py::check"),
            st.sampled_from(SEVERITIES),
            st.sampled_from(Outcome),
        ),
        min_size=1,
    ),
    fail_on=st.one_of(st.none(), st.sampled_from(SEVERITIES)),
    waived=st.lists(st.tuples(st.sampled_from(IDS), st.dates(date(2026, 1, 1), date(2026, 1, 9)))),
    strict=st.booleans(),
)
def test_nothing_but_severity_and_waivers_makes_a_failing_scan_pass(
    findings, fail_on, waived, strict
):
    today = date(2026, 1, 5)
    waivers = tuple(ModelWaiver("0" * 64, id_, "known", day) for id_, day in waived)
    chosen = Rules(fail_on=fail_on, waivers=waivers, today=today)
    judged = [chosen.judge(finding, sha256="0" * 64) for finding in findings]
    assert [finding.outcome for finding in judged] == [finding.outcome for finding in findings]
    code = exit_code([f.outcome for f in judged if f.counts], strict=strict)
    plain = exit_code([f.outcome for f in findings], strict=strict)
    for finding in judged:
        excused = as_grave_as(finding.severity, fail_on) is False or any(
            id_ == finding.id and day >= today for id_, day in waived
        )
        assert finding.counts == (finding.outcome is not F or not excused)
    if code == 0:
        assert any(finding.outcome is P for finding in judged)
        assert not any(f.outcome is E or (f.outcome is F and f.counts) for f in judged)
    if plain != 1:
        assert code == plain
