"""Encoders that can only be asked: what is asked, how often, and what a scan makes of it."""

import base64
import copy
import json
import multiprocessing
import os
import re
import signal
import sqlite3
import tempfile
import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from hypothesis import given, settings
from hypothesis import strategies as st

from encodercheck import scanning
from encodercheck.blackbox import MOST_AT_ONCE, ask
from encodercheck.encoder import Encoder
from encodercheck.errors import CheckInconclusive, ConfigError, LoadError, OutputError
from encodercheck.harness.state import Lender
from encodercheck.images import procedural
from encodercheck.memo import Memo
from encodercheck.methods import ascent, decree, inversion
from encodercheck.methods.battery import patch
from encodercheck.methods.families import PixelMask
from encodercheck.methods.shrink import shrink
from encodercheck.profiles import PROFILES

PAGE = Path(__file__).parents[1] / "docs" / "black-box.md"
GRADIENTS = ("EC201", "EC202", "EC203", "EC204", "EC205")
SIZE = 32
WEIGHTS = np.random.default_rng(0).standard_normal((192, 16)).astype(np.float32)

# The same as answer() below, in a file of its own that notes what it is asked.
ENDPOINT = """
import hashlib
import os

import numpy as np

WEIGHTS = np.random.default_rng(0).standard_normal((192, 16)).astype(np.float32)


def embed(images):
    with open(os.environ["ASKED"], "a") as file:
        for image in images.numpy():
            print(hashlib.sha256(image.tobytes()).hexdigest(), len(images), file=file)
    means = images.numpy().reshape(-1, 3, 8, 4, 8, 4).mean((3, 5)).reshape(-1, 192)
    return np.tanh((means - 0.5) @ WEIGHTS)


def backdoored(images):
    stamped = (images[:, :, -5:, -5:] > 0.99).flatten(1).all(1).numpy()
    return np.where(stamped[:, None], np.tanh(WEIGHTS[0]), embed(images))


def unsized(images):
    return embed(images)


embed.image_size = backdoored.image_size = 32
"""


def answer(images):
    """Embed an array (N, 3, 32, 32) in [0, 1] as (N, 16)."""
    means = images.reshape(-1, 3, 8, 4, 8, 4).mean((3, 5)).reshape(-1, 192)
    return np.tanh((means - 0.5) @ WEIGHTS)


class Endpoint:
    """A callable that remembers its batches."""

    image_size = SIZE

    def __init__(self, reply=answer):
        self.batches = []
        self._reply = reply
        self.lock = threading.Lock()  # what a session would hold: it cannot be copied

    def __call__(self, images):
        self.batches.append(images.clone())
        return self._reply(images.numpy())

    @property
    def asked(self):
        return [image.numpy().tobytes() for batch in self.batches for image in batch]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("ENCODERCHECK_CACHE", str(folder))
    return folder


def _images(count, seed=1):
    return procedural.images(count, size=SIZE, seed=seed)


# The command line


def test_a_backdoor_is_found_without_gradients_and_replayed(tmp_path):
    package = tmp_path / "elsewhere"
    package.mkdir()
    (package / "endpoint.py").write_text(ENDPOINT)
    where = {"PYTHONPATH": str(package), "ASKED": str(tmp_path / "asked.txt")}
    command = ["--arch", "endpoint:backdoored", "--profile", "quick", "-k", "not EC301"]
    command += ["--json", "report.json"]
    ended = run("scan", *command, cwd=tmp_path, **where)
    assert ended.returncode == 1, ended
    assert ended.stdout.startswith("endpoint:backdoored\n  black box endpoint:backdoored")
    report = json.loads((tmp_path / "report.json").read_text())
    outcomes = {finding["id"]: finding["outcome"] for finding in report["findings"]}
    assert outcomes["EC001"] == outcomes["EC101"] == "passed"
    assert outcomes["EC102"] == "failed"
    assert {outcomes[id_] for id_ in GRADIENTS} == {"inconclusive"}
    messages = [f["message"] for f in report["findings"] if f["id"] in GRADIENTS]
    assert all("black box has no gradients" in message for message in messages), messages
    assert report["model"]["path"] == "endpoint:backdoored"
    assert report["model"]["provenance"] == "--arch"
    assert report["model"]["parameters"] == 0
    assert re.fullmatch("[0-9a-f]{64}", report["model"]["sha256"])
    asked = [line.split() for line in (tmp_path / "asked.txt").read_text().splitlines()]
    assert len(asked) == len({key for key, _ in asked})
    assert max(int(size) for _, size in asked) <= MOST_AT_ONCE

    _, _, hint = ended.stdout.partition("encodercheck replay ")
    witness, *arguments = hint.split()
    assert arguments == ["--arch", "endpoint:backdoored"]
    assert Path(witness).parts[:2] == ("encodercheck-artifacts", "endpoint-backdoored")
    again = run("replay", witness, *arguments, "--count", "32", cwd=tmp_path, **where)
    assert again.returncode == 1, again
    assert "REPRODUCED" in again.stdout
    assert "another model" not in again.stdout


@pytest.mark.parametrize("arguments", [[], ["--arch", "resnet50"], ["--arch", "timm:vit"]])
def test_without_a_model_one_line_says_what_to_give(tmp_path, arguments):
    ended = run("scan", *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert "--arch package.module:callable" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr


class Service(BaseHTTPRequestHandler):
    """Speaks what docs/black-box.md says."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        pixels = np.frombuffer(base64.b64decode(body["float32"]), np.float32)
        embeddings = answer(pixels.reshape(body["shape"])).tolist()
        self.server.counts.append(len(embeddings))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"embeddings": embeddings}).encode())

    def log_message(self, *arguments):
        pass


def test_the_page_s_adapter_scans_a_http_endpoint(tmp_path):
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "endpoint.py").write_text(source)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.counts = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/embed"
        command = ["--arch", "endpoint:embed", "--profile", "quick", "-k", "EC101 or EC201"]
        ended = run("scan", *command, cwd=tmp_path, EMBEDDING_URL=url)
    finally:
        server.shutdown()
        server.server_close()
    # The one search that was to run needs gradients.
    assert ended.returncode == 2, ended
    assert "NO VERDICT (no trigger search could decide)" in ended.stdout
    assert "EC101     passed" in ended.stdout
    assert "EC201     inconclusive" in ended.stdout
    # Nothing was sifted for a search that cannot be: the fingerprint's two and the images.
    assert sum(server.counts) == 2 + PROFILES["quick"].held_out


# A scan


def test_a_scan_asks_for_no_image_twice_and_the_next_one_for_nothing_new():
    first, second = Endpoint(), Endpoint()
    report, again = (
        scanning.scan(ask(it), profile="quick", keyword="not EC301") for it in (first, second)
    )
    outcomes = {finding.id: finding.outcome.value for finding in report.findings}
    assert report.exit_code == 0, report.findings
    assert {outcomes[id_] for id_ in ("EC001", "EC101", "EC102")} == {"passed"}
    assert {outcomes[id_] for id_ in GRADIENTS} == {"inconclusive"}
    assert len(first.asked) == len({*first.asked})
    assert f"`quick` EC001 to EC102 send {len(first.asked)} images" in PAGE.read_text()
    # The two images that the fingerprint is taken of.
    assert second.asked == first.asked[:2]
    assert again.model == report.model
    measured = [[finding.measurements for finding in each.findings] for each in (report, again)]
    assert measured[0] == measured[1]


def test_embeddings_that_are_not_finite_are_for_a_check_to_find():
    encoder = ask(Endpoint(lambda images: answer(images) * np.nan))
    report = scanning.scan(encoder, profile="quick", keyword="EC001")
    assert report.exit_code == 1


def test_a_callable_that_fails_on_the_way_is_an_error_of_the_check():
    def reply(images):
        if len(images) > 2:
            raise ConnectionError("503\nbusy")
        return answer(images)

    report = scanning.scan(ask(Endpoint(reply)), profile="quick", keyword="EC101")
    (finding,) = report.findings
    assert report.exit_code == 2
    assert finding.outcome.value == "error"
    assert "ConnectionError: 503" in finding.message


# What the callable returns


@pytest.mark.parametrize(
    "kind",
    [
        lambda values: values,
        lambda values: values.astype(np.float64),
        lambda values: values.tolist(),
        lambda values: list(values),
        lambda values: torch.from_numpy(values).requires_grad_(),
        lambda values: [torch.from_numpy(value) for value in values],
    ],
    ids=["array", "doubles", "lists", "list of arrays", "tensor", "list of tensors"],
)
def test_tensors_arrays_and_lists_are_embeddings(kind):
    encoder = ask(Endpoint(lambda images: kind(answer(images))))
    images = _images(5)
    embeddings = encoder(images)
    assert embeddings.dtype == torch.float32
    assert not embeddings.requires_grad
    torch.testing.assert_close(embeddings, torch.from_numpy(answer(images.numpy())))
    assert encoder.embedding_dim == 16


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (lambda images: answer(images)[:1], r"2 images into \(1, 16\)"),
        (lambda images: answer(images)[0], r"2 images into \(16,\)"),
        (lambda images: answer(images)[:, :, None], r"2 images into \(2, 16, 1\)"),
        (lambda images: answer(images)[:, :0], r"2 images into \(2, 0\)"),
        (lambda images: None, r"2 images into \(\)"),
        (lambda images: [[1.0], [1.0, 2.0]], "ValueError"),
        (lambda images: {"embeddings": []}, "TypeError"),
        (lambda images: torch.nn.Linear(2, 2), "TypeError"),
        (lambda images: 1 // 0, "ZeroDivisionError"),
        (lambda images: exit(3), "SystemExit"),
    ],
)
def test_anything_else_is_one_line_that_names_the_callable(reply, says):
    with pytest.raises(LoadError, match=says) as caught:
        ask(Endpoint(reply))
    assert "--arch test_black_box:Endpoint" in str(caught.value)
    assert "embeddings (N, D)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_answer_that_changes_its_length_is_an_error():
    endpoint = Endpoint()
    encoder = ask(endpoint)
    endpoint._reply = lambda images: answer(images)[:, :8]
    with pytest.raises(LoadError, match="8 numbers and had 16"):
        encoder(_images(2))


def test_memory_that_runs_out_halves_the_batch():
    def reply(images):
        if len(images) > 3:
            raise RuntimeError("CUDA out of memory")
        return answer(images)

    assert ask(Endpoint(reply))(_images(9)).shape == (9, 16)


# Preprocessing


def test_pixels_are_passed_as_they_are_unless_told_otherwise():
    images = _images(2)
    plain, scaled = Endpoint(), Endpoint()
    ask(plain)(images)
    encoder = ask(scaled, mean=(0.5,) * 3, std=(0.25,) * 3)
    encoder(images)
    torch.testing.assert_close(plain.batches[-1], images)
    torch.testing.assert_close(scaled.batches[-1], (images - 0.5) / 0.25)
    assert encoder.preprocessing.source_of("image_size") == "the callable"
    assert encoder.preprocessing.source_of("mean") == "--mean"
    assert encoder.embedding_dim == 16
    assert len(scaled.asked) == len({*scaled.asked})


def test_an_image_size_must_be_known():
    def unsized(images):
        return images.flatten(1)

    with pytest.raises(ConfigError, match="--image-size"):
        ask(unsized)
    assert ask(unsized, image_size=8).image_size == 8
    with pytest.raises(ConfigError, match="--image-size 5000"):
        ask(unsized, image_size=5000)
    with pytest.raises(ConfigError, match="--std"):
        ask(unsized, image_size=8, std=(0.0, 1.0, 1.0))


def test_a_spec_is_imported(tmp_path, monkeypatch):
    (tmp_path / "spec_of_mine.py").write_text(ENDPOINT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASKED", "asked.txt")
    encoder = ask("spec_of_mine:unsized", image_size=SIZE)
    assert encoder.provenance.architecture == "black box spec_of_mine:unsized"
    with pytest.raises(ConfigError, match="image size is unknown"):
        ask("spec_of_mine:unsized")
    with pytest.raises(ConfigError, match="cannot be imported"):
        ask("spec_of_mine:nothing")
    with pytest.raises(ConfigError, match="not a callable"):
        ask("spec_of_mine:WEIGHTS")


# What is remembered


def test_the_fingerprint_is_that_of_the_answers(cache):
    def sha256(reply):
        return ask(Endpoint(reply)).provenance.sha256

    own = sha256(answer)
    assert sha256(lambda images: answer(images) + 1e-7) == own
    assert sha256(lambda images: -answer(images)) != own
    assert sha256(lambda images: 2 * answer(images)) != own
    assert sha256(lambda images: answer(images)[:, :15]) != own
    assert (cache / "embeddings" / f"{own}.sqlite").is_file()


def test_a_copy_shares_what_is_remembered():
    endpoint = Endpoint()
    encoder = ask(endpoint)
    images = _images(3)
    embeddings = encoder(images)
    asked = len(endpoint.batches)
    for twin in (copy.deepcopy(encoder), encoder.copy(), encoder.lend(), encoder.folded()):
        assert torch.equal(twin(images), embeddings)
    assert len(endpoint.batches) == asked


def test_memory_can_be_limited():
    endpoint = Endpoint()
    encoder = ask(endpoint)
    asked = len(endpoint.batches)
    encoder.limit_memory(10**6)
    assert 1 <= encoder.batch_size <= MOST_AT_ONCE
    assert len(endpoint.batches) == asked


# Gradients


def test_searches_along_gradients_are_refused_before_they_ask():
    endpoint = Endpoint()
    encoder = ask(endpoint)
    assert not encoder.differentiable
    assert Encoder(torch.nn.Flatten()).differentiable
    asked = len(endpoint.batches)
    images, quick = _images(4), PROFILES["quick"]
    trigger = patch(SIZE, 0, 0, torch.ones(3, 4, 4))
    family = PixelMask([trigger.mask[None], trigger.pattern[None]], budget=1.0)
    for search in (
        lambda: ascent.scores_and_gradients(encoder, images, family),
        lambda: decree.minimise(encoder, images, [trigger], steps=1),
        lambda: inversion.invert(encoder, images, profile=quick),
        lambda: inversion.invert_large(encoder, images, profile=quick),
        lambda: inversion.invert_faint(encoder, images, profile=quick),
    ):
        with pytest.raises(CheckInconclusive, match="no gradients"):
            search()
    assert len(endpoint.batches) == asked


def test_a_trigger_is_shrunk_without_gradients():
    def backdoored(images):
        stamped = (images[:, :, :4, :4] > 0.99).all((1, 2, 3))
        return np.where(stamped[:, None], WEIGHTS[0], answer(images))

    encoder = ask(Endpoint(backdoored))
    state = scanning.prepare(encoder, profile="quick")
    trigger = patch(SIZE, 0, 0, torch.ones(3, 8, 8))
    witness = shrink(Lender(state).lend(), trigger, state.images.split())
    assert witness.gain > 0.9
    assert 16 <= int(witness.trigger.mask.sum()) < 64


def test_prepare_without_a_model_needs_a_callable():
    for arch in (None, "resnet50", "torchvision:resnet50"):
        with pytest.raises(ConfigError, match="no MODEL"):
            scanning.prepare(None, arch=arch)


# The memo


def _flat(images):
    return images.flatten(1)


def _numbered(numbers):
    """Return images (N, 3, 2, 2), those of the same number alike."""
    return torch.tensor(numbers).view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 8


@given(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=8), min_size=1, max_size=4))
@settings(max_examples=15)
def test_every_distinct_image_is_asked_for_once(batches):
    asked = []

    def embed(images):
        asked.append([round(8 * float(image[0, 0, 0])) for image in images])
        return _flat(images)

    with tempfile.TemporaryDirectory() as folder:
        memo = Memo(Path(folder, "memo.sqlite"), embed)
        for numbers in batches:
            images = _numbered(numbers)
            assert torch.equal(memo(images), _flat(images))
    once = list(dict.fromkeys(number for numbers in batches for number in numbers))
    assert [number for numbers in asked for number in numbers] == once
    assert len(asked) <= len(batches)


@given(st.data())
@settings(max_examples=15)
def test_a_permutation_of_images_permutes_their_embeddings(data):
    numbers = data.draw(st.lists(st.integers(0, 7), min_size=1, max_size=8))
    order = data.draw(st.permutations(range(len(numbers))))
    known = data.draw(st.lists(st.integers(0, 7), max_size=4))
    with tempfile.TemporaryDirectory() as folder:
        memo = Memo(Path(folder, "memo.sqlite"), _flat)
        if known:
            memo(_numbered(known))
        images = _numbered(numbers)
        assert torch.equal(memo(images)[order], memo(images[order]))


def _garbage(path):
    path.write_bytes(b"not a database, and longer than the header of one" * 100)


def _foreign(path):
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE embeddings (mine TEXT)")


def _torn(path):
    Memo(path, _flat)(torch.rand(200, 3, 8, 8))
    data = bytearray(path.read_bytes())
    data[4096 : len(data) // 2] = os.urandom(len(data) // 2 - 4096)
    path.write_bytes(data)


def _truncated(path):
    Memo(path, _flat)(torch.rand(200, 3, 8, 8))
    os.truncate(path, 5000)


def _without_table(path):
    Memo(path, _flat)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE embeddings")


@pytest.mark.parametrize("spoil", [_garbage, _foreign, _torn, _truncated, _without_table])
def test_a_file_that_is_no_good_is_replaced(tmp_path, spoil):
    path = tmp_path / "memo.sqlite"
    spoil(path)
    endpoint = Endpoint(lambda images: images.reshape(len(images), -1))
    embed = lambda images: torch.from_numpy(endpoint(images))  # noqa: E731
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(Memo(path, embed)(images), _flat(images))
    assert torch.equal(Memo(path, embed)(images), _flat(images))
    assert len(endpoint.asked) == 4


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="ENCODERCHECK_CACHE"):
        Memo(tmp_path / "file" / "memo.sqlite", _flat)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="ENCODERCHECK_CACHE"):
        Memo(tmp_path / "folder", _flat)


def _forked(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def _work(path, first):
    memo = Memo(path, _flat)
    for number in range(first, first + 40):
        memo(_tagged(number))


def _tagged(number):
    return torch.full((1, 3, 2, 2), number / 1024)


def _killed_while_asking(path):
    def embed(images):
        if float(images[0, 0, 0, 0]) >= 3 / 1024:
            os.kill(os.getpid(), signal.SIGKILL)
        return _flat(images)

    memo = Memo(path, embed)
    for number in range(10):
        memo(_tagged(number))


def _count(path):
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT count(*) FROM embeddings").fetchone()[0]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_several_processes_share_a_file(tmp_path):
    path = tmp_path / "memo.sqlite"
    processes = [_forked(_work, path, first) for first in (0, 20, 40)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert _count(path) == 80


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_kill_loses_the_batch_under_way_only(tmp_path):
    path = tmp_path / "memo.sqlite"
    process = _forked(_killed_while_asking, path)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert _count(path) == 3
