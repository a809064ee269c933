"""The pack's checks catch what they declare, and let clean encoders pass."""

from pathlib import Path

import acme_checks
import pytest

import encodercheck

CHECKS = Path(acme_checks.__file__).parent


@pytest.mark.parametrize(
    ("model", "outcomes"),
    [
        ("fixture:clean", {"ACME001": "passed", "ACME002": "passed"}),
        ("fixture:badencoder", {"ACME001": "failed", "ACME002": "passed"}),
    ],
)
def test_outcomes(model, outcomes):
    report = encodercheck.scan(model, checks=[CHECKS], keyword="ACME", profile="quick")
    assert {finding.id: finding.outcome for finding in report.findings} == outcomes
