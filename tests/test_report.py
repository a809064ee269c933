"""Outcomes and exit codes."""

import math
from itertools import permutations

import pytest
import reports
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.report import Direction, Finding, Measurement, Outcome, Report, exit_code, overall
from encodercheck.severities import SEVERITIES

P, F, U, E = Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE, Outcome.ERROR


@pytest.mark.parametrize(
    ("outcomes", "code", "strict_code"),
    [
        ([], 2, 2),
        ([P], 0, 0),
        ([F], 1, 1),
        ([U], 2, 2),
        ([E], 2, 2),
        ([P, U], 0, 2),
        ([P, E], 2, 2),
        ([P, F], 1, 1),
        ([F, E], 1, 1),
        ([U, E], 2, 2),
        ([P, F, U, E], 1, 1),
    ],
)
def test_exit_codes(outcomes, code, strict_code):
    for order in permutations(outcomes):
        assert exit_code(list(order)) == code
        assert exit_code(list(order), strict=True) == strict_code


@given(st.lists(st.sampled_from(Outcome)))
def test_zero_is_only_ever_a_pass(outcomes):
    if exit_code(outcomes) == 0:
        assert P in outcomes
        assert not {F, E} & set(outcomes)
        assert overall(outcomes) is P


def _scan(strict=False, **outcomes):
    """Return the report of a scan whose checks, by id, ended so."""
    findings = [Finding(id_, id_, SEVERITIES[-1], outcome) for id_, outcome in outcomes.items()]
    return reports.report(*findings, strict=strict)


@pytest.mark.parametrize(
    ("outcomes", "outcome", "code"),
    [
        # No search decided: nothing passes, whatever else does.
        ({"EC001": P, "EC102": U, "EC201": U, "EC202": U, "EC203": U, "EC204": U}, U, 2),
        ({"EC001": P, "EC101": P, "ACME1": P, "EC202": U}, U, 2),
        ({"EC001": P, "EC202[a-1]": U, "EC299": U}, U, 2),
        ({"EC001": F, "EC102": U, "EC202": U}, F, 1),
        ({"EC001": E, "EC102": U, "EC202": U}, E, 2),
        # One is enough.
        ({"EC001": P, "EC102": P, "EC201": U, "EC202": U, "EC203": U, "EC204": U}, P, 0),
        ({"EC001": P, "EC102": U, "EC205": P}, P, 0),
        ({"EC001": P, "EC102": U, "EC202": F}, F, 1),
        ({"EC001": P, "EC102": U, "EC202": E}, E, 2),
        # None was to run, or none of those that are known to search.
        ({"EC001": P}, P, 0),
        ({"EC001": P, "EC101": U, "EC301": U, "EC2021": U, "XEC202": U}, P, 0),
    ],
)
def test_nothing_passes_unless_a_search_decided(outcomes, outcome, code):
    report = _scan(**outcomes)
    assert (report.outcome, report.exit_code) == (outcome, code)
    strict = _scan(strict=True, **outcomes)
    assert strict.exit_code == (2 if code == 0 and U in outcomes.values() else code)
    assert Report.from_dict(report.to_dict()) == report


def test_a_waived_failure_of_a_search_has_decided():
    undecided = Finding("EC204", "EC204", "high", U)
    assert reports.report(reports.PASSED, reports.WAIVED, undecided).exit_code == 0
    assert reports.report(reports.PASSED, undecided).exit_code == 2


def test_a_saved_report_that_passes_without_a_search_is_refused():
    saved = _scan(EC001=P, EC202=U).to_dict() | {"outcome": "passed", "exit_code": 0}
    with pytest.raises(ValueError, match="not what its findings add up to"):
        Report.from_dict(saved)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_a_value_is_within_exactly_its_side(value, limit):
    least = Measurement("x", value, limit, Direction.AT_LEAST)
    most = Measurement("x", value, limit, Direction.AT_MOST)
    assert (least.outcome is P) == (value >= limit)
    assert (most.outcome is P) == (value <= limit)


@pytest.mark.parametrize("direction", Direction)
def test_nan_never_passes(direction):
    assert Measurement("x", math.nan, 1.0, direction).outcome is F
    assert Measurement("x", math.nan, 1.0, direction).to_dict()["value"] == "nan"
