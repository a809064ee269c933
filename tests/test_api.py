"""`encodercheck.scan` as a guest: in a notebook, a thread, an event loop, another pytest."""

import asyncio
import logging
import os
import random
import signal
import sys
import threading
import warnings
from html.parser import HTMLParser
from pathlib import Path

import models
import numpy as np
import pytest
import torch

import encodercheck
from encodercheck.errors import ConfigError, LoadError
from encodercheck.render import notebook
from encodercheck.report import Finding, Measurement, Outcome, Report

QUICK = {"profile": "quick", "keyword": "EC001 or EC101"}
# As a check file that was a script before it was a check.
NASTY = """
import logging, os, random, signal, sys, warnings
import numpy as np, torch
import nasty_helper

sys.path.insert(0, "/left-over")
os.environ["LEFT"] = "at import"
warnings.simplefilter("ignore")
random.seed(99), np.random.seed(99), torch.manual_seed(99)
torch.set_num_threads(2)
logging.basicConfig(level=logging.DEBUG)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)

def check_nasty(encoder, tmp_path):
    os.chdir(tmp_path)
    os.environ["LEFT"] = "over"
    os.environ.pop("HOME", None)
    os.umask(0o077)
    warnings.simplefilter("error")
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger().setLevel(10)
    logging.disable(50)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = torch.backends.cudnn.deterministic = True
    torch.set_float32_matmul_precision("medium")
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.autograd.set_detect_anomaly(True)
    np.seterr(all="raise")
    np.set_printoptions(precision=1)
    sys.excepthook = print
    sys.dont_write_bytecode = not sys.dont_write_bytecode
    sys.setrecursionlimit(5000)
    sys.argv.append("left")
    print("printed")
    os.write(1, b"written")

def check_after(measure):
    assert torch.get_default_dtype() is torch.float32 and torch.is_grad_enabled()
    assert str(torch.rand(1).device) == "cpu"
    assert os.environ["LEFT"] == "at import" and "HOME" in os.environ
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    (folder / "nasty_helper.py").write_text("")
    (folder / "conftest.py").write_text(
        "import sys\nfrom pathlib import Path\nsys.path.append(str(Path(__file__).parent))\n"
    )
    (folder / "check_nasty.py").write_text(NASTY)
    (folder / "check_failing.py").write_text("def check_failing():\n    assert 1 > 2\n")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return models.write(folder / "model.safetensors")


def process():
    """Return everything of this process that a scan has no business with."""
    umask = os.umask(0o022)
    os.umask(umask)
    root = logging.getLogger()
    return {
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "files in it": sorted(path.name for path in Path.cwd().iterdir()),
        "umask": umask,
        "argv": list(sys.argv),
        "path": list(sys.path),
        "importers": (list(sys.meta_path), list(sys.path_hooks)),
        "warnings": (list(warnings.filters), warnings.showwarning),
        "logging": (list(root.handlers), root.level, root.manager.disable),
        "hooks": (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook),
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval(), sys.dont_write_bytecode),
        "tracing": (sys.gettrace(), sys.getprofile()),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "last error": [getattr(sys, f"last_{name}", None) for name in ("type", "value", "exc")],
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "threads": {thread.name for thread in threading.enumerate()},
        "random": (random.getstate(), repr(np.random.get_state()), bytes(torch.get_rng_state())),
        "numpy": (np.geterr(), np.get_printoptions()),
        "torch": (
            torch.get_num_threads(),
            torch.get_num_interop_threads(),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.get_deterministic_debug_mode(),
            torch.get_float32_matmul_precision(),
            torch.is_anomaly_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
        ),
    }


def stray_modules():
    """Return modules that only checks, and not libraries, can have brought."""
    suspicious = ("check_", "conftest", "nasty_helper")
    return {name for name in sys.modules if name.rpartition(".")[2].startswith(suspicious)}


# What it leaves behind.


@pytest.mark.parametrize(
    "case", ["passes", "fails", "nasty", "no model", "no check", "a bad check"]
)
def test_a_scan_leaves_the_process_as_it_was(folder, model, tmp_path, monkeypatch, capfd, case):
    monkeypatch.chdir(tmp_path)
    options, ends = {
        "passes": ({}, Outcome.PASSED),
        "fails": (
            {"checks": [folder / "check_failing.py"], "keyword": "failing"},
            Outcome.FAILED,
        ),
        "nasty": (
            {"checks": [folder / "check_nasty.py"], "keyword": "nasty or after"},
            Outcome.PASSED,
        ),
        "no model": ({}, LoadError),
        "no check": ({"keyword": "nothing_is_called_so"}, ConfigError),
        "a bad check": ({"checks": [tmp_path / "nowhere.py"]}, ConfigError),
    }[case]
    subject = "nowhere.safetensors" if case == "no model" else model
    scan = lambda: encodercheck.scan(subject, **QUICK | options)  # noqa: E731
    before, modules = process(), stray_modules()
    if isinstance(ends, Outcome):
        report = scan()
        assert report.outcome is ends, [finding.message for finding in report.findings]
    else:
        with pytest.raises(ends):
            scan()
    after = process()
    assert {part for part in before if before[part] != after[part]} == set()
    assert stray_modules() == modules
    assert capfd.readouterr() == ("", "")


def test_checks_do_not_set_up_the_process_for_one_another(folder, model):
    report = encodercheck.scan(
        model, checks=[folder / "check_nasty.py"], **QUICK | {"keyword": "nasty or after or EC101"}
    )
    assert {f.id: f.outcome.value for f in report.findings} == {
        "EC101": "passed",
        "nasty": "passed",
        "after": "passed",
    }


def test_the_users_random_numbers_have_no_say_and_go_on(model):
    def draw(seed):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        report = encodercheck.scan(model, **QUICK)
        values = [m.value for finding in report.findings for m in finding.measurements]
        return values, (torch.rand(1).item(), np.random.rand(), random.random())

    def without_a_scan(seed):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        return torch.rand(1).item(), np.random.rand(), random.random()

    with torch.random.fork_rng(devices=[]):
        (values, drawn), (again, _) = draw(1), draw(2)
        assert values == again
        assert drawn == without_a_scan(1)


# Where it runs.


def test_a_scan_in_a_running_event_loop(model):
    async def cell():
        here = encodercheck.scan(model, **QUICK)
        beside = await asyncio.to_thread(encodercheck.scan, model, **QUICK)
        return here.outcome, beside.outcome

    assert asyncio.run(cell()) == (Outcome.PASSED, Outcome.PASSED)


def test_scans_in_threads_wait_for_one_another(folder, model):
    reports = {}

    def scan(name):
        checks = [folder / "check_failing.py"]
        keyword = {"fails": "failing or EC101", "passes": "EC001 or EC101"}[name]
        reports[name] = encodercheck.scan(
            model, profile="quick", checks=checks, keyword=keyword, seed=3
        )

    before = process()
    threads = [threading.Thread(target=scan, args=(name,)) for name in ("fails", "passes")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {part for part, value in process().items() if before[part] != value} == set()
    assert {name: report.outcome.value for name, report in reports.items()} == {
        "fails": "failed",
        "passes": "passed",
    }
    alone = encodercheck.scan(model, profile="quick", keyword="EC101", seed=3)
    values = [
        finding.measurements
        for report in (alone, *reports.values())
        for finding in report.findings
        if finding.id == "EC101"
    ]
    assert values == [values[0]] * 3


@pytest.mark.slow
def test_a_real_notebook_shows_a_report(model, tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    code = [
        "import encodercheck, asyncio\nassert asyncio.get_running_loop()",
        f"report = encodercheck.scan({str(model)!r}, profile='quick', keyword='EC101')\nreport",
        "print(report.outcome, report.exit_code)",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in code])
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(book, timeout=240, kernel_name="python3", resources=place).execute()
    first, second, third = (cell["outputs"] for cell in book.cells)
    assert first == []
    (shown,) = second
    assert set(shown["data"]) == {"text/html", "text/plain"}
    assert ">PASSED</b>" in shown["data"]["text/html"]
    assert shown["data"]["text/plain"].startswith("Report(model=")
    assert [output["text"] for output in third] == ["passed 0\n"]


# What a notebook shows.


class Page(HTMLParser):
    """The tags, the attributes and the text of a fragment; every tag has to be closed."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], set(), [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def report_of(*findings, path="model.safetensors", **options):
    model = {"path": path, "architecture": "resnet", "embedding_dim": 128, "sha256": ""}
    images = {"source": "procedural", "count": 224}
    return Report(model, images, findings, 0, "cpu", {}, 1.5, **options)


def finding(outcome=Outcome.PASSED, **options):
    return Finding("EC1", "check.py::check", "high", outcome, **{"title": "A title."} | options)


def test_the_fragment_says_what_was_found():
    page = Page(
        report_of(
            finding(),
            finding(
                Outcome.FAILED,
                message="gain 0.95 > 0.9",
                measurements=(Measurement("gain", 0.95),),
                witness="out dir/witness.safetensors",
            ),
        )._repr_html_()
    )
    for text in (
        "FAILED model.safetensors",
        "1 passed, 1 failed",
        "224 procedural images",
        "A title.",
        "gain 0.95",
        "encodercheck replay 'out dir/witness.safetensors' model.safetensors",
    ):
        assert text in page.text, text


def test_nothing_in_a_report_becomes_markup():
    evil = "<script>alert(1)</script><img src=x onerror=y>\"'&\x1b[31m"
    values = dict.fromkeys(("message", "witness", "title"), evil)
    found = Finding(
        evil, evil, evil, Outcome.FAILED, measurements=(Measurement(evil, 1),), **values
    )
    html = report_of(found, path=evil)._repr_html_()
    page = Page(html)
    assert page.tags <= {"div", "b", "table", "tr", "td", "span", "br", "code"}
    assert {name for name, _ in page.attributes} == {"style"}
    assert "\x1b" not in html
    assert "<script>alert(1)</script>" in page.text


def test_the_fragment_is_small_and_brings_all_it_needs():
    many = [finding(Outcome.ERROR, message="x" * 100_000) for _ in range(8)]
    html = report_of(*many)._repr_html_()
    assert len(html) < 20_000
    assert "http" not in html and "url(" not in html and "<style" not in html


@pytest.mark.parametrize(
    ("findings", "strict", "colour"),
    [
        ([finding()], False, Outcome.PASSED),
        ([finding(), finding(Outcome.INCONCLUSIVE)], True, Outcome.INCONCLUSIVE),
        ([finding(Outcome.ERROR)], False, Outcome.INCONCLUSIVE),
        ([finding(), finding(Outcome.FAILED)], False, Outcome.FAILED),
        ([], False, Outcome.INCONCLUSIVE),
    ],
)
def test_no_verdict_is_never_green(findings, strict, colour):
    html = report_of(*findings, strict=strict)._repr_html_()
    assert f'<b style="color:{notebook.COLOURS[colour]}">' in html


def test_colours_are_legible_on_light_and_on_dark():
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    for colour in notebook.COLOURS.values():
        # 3:1 is WCAG's for large and bold text; the words stand beside the colours either way.
        assert 1.05 / (luminance(colour) + 0.05) >= 3
        assert (luminance(colour) + 0.05) / (luminance("#1e1e1e") + 0.05) >= 3
