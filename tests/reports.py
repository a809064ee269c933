"""Reports of scans that never took place."""

from __future__ import annotations

import dataclasses
from datetime import date

from encodercheck.report import Direction, Finding, Measurement, Outcome, Report, Waiver

MODEL = {
    "path": "fixture:badencoder",
    "sha256": "ab" * 32,
    "architecture": "resnet(basic, width 16)",
    "provenance": "metadata",
    "notes": ["3x3 stem: stride 1 assumed"],
    "image_size": 32,
    "embedding_dim": 128,
    "parameters": 312000,
}
IMAGES = {"source": "procedural", "digest": None, "count": 352, "unreadable": 0}
PASSED = Finding(
    "EC001",
    "check_ec001_integrity.py::check_integrity",
    "high",
    Outcome.PASSED,
    seconds=0.24,
    measurements=(Measurement("non_finite_weights", 0.0, 0, Direction.AT_MOST),),
    title="Weights are finite.",
)
FAILED = Finding(
    "EC202",
    "check_ec202_budget.py::check_budget",
    "critical",
    Outcome.FAILED,
    "a 5x5 patch at (27, 27), 2.4 % of the image, makes 256 unseen images 0.998 alike",
    1.31,
    (
        Measurement("stamped_cosine", 0.99812),
        Measurement("gain", 0.9961, 0.9, Direction.AT_MOST),
    ),
    "out dir/EC202/witness.safetensors",
    "No trigger collapses the embeddings.",
)
UNDECIDED = Finding(
    "EC101",
    "check_ec101_collapse.py::check_collapse",
    "medium",
    Outcome.INCONCLUSIVE,
    "bring better images",
    title="Embeddings point in different directions.",
)
UNSEARCHED = dataclasses.replace(
    UNDECIDED, id="EC202", check=FAILED.check, message="clean embeddings are alike", title=""
)
WAIVED = dataclasses.replace(
    FAILED, waiver=Waiver("a false alarm, see T-1", date(2027, 1, 1)), witness=None
)
BROKEN = Finding(
    "ACME1",
    "check_acme.py::check_it",
    "low",
    Outcome.ERROR,
    "ZeroDivisionError: division by zero",
    title="It holds.",
    details="check_acme.py:3: in check_it\n    1 / 0\n",
)


def report(*findings, strict=False, **model):
    """Return the report of a scan with these findings, on a model of which ``model`` is known."""
    return Report(
        MODEL | model, IMAGES, findings, 0, "cpu", {"torch": "2"}, 12.345, "standard", strict=strict
    )
