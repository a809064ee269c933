"""Reports with something of everything, to be shown."""

from __future__ import annotations

import dataclasses
import io
from datetime import date
from functools import cache

from PIL import Image

from encodercheck.exhibits import Comparison, Cosines, Gallery, Note, Picture
from encodercheck.memory import Memory
from encodercheck.report import Direction, Finding, Measurement, Outcome, Report, Waiver

MODEL = {
    "path": "model.safetensors",
    "sha256": "ab" * 32,
    "architecture": "resnet(basic, width 16)",
    "provenance": "the file's metadata",
    "notes": ["3x3 stem: stride 1 assumed"],
    "image_size": 32,
    "preprocessing": "the file's metadata",
    "embedding_dim": 128,
    "parameters": 312000,
}
IMAGES = {"source": "procedural", "digest": None, "count": 352, "unreadable": 0}
CLEAN = (0.31, 0.42, 0.44, 0.47, 0.52, 0.6, 0.66, 0.71)


@cache
def picture(caption="stamped", alt="An image with the trigger", side=32):
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((side, side)).save(buffer, format="PNG")
    return Picture(caption, alt, buffer.getvalue(), side, side)


PASSED = Finding(
    "EC201",
    "check_ec201_decree.py::check_decree",
    "critical",
    Outcome.PASSED,
    seconds=3.21,
    measurements=(
        Measurement("p_value", 0.3),
        Measurement("pl1", 0.08, 0.037, Direction.AT_LEAST),
        Measurement("iterations", 12.0),
    ),
    title="The smallest trigger is no smaller than in clean encoders.",
    exhibits=(Comparison("pl1", 0.08, (0.07, 0.09, 0.12), "size", "3 clean encoders", 0.3),),
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
        Measurement("p_value", 1.24e-5),
        Measurement("gain", 0.9961, 0.9, Direction.AT_MOST),
    ),
    "out dir/EC202/witness.safetensors",
    "No trigger collapses the embeddings.",
    exhibits=(
        Comparison("gain", 0.9961, CLEAN, "gain", "8 clean encoders of resnet", 1.24e-5),
        Gallery("The trigger", ((picture("mask"), picture("pattern"), picture(), picture()),)),
        Cosines((0.1, 0.4, 0.5, 0.9), (0.97, 0.98, 0.99, 1.0), 32),
        Note("reconstructions cannot be shown: ValueError"),
    ),
)
UNDECIDED = Finding(
    "EC101", "check.py::check", "medium", Outcome.INCONCLUSIVE, "bring better images", title="It is"
)
BROKEN = Finding(
    "ACME1",
    "check_acme.py::check_it",
    "low",
    Outcome.ERROR,
    "ZeroDivisionError: division by zero",
    details="check_acme.py:3: in check_it\n    1 / 0\n",
)
WAIVED = dataclasses.replace(FAILED, waiver=Waiver("a false alarm, see #12", date(2027, 1, 31)))


def report(*findings, **changes):
    made = Report(MODEL, IMAGES, findings, 0, "cpu", {"torch": "2.6"}, 12.3, "standard")
    return dataclasses.replace(made, memory=Memory(45_000_000, 612_000_000), **changes)


EVERYTHING = report(PASSED, FAILED, UNDECIDED, BROKEN, WAIVED, compared_with="8 clean encoders")


HOSTILE = "<script>alert(1)</script>\"' onload=x --> ]]> </style></title> {{ 7*7 }} \u202e\x1b[2J"


def hostile(text):
    """Return a report in which every name is ``text``."""
    seen = Finding(
        text,
        text,
        text,
        Outcome.FAILED,
        text,
        measurements=(
            Measurement(text, 0.5, 0.4, Direction.AT_MOST),
            Measurement(text, 2.0, 1.0),
            Measurement(text, 3.0),
        ),
        witness=text,
        title=text,
        details=text,
        exhibits=(
            Comparison(text, 0.5, CLEAN, text, text, 0.5),
            Gallery(text, ((picture(text, text or "x"),),)),
            Note(text),
        ),
        waiver=Waiver(text, date(2027, 1, 1)),
    )
    names = ("path", "sha256", "architecture", "provenance", "preprocessing")
    model = {**MODEL, **dict.fromkeys(names, text), "notes": [text]}
    images = {"source": text, "count": 1, "unreadable": text}
    found = (seen, dataclasses.replace(seen, waiver=None))
    return Report(
        model, images, found, 0, text, {text: text}, 1.0, text, compared_with=text, strict=True
    )
