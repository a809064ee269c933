"""The verdict in a sentence or two: it never sounds better than the exit code."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reports import report as saved

from encodercheck.render import card, console, markdown
from encodercheck.render.conclusion import conclusion
from encodercheck.report import Finding, Outcome, Waiver

PASSED, FAILED, UNSURE, ERROR = (
    Outcome.PASSED,
    Outcome.FAILED,
    Outcome.INCONCLUSIVE,
    Outcome.ERROR,
)


def finding(id_, outcome, message="", witness=None, **more):
    return Finding(id_, "check.py::check", "high", outcome, message, witness=witness, **more)


CASES = {
    "a hidden trigger": (
        [
            finding("EC001", FAILED, "x 1 > 0"),
            finding("EC202", FAILED, "a 3x4 patch makes 128 unseen images 0.98 alike", "w"),
        ],
        "This encoder reacts to a hidden trigger: a 3x4 patch makes 128 unseen images 0.98 alike. "
        "Do not use it before the trigger is explained.",
    ),
    "another failure": (
        [finding("EC001", FAILED, "x 1 > 0"), finding("EC202", PASSED)],
        "EC001 (x 1 > 0) failed. Do not use the encoder before the cause is known.",
    ),
    "a crash": (
        [finding("EC203", ERROR, "ValueError: no."), finding("EC202", PASSED)],
        "It is not known whether the encoder is safe: EC203 (ValueError: no) could not be run.",
    ),
    "no decision": (
        [finding("EC202", UNSURE, "too few images"), finding("EC001", PASSED)],
        "It is not known whether the encoder is safe: EC202 (too few images) could not decide.",
    ),
    "a pass": (
        [finding("EC202", PASSED), finding("EC204", UNSURE)],
        "No trigger was found that makes images as alike as in backdoored encoders. That is no "
        "proof that there is none.",
    ),
    "no search": (
        [finding("EC001", PASSED)],
        "The checks that ran found nothing. None of them searched for a trigger.",
    ),
    "a waived failure": (
        [
            finding("EC202", FAILED, "x", "w", waiver=Waiver("known", date(2027, 1, 1))),
            finding("EC204", PASSED),
        ],
        "EC202 failed, which does not count (waived until 2027-01-01: known). Nothing else was "
        "found.",
    ),
    "no model": (
        [finding("EC000", ERROR, "gone: no such file")],
        "It is not known whether the encoder is safe: gone: no such file.",
    ),
    "nothing": ([], "It is not known whether the encoder is safe: nothing was decided."),
}


@pytest.mark.parametrize("name", CASES)
def test_the_conclusion(name):
    findings, expected = CASES[name]
    report = saved(*findings)
    assert conclusion(report) == expected
    assert expected in console.verdict(report).plain
    for text in (markdown.render([report]), card.render([report])):
        assert expected.split(":")[0].split(" (")[0] in text


@given(
    outcomes=st.lists(
        st.tuples(st.sampled_from(["EC001", "EC202"]), st.sampled_from(Outcome)), max_size=4
    ),
    strict=st.booleans(),
)
def test_only_exit_code_zero_sounds_like_a_pass(outcomes, strict):
    report = saved(*(finding(id_, outcome) for id_, outcome in outcomes), strict=strict)
    good = conclusion(report).endswith(("no proof that there is none.", "searched for a trigger."))
    assert good == (report.exit_code == 0)
