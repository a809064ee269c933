"""What a scan looks like on the terminal, and in JSON."""

import dataclasses
import io
import json
import math

import pytest
from reports import BROKEN, FAILED, IMAGES, MODEL, PASSED, UNDECIDED, UNSEARCHED, WAIVED
from reports import report as _report
from rich.console import Console

from encodercheck.memory import Memory
from encodercheck.render import console as render
from encodercheck.render import json as render_json
from encodercheck.report import Finding, Measurement, Outcome, Report


def _text(*parts, terminal=False):
    stream = io.StringIO()
    console = Console(file=stream, soft_wrap=True, force_terminal=terminal, width=80)
    for part in parts:
        console.print(part)
    return stream.getvalue()


def test_a_failing_scan():
    header = render.header(
        MODEL, IMAGES, device="cpu", profile="standard", seed=0, compared_with="8 clean encoders"
    )
    report = _report(PASSED, FAILED, UNDECIDED, BROKEN)
    assert _text(header, *map(render.finding, report.findings), render.verdict(report)) == (
        """\
fixture:badencoder
  resnet(basic, width 16) · 0.31 M parameters · 32 px · embedding 128
  352 procedural images · profile standard · seed 0 · cpu
  compared with 8 clean encoders
  note: 3x3 stem: stride 1 assumed
EC001     passed       Weights are finite.  0.2 s
          non_finite_weights 0 (at most 0)
EC202     failed       No trigger collapses the embeddings.  1.3 s
          stamped_cosine 0.9981
          gain 0.9961 (at most 0.9)
          a 5x5 patch at (27, 27), 2.4 % of the image, makes 256 unseen images 0.998 alike
          witness: out dir/EC202/witness.safetensors
EC101     inconclusive Embeddings point in different directions.  0.0 s
          bring better images
ACME1     error        It holds.  0.0 s
          ZeroDivisionError: division by zero
          | check_acme.py:3: in check_it
          |     1 / 0
FAILED  1 passed, 1 failed, 1 inconclusive, 1 error  in 12.3 s
This encoder reacts to a hidden trigger: a 5x5 patch at (27, 27), 2.4 % of the image, makes 256 \
unseen images 0.998 alike. Do not use it before the trigger is explained.
See the trigger work again:
  encodercheck replay 'out dir/EC202/witness.safetensors' fixture:badencoder
"""
    )


@pytest.mark.parametrize(
    ("findings", "strict", "start"),
    [
        ([PASSED], False, "PASSED  1 passed"),
        ([PASSED, UNDECIDED], False, "PASSED  1 passed, 1 inconclusive"),
        ([PASSED, UNDECIDED], True, "NO VERDICT (--strict)"),
        ([UNDECIDED], False, "NO VERDICT (inconclusive)"),
        ([PASSED, UNSEARCHED], False, "NO VERDICT (no trigger search could decide)"),
        ([PASSED, UNSEARCHED], True, "NO VERDICT (no trigger search could decide)"),
        ([PASSED, BROKEN, UNSEARCHED], False, "NO VERDICT (error)"),
        ([PASSED, BROKEN], False, "NO VERDICT (error)"),
        ([], False, "NO VERDICT (inconclusive)"),
    ],
)
def test_the_verdict_never_sounds_better_than_the_exit_code(findings, strict, start):
    report = _report(*findings, strict=strict)
    assert _text(render.verdict(report)).startswith(start)
    assert ("NO VERDICT" in start) == (report.exit_code == 2)


@pytest.mark.parametrize(
    ("used", "line"),
    [
        (Memory(1_220_000_000, 1_918_000_000), "1.92 GB, of which weights 1.22 GB"),
        (Memory(45_000_000, 612_000_000), "612.0 MB, of which weights 45.0 MB"),
        (
            Memory(1_220_000_000, 3_000_000_000, 2_100_000_000),
            "3.00 GB; on the device 2.10 GB, of which weights 1.22 GB",
        ),
        (Memory(45_000_000), "unknown, of which weights 45.0 MB"),
    ],
)
def test_the_verdict_says_how_much_memory_it_took(used, line):
    report = dataclasses.replace(_report(PASSED), memory=used)
    text = _text(render.verdict(report))
    assert text == (
        "PASSED  1 passed  in 12.3 s\n"
        "The checks that ran found nothing. None of them searched for a trigger.\n"
        f"peak memory {line}\n"
    )


def test_what_is_waived_does_not_count_and_is_seen():
    text = _text(render.whole(_report(PASSED, WAIVED)))
    assert "EC202     failed (waived until 2027-01-01: a false alarm, see T-1) No trigger" in text
    assert "PASSED  1 passed, 1 waived  in 12.3 s" in text
    assert "FAILED" not in text


def test_a_model_that_could_not_be_read_has_an_error_and_no_facts():
    text = _text(render.whole(Report.unreadable("gone.safetensors", "gone: no such file")))
    assert text == (
        """\
gone.safetensors

EC000     error        The model, and what it is scanned with, can be read.  0.0 s
          gone: no such file

NO VERDICT (error)  1 error  in 0.0 s
It is not known whether the encoder is safe: gone: no such file.
"""
    )


def test_names_from_files_cannot_control_the_terminal():
    hostile = "evil\x1b[2J\x07\u202ename"
    model = {**MODEL, "path": hostile, "notes": [hostile], "architecture": hostile}
    text = _text(
        render.header(model, IMAGES, device="cpu", profile="quick", seed=0, compared_with=hostile),
        render.finding(Finding(hostile, hostile, "low", Outcome.ERROR, hostile, title=hostile)),
        terminal=False,
    )
    assert not {"\x1b", "\x07", "\u202e"} & set(text)


def test_a_value_is_never_rounded_to_the_limit_it_misses():
    assert render.number(0.99964) == "0.9996"
    assert render.number(256.0) == "256"
    assert render.number(math.nan) == "nan"
    assert render.number(0.0312) == "0.0312"


def test_one_report_is_an_object():
    document = json.loads(render_json.render([_report(PASSED, FAILED)]))
    assert document["schema"] == "encodercheck.report/1"
    assert document["outcome"] == "failed"
    assert document["exit_code"] == 1
    assert document["findings"][1]["measurements"][1] == {
        "name": "gain",
        "value": 0.9961,
        "limit": 0.9,
        "direction": "at_most",
        "outcome": "failed",
    }
    assert {"model", "images", "seed", "device", "versions", "seconds"} <= set(document)


def test_the_memory_that_a_scan_took_is_in_its_report():
    report = dataclasses.replace(_report(PASSED), memory=Memory(1000, 5000))
    assert json.loads(render_json.render([report]))["memory"] == {
        "weights_bytes": 1000,
        "peak_bytes": 5000,
        "device_peak_bytes": None,
    }


def test_json_has_no_nan():
    nan = Finding("X", "x", "low", Outcome.FAILED, measurements=(Measurement("v", math.nan, 1.0),))
    document = render_json.render([_report(nan)])
    assert json.loads(document, parse_constant=pytest.fail)


def test_several_reports_are_a_list():
    document = json.loads(render_json.render([_report(PASSED), _report(FAILED)]))
    assert [report["outcome"] for report in document["reports"]] == ["passed", "failed"]
