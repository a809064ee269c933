"""The report as JSON (schema ``encodercheck.report/1``)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from encodercheck.report import Report

SEVERAL = "encodercheck.reports/1"


def render(reports: Sequence[Report]) -> str:
    """Return one report as an object, several as ``{"schema": ..., "reports": [...]}``."""
    documents = [report.to_dict() for report in reports]
    whole = documents[0] if len(documents) == 1 else {"schema": SEVERAL, "reports": documents}
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"
