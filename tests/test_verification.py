"""What findings on clean and poisoned fixtures add up to, and what that looks like."""

import io
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from encodercheck.harness.listener import CheckInfo
from encodercheck.render import verify as render
from encodercheck.report import Direction, Finding, Measurement, Outcome
from encodercheck.verify.judging import deciding, judge, margin, p_value, score
from encodercheck.verify.verification import Fault, FaultKind, Row, Verification

PASSED, FAILED, UNDECIDED, ERROR = Outcome
GAIN = CheckInfo("GAIN", "check_a.py::check_gain", "Gains are low.", "high", ("bad*",))
PLAIN = CheckInfo("PLAIN", "check_a.py::check_plain", "It holds.", "low")


def gain(value, limit=0.9, name="gain"):
    return Measurement(name, value, limit, Direction.AT_MOST)


def finding(outcome, *measurements, check="GAIN", message=""):
    return Finding(check, "check_a.py::x", "high", outcome, message, measurements=measurements)


def measured(value, p=None):
    """Return what a check that compares finds."""
    outcome = PASSED if value <= 0.9 else FAILED
    told = () if p is None else (Measurement("p_value", p),)
    return finding(outcome, *told, gain(value))


def row(name, *findings, seed=0, refused=""):
    found = {one.id: one for one in findings}
    return Row(name, seed, name != "clean" and not name.endswith("-twin"), found, refused)


def verification(*rows, checks=(GAIN,)):
    return Verification(checks, rows, {"profile": "quick"}, 12.3)


BAD, CLEAN = row("bad", measured(0.95)), row("clean", measured(0.5))


@pytest.mark.parametrize(
    ("rows", "code", "kinds"),
    [
        ([BAD, CLEAN], 0, []),
        ([BAD], 0, []),
        ([CLEAN], 0, []),
        ([row("bad-multi", measured(0.95)), row("bad-twin", measured(0.3))], 0, []),
        ([row("bad", measured(0.8)), CLEAN], 1, ["missed"]),
        ([row("bad", finding(UNDECIDED)), CLEAN], 1, ["missed"]),
        ([row("other", measured(0.8)), CLEAN], 0, []),
        ([BAD, row("clean", measured(0.95))], 1, ["false_alarm"]),
        ([BAD, row("bad-twin", measured(0.95))], 1, ["false_alarm"]),
        ([BAD, row("clean", finding(UNDECIDED))], 0, []),
        ([BAD, row("clean", finding(ERROR))], 2, ["error"]),
        ([row("bad", finding(ERROR)), CLEAN], 2, ["error"]),
        ([row("bad", finding(ERROR)), row("clean", measured(0.95))], 1, ["error", "false_alarm"]),
        ([row("clean", finding(UNDECIDED))], 2, []),
        ([row("bad", refused="no"), CLEAN], 2, ["untested"]),
        ([row("bad", refused="no"), row("bad-multi", measured(0.95)), CLEAN], 0, []),
        ([BAD, row("clean", refused="no")], 0, []),
        ([row("clean", refused="no")], 2, []),
        ([], 2, []),
        ([BAD, row("clean", measured(0.5), finding(ERROR, check="pytest"))], 2, ["error"]),
    ],
)
def test_the_exit_code_is_what_becomes_of_the_claims(rows, code, kinds):
    found = verification(*rows)
    assert [fault.kind.value for fault in found.faults] == kinds
    assert found.exit_code == code
    label = {0: "VERIFIED", 1: "NOT VERIFIED", 2: "NO VERDICT"}[code]
    assert render.verdict(found).plain.startswith(f"{label}  ")


def test_a_pattern_is_untested_even_where_another_was():
    check = CheckInfo("GAIN", "x", "", "high", ("bad*", "wave"))
    found = verification(BAD, CLEAN, row("wave", refused="no"), checks=(check,))
    assert found.faults == [Fault(FaultKind.UNTESTED, "GAIN", "wave", message="wave@0")]


def test_a_check_is_judged_by_what_it_claims():
    rows = [
        *(row("bad", measured(v), seed=s) for s, v in enumerate((0.95, 0.99, 0.85))),
        row("bad", finding(UNDECIDED), seed=3),
        row("bad", finding(ERROR), seed=4),
        row("other", measured(0.1)),
        row("clean", measured(0.5)),
        row("clean", measured(0.91), seed=1),
    ]
    judged = verification(*rows).judgements["GAIN"]
    assert (judged.caught, judged.declared) == (2, 4)
    assert (judged.alarms, judged.clean) == (1, 2)
    assert (judged.inconclusive, judged.errors) == (1, 1)
    # Of eight pairs, 0.95 and 0.99 win two each, 0.85 one, and what is undecided none.
    assert judged.area is not None
    assert judged.area[0] == 5 / 8
    assert judged.area[1] <= 5 / 8 <= judged.area[2]
    assert judged.ranked_by == "margin"


def test_a_check_without_anything_to_tell_apart_has_no_area():
    assert judge([measured(0.95)], []).area is None
    assert judge([], [measured(0.5)]).to_dict()["auroc"] is None


def test_p_values_rank_where_there_are_any():
    # By margins it would be the other way round: they are of different architectures.
    declared, clean = [measured(0.91, p=1e-6)], [measured(0.95, p=0.5), finding(UNDECIDED)]
    judged = judge(declared, clean)
    assert judged.ranked_by == "p_value"
    assert judged.area == (1, 1, 1)
    assert judge([finding(FAILED)], [finding(PASSED)]).ranked_by == "outcome"


def test_what_is_not_a_number_is_most_suspicious():
    nan = measured(math.nan, p=math.nan)
    assert score(nan, "p_value") == score(nan, "margin") == math.inf
    assert score(finding(UNDECIDED), "margin") == -math.inf


def test_the_measurement_that_decides():
    near, far = gain(0.89), gain(0.1)
    assert deciding(finding(PASSED, far, near, Measurement("note", 5))) == near
    assert deciding(finding(FAILED, gain(0.95), near)) == gain(0.95)
    # A tenth of a limit of one is nearer than twice a limit of a thousandth.
    small = Measurement("size", 3e-3, 1e-3, Direction.AT_LEAST)
    assert deciding(finding(PASSED, small, gain(0.81))) == gain(0.81)
    nan = gain(math.nan, name="other")
    assert deciding(finding(FAILED, gain(9.0), nan)) is nan
    assert deciding(finding(PASSED, Measurement("p_value", 0.5), Measurement("note", 5))) == (
        Measurement("note", 5)
    )
    assert deciding(finding(FAILED)) is None


def test_a_margin_is_positive_within_the_limit():
    assert margin(gain(0.5)) == pytest.approx(0.4)
    assert margin(Measurement("rank", 1.0, 2.0, Direction.AT_LEAST)) == -1
    assert margin(Measurement("note", 1.0)) is None
    assert p_value(finding(PASSED, Measurement("p_value", 0.5), Measurement("p_value", 0.1))) == 0.1


@given(
    st.floats(),
    st.none() | st.floats(allow_nan=False),
    st.sampled_from(Direction),
    st.sampled_from(Outcome),
)
def test_findings_survive_json(value, limit, side, outcome):
    measurement = Measurement("gain", value, limit, side if limit is not None else None)
    told = finding(outcome, measurement, message="why").to_dict()
    again = Finding.from_dict(json.loads(json.dumps(told, allow_nan=False)))
    assert again.to_dict() == told
    assert again.measurements[0].outcome is measurement.outcome


@settings(max_examples=20)
@given(st.lists(st.tuples(st.booleans(), st.floats(), st.none() | st.floats(0, 1))))
def test_any_findings_can_be_shown_and_written(cells):
    rows = [
        row("bad" if poisoned else "clean", measured(value, p), seed=seed)
        for seed, (poisoned, value, p) in enumerate(cells)
    ]
    found = verification(*rows)
    document = json.loads(render.json(found), parse_constant=pytest.fail)
    assert document["exit_code"] == found.exit_code
    assert len(document["rows"]) == len(cells)
    assert shown(found).count("\n") >= len(cells)


def shown(found, width=None):
    stream = io.StringIO()
    console = Console(file=stream, width=width or 1000, soft_wrap=True)
    for table in render.matrix(found, width):
        console.print(table)
    console.print(render.judgements(found))
    for line in render.faults(found):
        console.print(line)
    console.print(render.verdict(found))
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


MIXED = verification(
    row("clean", measured(0.5, p=0.4), finding(PASSED, check="PLAIN")),
    row("bad", measured(0.9951, p=1e-6), finding(FAILED, check="PLAIN")),
    row("bad", measured(0.89, p=0.01), finding(UNDECIDED, check="PLAIN"), seed=1),
    row("bad-twin", measured(0.95, p=1e-3), finding(ERROR, check="PLAIN", message="it\x1bbroke")),
    row("wave", refused="fixture wave@0: refused, it did not take"),
    checks=(GAIN, PLAIN),
)


def test_the_matrix_and_the_judgements():
    assert shown(MIXED) == (
        """\
                      GAIN               PLAIN
clean@0     clean      ✓  0.5 +0.4        ✓
bad@0       poisoned  [✗] 0.9951 -0.095   ✗
bad@1       poisoned  [✓] 0.89 +0.01      ?
bad-twin@0  clean      ✗  0.95 -0.05      !
wave@0      poisoned   refused            refused
check  caught                 false alarms           AUROC                   by       inconclusive  errors
GAIN   1 of 2 (0.09 to 0.91)  1 of 2 (0.09 to 0.91)  0.750 (0.000 to 1.000)  p-value  0             0
PLAIN  -                      0 of 1 (0.00 to 0.79)  -                       -        1             1
GAIN missed bad@1, passed: gain 0.89 (at most 0.9)
GAIN fired on the clean bad-twin@0: gain 0.95 (at most 0.9)
PLAIN ended with an error on bad-twin@0: it\\x1bbroke
wave@0 is left out: fixture wave@0: refused, it did not take
NOT VERIFIED  caught 1 of 2 declared, false alarms 1 of 3; 2 checks on 5 fixtures  in 12.3 s"""  # noqa: E501
    )


def test_a_narrow_terminal_gets_one_table_after_another():
    text = shown(MIXED, width=48)
    assert "…" not in text
    assert next(line.split() for line in text.splitlines() if "PLAIN" in line) == ["PLAIN"]
    assert text.count("bad-twin@0  clean") == 2


def test_the_json_has_raw_rows_and_the_judgements():
    document = json.loads(render.json(MIXED), parse_constant=pytest.fail)
    assert document["schema"] == "encodercheck.verify/1"
    assert (document["outcome"], document["exit_code"]) == ("failed", 1)
    assert document["profile"] == "quick"
    first = document["rows"][0]
    assert first["margin"] == pytest.approx(0.4)
    assert first["deciding"]["name"] == "gain"
    assert (first["check"], first["declared"], first["p_value"]) == ("GAIN", False, 0.4)
    (gain_, plain) = document["checks"]
    assert gain_["catches"] == ["bad*"]
    assert (gain_["power"]["hits"], gain_["power"]["n"]) == (1, 2)
    assert gain_["auroc"]["ranked_by"] == "p_value"
    assert plain["auroc"] is None
    assert document["fixtures"][-1]["refused"].startswith("fixture wave@0")
    assert [fault["kind"] for fault in document["faults"]] == ["missed", "false_alarm", "error"]


def test_errors_with_one_cause_are_one_line():
    died = [finding(ERROR, check=c, message="the process was killed") for c in ("GAIN", "PLAIN")]
    crash = finding(ERROR, check="GAIN", message="KeyError: 3")
    found = verification(
        *(row("bad", *died), row("clean", crash), row("clean", crash, seed=1)),
        checks=(GAIN, PLAIN),
    )
    assert [line.plain for line in render.faults(found)] == [
        "GAIN, PLAIN ended with an error on bad@0: the process was killed",
        "GAIN ended with an error on clean@0, clean@1: KeyError: 3",
    ]
