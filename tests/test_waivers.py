"""Waivers: for one model, one check, one reason and a time; and nothing else."""

import json
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path

import models
import pytest
from commands import run
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.config import OWN, PYPROJECT, Config, parse
from encodercheck.config.rules import Rules
from encodercheck.errors import ConfigError
from encodercheck.known import waiving
from encodercheck.known.waivers import ModelWaiver, apply, unneeded
from encodercheck.report import Finding, Outcome, Report, Waiver

SHA = "0123456789abcdef" * 4
OTHER = "f" * 64
DAY = date(2027, 3, 1)
WAIVER = ModelWaiver(SHA, "EC102", "known watermark, see TICKET-1", DAY)
FAILED = Finding("EC102", "check.py::check", "critical", Outcome.FAILED, "gain 0.99 > 0.9")
FILE = Path("/somewhere/encodercheck.toml")

TABLE = {
    "model": f'"sha256:{SHA}"',
    "check": '"EC102"',
    "reason": '"known watermark, see TICKET-1"',
    "expires": "2027-03-01",
}


def _toml(**changed: str) -> bytes:
    lines = [f"{key} = {value}" for key, value in {**TABLE, **changed}.items() if value]
    return "\n".join(["[[waivers]]", *lines]).encode()


# In the file.


def test_a_waiver_is_read():
    assert parse(FILE, _toml()).waivers == (WAIVER,)
    assert parse(FILE, WAIVER.to_toml("waivers").encode()).waivers == (WAIVER,)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model": ""}, "lacks model"),
        ({"check": ""}, "lacks check"),
        ({"reason": ""}, "lacks reason"),
        ({"expires": ""}, "lacks expires"),
        ({"model": f'"{SHA}"'}, "64 hexadecimal digits"),
        ({"model": f'"sha256:{SHA[:12]}"'}, "64 hexadecimal digits"),
        ({"model": f'"sha256:{SHA.upper()}"'}, "64 hexadecimal digits"),
        ({"model": "1"}, "64 hexadecimal digits"),
        ({"check": '""'}, "id of a check"),
        ({"check": '["EC102"]'}, "id of a check"),
        ({"reason": '""'}, "says why"),
        ({"reason": '"  "'}, "says why"),
        ({"reason": '"a\\nb"'}, "says why"),
        ({"expires": '"2027-03-01"'}, "date without quotes"),
        ({"expires": "2027-03-01T10:00:00"}, "date without quotes"),
        ({"expires": "true"}, "date without quotes"),
        ({"severity": '"low"'}, "unknown key 'severity'"),
        ({"expire": "2027-03-01"}, "did you mean 'expires'"),
    ],
    ids=str,
)
def test_what_is_no_waiver_is_refused_in_one_line(changed, says):
    with pytest.raises(ConfigError, match=says) as caught:
        parse(FILE, _toml(**changed))
    said = str(caught.value)
    assert said.startswith(f"{FILE}: waivers: expected")
    assert "waiver 1: " in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"sha256": SHA[:12]},
        {"reason": " "},
        {"check": ""},
        {"expires": datetime(2027, 3, 1)},
        {"expires": None},
    ],
    ids=str,
)
def test_nor_can_one_be_made_in_python(wrong):
    with pytest.raises(ValueError, match="expected"):
        replace(WAIVER, **wrong)


def test_a_waiver_of_an_unknown_check_is_refused():
    with pytest.raises(ConfigError, match="waiver of EC102: there is no such check; did you"):
        Rules(waivers=(WAIVER,)).require_known(["EC101", "EC201"])
    # A check with parameters is waived one by one.
    with pytest.raises(ConfigError, match="waiver of EC102"):
        Rules(waivers=(WAIVER,)).require_known(["EC102[1]"])


# What it does.


def _applied(finding=FAILED, *waivers, sha256=SHA, today=DAY):
    return apply(waivers or (WAIVER,), finding, sha256=sha256, today=today)


def test_a_failure_is_waived_to_the_last_day():
    for today in (DAY, DAY - timedelta(days=1), date(2000, 1, 1)):
        waived = _applied(today=today)
        assert waived == replace(FAILED, waiver=Waiver(WAIVER.reason, DAY))
        assert waived.outcome is Outcome.FAILED


def test_an_expired_waiver_says_so():
    expired = _applied(today=DAY + timedelta(days=1))
    assert expired.waiver is None
    assert expired.message == (
        "gain 0.99 > 0.9; its waiver expired on 2027-03-01: known watermark, see TICKET-1"
    )
    silent = _applied(replace(FAILED, message=""), today=DAY + timedelta(days=1))
    assert silent.message.startswith("its waiver expired")


def test_a_renewed_waiver_holds():
    renewed = replace(WAIVER, expires=DAY + timedelta(days=30), reason="again")
    for order in ((WAIVER, renewed), (renewed, WAIVER)):
        waived = _applied(FAILED, *order, today=DAY + timedelta(days=1))
        assert waived.waiver == Waiver("again", renewed.expires)


DATES = st.dates(date(2026, 1, 1), date(2028, 1, 1))


@given(
    outcome=st.sampled_from(Outcome),
    id_=st.sampled_from(["EC102", "EC101", "EC102[1]"]),
    sha256=st.sampled_from([SHA, OTHER, ""]),
    today=DATES,
    expires=DATES,
)
def test_nothing_but_what_it_says_is_ever_waived(outcome, id_, sha256, today, expires):
    finding = replace(FAILED, id=id_, outcome=outcome)
    rules = Rules(waivers=(replace(WAIVER, expires=expires),), today=today)
    judged = rules.judge(finding, sha256=sha256)
    covered = (outcome, id_, sha256) == (Outcome.FAILED, "EC102", SHA)
    assert (judged.waiver is not None) == (covered and today <= expires)
    assert replace(judged, waiver=None, message="") == replace(finding, message="")


def test_a_waiver_that_is_no_longer_needed_is_told_of():
    passed = replace(FAILED, outcome=Outcome.PASSED)
    assert unneeded([WAIVER], [passed], sha256=SHA) == [WAIVER]
    assert unneeded([WAIVER], [passed], sha256=OTHER) == []
    for outcome in set(Outcome) - {Outcome.PASSED}:
        assert unneeded([WAIVER], [replace(FAILED, outcome=outcome)], sha256=SHA) == []


# Adding one.


BEFORE = [
    b"",
    b"seed = 1",
    b"seed = 1\n",
    b"\tseed   =  1 # a comment\r\n\r\n[limits]\r\nEC202.gain = 0.9",
    _toml(),
    "# \N{SNOWMAN}\nstrict = true\n[severity]\nEC101 = 'low'\n\n\n".encode(),
]


@pytest.mark.parametrize("before", BEFORE, ids=range(len(BEFORE)))
@pytest.mark.parametrize("name", [OWN, PYPROJECT])
def test_what_is_there_stays_byte_for_byte(before, name):
    path = Path("/somewhere") / name
    if name == PYPROJECT:
        before = before.replace(b"[[", b"[[tool.encodercheck.").replace(
            b"\n[l", b"\n[tool.encodercheck.l"
        )
        before = b"[tool.encodercheck]\n" + before.replace(b"[sev", b"[tool.encodercheck.sev")
    new = replace(WAIVER, check="EC202", reason='a "quote", a \\ and a \N{SNOWMAN}')
    after = waiving.with_waiver(path, before, new)
    assert after.startswith(before)
    assert parse(path, after).waivers == (*parse(path, before).waivers, new)
    assert parse(path, waiving.with_waiver(path, None, new)).waivers == (new,)
    if b"\r\n" in before:
        assert b"\n" not in after.replace(b"\r\n", b"").removeprefix(b"[tool.encodercheck]\n")


LINES = st.text(min_size=1).filter(lambda text: text.strip() and text.isprintable())


@given(LINES, LINES)
def test_any_reason_comes_back(reason, check):
    waiver = replace(WAIVER, reason=reason, check=check)
    assert parse(FILE, waiving.with_waiver(FILE, b"seed = 1", waiver)).waivers == (waiver,)


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (b"waivers = []", "cannot be appended"),
        (b"seed = ", "is not TOML"),
        (b"sede = 1", "unknown key"),
    ],
)
def test_a_file_that_would_not_parse_is_left_alone(tmp_path, before, says):
    path = tmp_path / OWN
    path.write_bytes(before)
    with pytest.raises(ConfigError, match=says):
        waiving.add(path, WAIVER)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [OWN]


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real.toml").write_text("seed = 1\n")
    (tmp_path / OWN).symlink_to("real.toml")
    waiving.add(tmp_path / OWN, WAIVER)
    assert (tmp_path / OWN).is_symlink()
    assert (tmp_path / "real.toml").read_text().startswith("seed = 1\n")


def _report(*findings, path="model.safetensors", sha256=SHA):
    model = {
        "path": path, "sha256": sha256, "architecture": "resnet18", "provenance": "index",
        "image_size": 32, "embedding_dim": 64, "parameters": 1000, "notes": [],
    }  # fmt: skip
    images = {"source": "procedural", "count": 100, "unreadable": 0}
    return Report(model, images, findings, 0, "cpu", {}, 1.0)


def _waiver(reports, check="EC102", today=DAY, **options):
    return waiving.waiver_for(
        reports, check, reason="known watermark, see TICKET-1", expires=DAY, today=today, **options
    )


def test_the_waiver_is_of_the_model_that_failed():
    passed = _report(replace(FAILED, outcome=Outcome.PASSED), path="other", sha256=OTHER)
    assert _waiver([passed, _report(FAILED)]) == WAIVER
    twins = [_report(FAILED), _report(FAILED, path="copy")]
    assert _waiver(twins) == WAIVER


@pytest.mark.parametrize(
    ("reports", "options", "says"),
    [
        ([_report(FAILED), _report(FAILED, path="b", sha256=OTHER)], {}, "--model"),
        ([_report(FAILED)], {"model": "c"}, "is not in the report"),
        ([_report(FAILED)], {"check": "EC103"}, "did you mean 'EC102'"),
        ([_report(FAILED, sha256="")], {}, "no weights"),
        ([_report(FAILED, sha256="12")], {}, "64 hexadecimal"),
        ([_report(FAILED)], {"today": DAY + timedelta(days=1)}, "is over already"),
        *(
            ([_report(replace(FAILED, outcome=outcome))], {}, f"{outcome}; only a failure")
            for outcome in set(Outcome) - {Outcome.FAILED}
        ),
    ],
    ids=range(9),
)
def test_what_cannot_be_waived(reports, options, says):
    with pytest.raises(ConfigError, match=says):
        _waiver(reports, **options)


def test_of_several_models_one_is_chosen():
    reports = [_report(FAILED), _report(FAILED, path="b", sha256=OTHER)]
    for name in ("b", OTHER, f"sha256:{OTHER}"):
        assert _waiver(reports, model=name) == replace(WAIVER, sha256=OTHER)


@pytest.fixture
def here(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "report.json").write_text(json.dumps(_report(FAILED).to_dict()))
    return tmp_path


COMMAND = ["waive", "report.json", "EC102", "--reason", "known", "--expires"]


def test_the_command_appends_to_the_nearest_file(here):
    below = here / "below"
    below.mkdir()
    (here / "encodercheck.toml").write_text("seed = 1")
    ended = run("waive", "../report.json", *COMMAND[2:], "2999-12-31", cwd=below)
    assert ended.returncode == 0, ended
    assert "EC102 is waived until 2999-12-31" in ended.stdout
    written = (here / "encodercheck.toml").read_bytes()
    assert written.startswith(b"seed = 1\n")
    assert parse(FILE, written).waivers == (ModelWaiver(SHA, "EC102", "known", date(2999, 12, 31)),)


def test_the_command_makes_a_file_where_there_is_none(here):
    ended = run(*COMMAND, "2999-12-31", cwd=here)
    assert ended.returncode == 0, ended
    assert parse(FILE, (here / OWN).read_bytes()) != Config()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([*COMMAND, "2001-01-01"], "is over already"),
        ([*COMMAND[:2], "EC1O2", *COMMAND[3:], "2999-12-31"], "did you mean 'EC102'"),
        (["waive", "no.json", *COMMAND[2:], "2999-12-31"], "no.json: cannot be read"),
        ([*COMMAND[:4], " ", "--expires", "2999-12-31"], "says why"),
        ([*COMMAND, "2999-12-31", "--config", "."], "is a folder"),
    ],
    ids=range(5),
)
def test_a_waiver_that_cannot_be_is_one_line_and_two(here, command, says):
    ended = run(*command, cwd=here)
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert not (here / OWN).exists()


# A scan with waivers.

OWN_CHECKS = """
import pytest

@pytest.mark.check("OWN1")
def check_fails(measure): measure("x", 5, at_most=4)

@pytest.mark.check("OWN2")
def check_passes(measure): measure("y", 1, at_most=4)
"""
BASE = 'checks = ["check_own.py"]\nprofile = "quick"\nselect = ["OWN*"]\n'


def _scan(place, *arguments):
    ended = run("scan", "model.safetensors", "--json", "report.json", *arguments, cwd=place)
    return ended, json.loads((place / "report.json").read_text())


def _waived(report):
    return {finding["id"]: finding["waiver"] for finding in report["findings"]}


def test_from_a_failure_to_a_waiver_that_has_had_its_time(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / "check_own.py").write_text(OWN_CHECKS)
    config = tmp_path / "encodercheck.toml"
    config.write_text(BASE)
    models.write(tmp_path / "model.safetensors")
    ended, report = _scan(tmp_path)
    assert ended.returncode == 1, ended
    assert _waived(report) == {"OWN1": None, "OWN2": None}
    accepted = ["--reason", "known, see TICKET-1", "--expires", "2999-12-31"]
    assert run("waive", "report.json", "OWN1", *accepted, cwd=tmp_path).returncode == 0
    assert config.read_text().startswith(BASE)

    ended, report = _scan(tmp_path, "--junit", "report.xml")
    assert ended.returncode == 0, ended
    waiver = {"reason": "known, see TICKET-1", "expires": "2999-12-31"}
    assert _waived(report) == {"OWN1": waiver, "OWN2": None}
    assert report["findings"][0]["outcome"] == "failed"
    assert "failed (waived until 2999-12-31: known, see TICKET-1)" in ended.stdout
    assert "1 passed, 1 waived" in ended.stdout
    assert 'skipped type="waived"' in (tmp_path / "report.xml").read_text()

    ended, _ = _scan(tmp_path, "--limit", "OWN1.x=6")
    assert ended.returncode == 0
    assert "note: OWN1 passes, its waiver is no longer needed" in ended.stdout

    config.write_text(config.read_text().replace("2999-12-31", "2001-12-31"))
    ended, report = _scan(tmp_path)
    assert ended.returncode == 1, ended
    assert "its waiver expired on 2001-12-31: known, see TICKET-1" in ended.stdout

    # Other weights are another model, under whatever name.
    config.write_text(config.read_text().replace("2001-12-31", "2999-12-31"))
    models.write(tmp_path / "model.safetensors", models.state(seed=1))
    ended, report = _scan(tmp_path)
    assert ended.returncode == 1, ended
    assert _waived(report) == {"OWN1": None, "OWN2": None}

    config.write_text(config.read_text().replace('OWN1"', 'OWN3"'))
    refused = run("scan", "model.safetensors", cwd=tmp_path)
    assert refused.returncode == 2
    assert "waiver of OWN3: there is no such check; did you mean" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
