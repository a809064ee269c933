"""Every download runs in a process of its own: huggingface_hub reads its environment once."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import environment, python
from hub_server import Hub

from encodercheck.errors import ConfigError, LoadError
from encodercheck.weights.hub import fetch, is_hub

pytest.importorskip("huggingface_hub")

WEIGHTS = bytes(range(256)) * 40
FILES = {
    "config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "model.safetensors.py": b"never",
    "pytorch_model.bin": b"never",
    "vision/preprocessor_config.json": b"[]",
}
CHOSEN = {name for name in FILES if name.endswith((".json", ".safetensors"))}

# What the functions that use the hub do, and a check that it leaves the process as it was.
SCRIPT = """
import json, logging, resource, sys, warnings
from encodercheck.errors import EncoderCheckError
from encodercheck.weights.hub import fetch

models, wanted, limit = json.loads(sys.argv[1])
before = list(warnings.filters)
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
results = []
for model in models:
    try:
        snapshot = fetch(model, lambda names: [n for n in names if n.endswith(tuple(wanted))])
        results.append([str(snapshot.folder), snapshot.commit])
    except EncoderCheckError as error:
        results.append(str(error))
constants = sys.modules.get("huggingface_hub.constants")
assert constants is None or not constants.HF_HUB_DISABLE_TELEMETRY
assert logging.root.manager.disable == 0
assert warnings.filters == before
print(json.dumps(results))
"""


class Client:
    """A user with a cache of their own."""

    def __init__(self, home, endpoint, **extra):
        self.home = Path(home)
        self.endpoint = endpoint
        self.extra = extra

    def fetch(self, *models, wanted=(".json", ".safetensors"), limit=0, **extra):
        """Fetch the models; return (folder, commit) or the error's message for each."""
        mine = {"HF_HOME": str(self.home), "HF_ENDPOINT": self.endpoint, "NO_PROXY": "*"}
        others = ("HF_", "HUGGING", "TRANSFORMERS_")
        plain = {k: v for k, v in environment().items() if not k.startswith(others)}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, json.dumps([models, wanted, limit])],
            env={**plain, **mine, **self.extra, **extra},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.stderr == ""
        results = json.loads(done.stdout)
        assert all("\n" not in result for result in results)
        return results

    def fetch_one(self, model, **options):
        return self.fetch(model, **options)[0]

    def below(self):
        """Return everything in and beside the cache."""
        return {
            path.relative_to(self.home.parent).as_posix() for path in self.home.parent.rglob("*")
        }


@pytest.fixture
def hub():
    with Hub({"org/name": {"main": FILES}}) as hub:
        yield hub


@pytest.fixture
def client(hub, tmp_path):
    return Client(tmp_path / "home", hub.endpoint)


def contents(folder):
    folder = Path(folder)
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def bodies(hub):
    return [
        request for request in hub.seen() if request.startswith("GET") and "/api/" not in request
    ]


def test_exactly_the_chosen_files_are_downloaded(hub, client):
    folder, commit = client.fetch_one("hf://org/name")
    assert commit == hub.commit("org/name")
    assert contents(folder) == {name: FILES[name] for name in CHOSEN}
    snapshots = client.home / "hub" / "models--org--name" / "snapshots"
    assert Path(folder) == snapshots.resolve() / commit

    assert not any("torch" in request.headers["user-agent"] for request in hub.requests)
    seen = hub.seen()
    assert seen[0] == "GET /api/models/org/name"
    assert {request.split(commit)[1] for request in seen if "/resolve/" in request} == {
        f"/{name}" for name in CHOSEN
    }
    assert len(seen) == 1 + 2 * len(CHOSEN)


def test_what_is_in_the_cache_is_not_downloaded_again(hub, client):
    first = client.fetch_one("hf://org/name", wanted=["config.json"])
    hub.seen()
    assert client.fetch_one("hf://org/name", wanted=["config.json"]) == first
    assert hub.seen() == ["GET /api/models/org/name"]

    client.fetch_one("hf://org/name", wanted=["config.json", ".safetensors"])
    (body,) = bodies(hub)
    assert "/store/" in body


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, client):
    revisions = {"main": b"main", "v1.0": b"tag", "refs/pr/3": b"request", "höhe": b"umlaut"}
    hub.repos = {
        name: {
            revision: {"config.json": name.encode() + body} for revision, body in revisions.items()
        }
        for name in ("org/name", "legacy")
    }
    for name in hub.repos:
        commits = {revision: hub.commit(name, revision) for revision in revisions}
        asked = [*revisions, *commits.values()]
        results = client.fetch(f"hf://{name}", *(f"hf://{name}@{revision}" for revision in asked))
        wanted = [commits["main"], *commits.values(), *commits.values()]
        assert [commit for _, commit in results] == wanted
        for folder, commit in results:
            (revision,) = [key for key, value in commits.items() if value == commit]
            assert contents(folder) == {"config.json": name.encode() + revisions[revision]}


def test_a_branch_that_moved_is_downloaded_at_its_new_commit(hub, client):
    _, old = client.fetch_one("hf://org/name")
    hub.repos["org/name"] = {"main": {"model.safetensors": b"new"}, "old": FILES}
    folder, new = client.fetch_one("hf://org/name")
    assert contents(folder) == {"model.safetensors": b"new"}
    assert new == hub.commit("org/name") != old == hub.commit("org/name", "old")

    offline = client.fetch("hf://org/name", f"hf://org/name@{old}", HF_HUB_OFFLINE="1")
    assert [commit for _, commit in offline] == [new, old]


def test_a_private_repository_needs_the_token(hub, client):
    hub.tokens["org/name"] = "hf_mine"
    for token in ("", "hf_wrong"):
        error = client.fetch_one("hf://org/name", HF_TOKEN=token)
        assert error.startswith("hf://org/name: no such repository on the hub")
        assert "hf auth login" in error and "HF_TOKEN" in error
    hub.requests.clear()

    folder, _ = client.fetch_one("hf://org/name", HF_TOKEN="hf_mine")
    assert contents(folder)["model.safetensors"] == WEIGHTS
    for request in hub.requests:
        assert ("authorization" in map(str.lower, request.headers)) == (
            "/store/" not in request.path
        )


def test_a_stored_login_is_used(hub, client):
    hub.tokens["org/name"] = "hf_mine"
    client.home.mkdir()
    (client.home / "token").write_text("hf_mine")
    folder, _ = client.fetch_one("hf://org/name")
    assert contents(folder)["model.safetensors"] == WEIGHTS


@pytest.mark.parametrize("flaw", ["\0", "\xe9", "'"])
def test_a_token_is_never_printed(hub, client, flaw):
    hub.tokens["org/name"] = "hf_mine"
    client.home.mkdir()
    (client.home / "token").write_text(f"hf_secret{flaw}hf_secret")
    error = client.fetch_one("hf://org/name")
    assert error.startswith("hf://org/name: ") and "hf_secret" not in error


def test_what_the_hub_refuses_is_told_with_the_way_out(hub, client):
    hub.refusals = {
        "org/gated": (403, "GatedRepo"),
        "org/refused": (401, ""),
        "org/forbidden": (403, ""),
        "org/lost": (404, ""),
        "org/broken": (503, ""),
        "org/busy": (429, ""),
        "org/odd": (418, ""),
    }
    ways_out = {
        "hf://org/none": "no such repository on the hub; check the name",
        "hf://org/name@v9": "no such revision; check the branch, tag or commit",
        f"hf://org/name@{'0' * 40}": "no such revision",
        "hf://org/gated": "gated; ask for access on its page, then log in",
        "hf://org/refused": "the hub refuses access (401); log in with `hf auth login`",
        "hf://org/forbidden": "the hub refuses access (403)",
        "hf://org/lost": "the hub answers 404; is HF_ENDPOINT right?",
        "hf://org/broken": "the hub answers 503, and no copy of it is in ",
        "hf://org/busy": "the hub answers 429, and no copy of it is in ",
        "hf://org/odd": "the hub answers 418",
    }
    errors = client.fetch(*ways_out)
    for error, (model, way_out) in zip(errors, ways_out.items(), strict=True):
        assert error.startswith(f"{model}: {way_out}")
    assert not bodies(hub)


def test_without_a_file_of_use_nothing_is_downloaded(hub, client):
    error = client.fetch_one("hf://org/name", wanted=[".gguf"])
    assert error == "hf://org/name: no file of use among its 5; choose another model"
    assert not bodies(hub)


def test_offline_the_cache_serves(hub, client):
    hub.repos["org/name"]["v1"] = {"model.safetensors": b"one"}
    models = ["hf://org/name", "hf://org/name@v1", f"hf://org/name@{hub.commit('org/name')}"]
    online = client.fetch(*models)
    hub.refusals = {"org/name": (502, "")}
    assert client.fetch(*models) == online
    hub.seen()
    assert client.fetch(*models, HF_HUB_OFFLINE="1") == online
    assert hub.seen() == []
    hub.__exit__()
    assert client.fetch(*models) == online


def test_offline_a_cache_without_the_files_is_told(hub, client):
    client.fetch_one("hf://org/name", wanted=["config.json"])
    hub.seen()
    models = ["hf://org/name", "hf://org/name@v2", "hf://org/other"]
    incomplete, *absent = client.fetch(*models, wanted=[".safetensors"], HF_HUB_OFFLINE="1")
    assert incomplete.startswith("hf://org/name: HF_HUB_OFFLINE is set, and its copy in ")
    assert "is incomplete" in incomplete
    for model, error in zip(models[1:], absent, strict=True):
        assert error.startswith(f"{model}: HF_HUB_OFFLINE is set, and no copy of it is in ")
        assert error.endswith("; unset it to download")
    assert hub.seen() == []


def test_offline_a_damaged_cache_is_told(hub, client):
    client.fetch_one("hf://org/name")
    storage = client.home / "hub" / "models--org--name"
    for blob in (storage / "blobs").iterdir():
        blob.unlink()
    assert "no copy of it is in" in client.fetch_one("hf://org/name", HF_HUB_OFFLINE="1")
    for text in ("../../..", "\x00", ""):
        (storage / "refs" / "main").write_text(text)
        assert "no copy of it is in" in client.fetch_one("hf://org/name", HF_HUB_OFFLINE="1")

    folder, _ = client.fetch_one("hf://org/name")
    assert contents(folder)["model.safetensors"] == WEIGHTS


def test_a_hub_that_is_down_is_told(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and it does not listen
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        error = Client(tmp_path, endpoint).fetch_one("hf://org/name")
    assert error.startswith("hf://org/name: the connection to the hub failed (Connection")
    assert error.endswith("; offline? is HF_ENDPOINT right?")


@pytest.mark.parametrize("endpoint", ["127.0.0.1", "ftp://127.0.0.1", "http://["])
def test_a_wrong_endpoint_is_told(tmp_path, endpoint):
    error = Client(tmp_path, endpoint).fetch_one("hf://org/name")
    assert "is HF_ENDPOINT right?" in error or error.startswith(
        "huggingface_hub cannot be imported"
    )


@pytest.mark.parametrize("page", [b"<html>log in to this network</html>", b"", b"[]", b'{"id": 1}'])
def test_a_server_that_is_no_hub_is_told(hub, client, page):
    hub.page = page
    error = client.fetch_one("hf://org/name")
    assert error.startswith("hf://org/name: ") and "HF_ENDPOINT" in error


def test_a_hub_that_does_not_answer_is_told(hub, client):
    hub.stalled = True
    error = client.fetch_one("hf://org/name", HF_HUB_ETAG_TIMEOUT="1")
    assert error.startswith("hf://org/name: the connection to the hub failed (")


def test_a_download_that_breaks_is_told(tmp_path):
    told = {
        "gone": "listed, but the hub does not have it; try again",
        "short": "the download failed (OSError: Consistency check failed",
        "cut": "the connection to the hub failed (",
        "stalls": "the connection to the hub failed (",
    }

    def error(fault):
        with Hub({"org/name": {"main": FILES}}, faults={"model.safetensors": fault}) as hub:
            client = Client(tmp_path / fault, hub.endpoint, HF_HUB_DOWNLOAD_TIMEOUT="1")
            return client.fetch_one("hf://org/name", wanted=["model.safetensors"]), client.below()

    with ThreadPoolExecutor() as pool:  # the library tries for seconds
        results = dict(zip(told, pool.map(error, told), strict=True))
    for fault, (message, left) in results.items():
        assert message.startswith(f"hf://org/name: model.safetensors: {told[fault]}"), fault
        assert not any("snapshots/" in path and "safetensors" in path for path in left)


@pytest.mark.parametrize("limit", [0, 5_000])
def test_a_cache_that_cannot_be_written_is_told(client, tmp_path, limit):
    (tmp_path / "file").write_bytes(b"")
    where = {} if limit else {"HF_HUB_CACHE": str(tmp_path / "file" / "hub")}
    error = client.fetch_one("hf://org/name", wanted=["model.safetensors"], limit=limit, **where)
    assert error.startswith("hf://org/name: model.safetensors: ")
    assert ("File too large" if limit else "Not a directory") in error
    assert error.endswith("or set HF_HOME to another folder")


EVIL = [
    "../evil.safetensors",
    "../../../../evil.safetensors",
    "/evil.safetensors",
    "a/../../evil.safetensors",
    "a//evil.safetensors",
    "./evil.safetensors",
    "a/./evil.safetensors",
    "..\\evil.safetensors",
    "C:evil.safetensors",
    "C:/evil.safetensors",
    "evil\n.safetensors",
    "evil\x1b[2J.safetensors",
    "evil\ud800.safetensors",
]


def test_a_name_that_leaves_the_cache_is_refused_before_any_download(hub, client):
    hub.repos = {
        f"org/evil{number}": {"main": {"config.json": b"{}", name: b"evil"}}
        for number, name in enumerate(EVIL)
    }
    for error in client.fetch(*(f"hf://{name}" for name in hub.repos)):
        assert "which could be written outside the cache; nothing was downloaded" in error
        assert error.isprintable()
    assert not bodies(hub)
    assert not any("evil" in path for path in client.below())

    # Beside files that are wanted, it is no reason to refuse them.
    folder, _ = client.fetch_one("hf://org/evil0", wanted=["config.json"])
    assert set(contents(folder)) == {"config.json"}


def test_a_commit_that_is_none_is_refused(hub, client):
    hub.repos["org/other"] = {"main": FILES}
    hub.commits = {"org/name": "../../../../evil"}
    error = client.fetch_one("hf://org/name")
    assert error == (
        "hf://org/name: the hub names '../../../../evil' as its commit; is HF_ENDPOINT right?"
    )
    assert not bodies(hub)
    assert not any("evil" in path for path in client.below())


def test_another_commit_than_the_one_asked_for_is_refused(hub, client):
    asked = "1" * 40
    hub.repos["org/name"][asked] = FILES
    error = client.fetch_one(f"hf://org/name@{asked}")
    assert f"the hub names '{hub.commit('org/name')}' as its commit" in error
    assert not bodies(hub)


def test_files_of_another_commit_are_refused(hub, client):
    hub.faults["model.safetensors"] = "moved"
    error = client.fetch_one("hf://org/name")
    assert error == "hf://org/name: the hub sent files of different commits; try again"
    assert "no copy of it is in" in client.fetch_one("hf://org/name", HF_HUB_OFFLINE="1")


@pytest.mark.parametrize(
    "model",
    [
        "hf://",
        "hf:///",
        "hf://org/",
        "hf:///name",
        "hf://org/name/",
        "hf://org/name/model.safetensors",
        "hf://../name",
        "hf://org/..",
        "hf://org/.name",
        "hf://org/name.",
        "hf://org/-name",
        "hf://org/na--me",
        "hf://org/na..me",
        "hf://org/name.git",
        "hf://org/na me",
        "hf://org/na%2fme",
        "hf://org/näme",
        "hf://org/name?x=1",
        "hf://org/name#x",
        "hf://org\\name",
        "hf://org/name\n",
        "hf://org/\x1b[2Jname",
        f"hf://org/{'n' * 97}",
        "hf://org/name@",
        "hf://org/name@..",
        "hf://org/name@../../main",
        "hf://org/name@/main",
        "hf://org/name@main/",
        "hf://org/name@a//b",
        "hf://org/name@.hidden",
        "hf://org/name@a/.hidden",
        "hf://org/name@main.lock",
        "hf://org/name@main.",
        "hf://org/name@ma in",
        "hf://org/name@ma:in",
        "hf://org/name@ma\\in",
        "hf://org/name@HEAD~1",
        "hf://org/name@main@{1}",
        "hf://org/name@main\n",
        "hf://org/name@main\ud800",
        f"hf://org/name@{'m' * 201}",
        "org/name",
        "HF://org/name",
    ],
)
def test_a_malformed_name_is_refused_before_anything_else(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        LoadError, match="expected hf://org/name or hf://org/name@revision"
    ) as caught:
        fetch(model, lambda names: names)
    assert str(caught.value).isprintable()


def test_without_huggingface_hub_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError) as caught:
        fetch("hf://org/name", lambda names: names)
    assert str(caught.value) == "huggingface_hub is not installed: pip install encodercheck[hub]"


@pytest.mark.parametrize("model", ["model.safetensors", "org/name", "hf:/org/name", "./hf://x", ""])
def test_only_its_scheme_makes_a_name_one_of_the_hub(model):
    assert not is_hub(model)
    assert is_hub(f"hf://{model}")


def test_a_local_path_contacts_nothing_and_imports_nothing(tmp_path):
    code = (
        "import sys\n"
        "import encodercheck, encodercheck.weights.hub\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        "def watch(event, arguments):\n"
        "    assert event not in ('socket.connect', 'socket.getaddrinfo'), event\n"
        "sys.addaudithook(watch)\n"
        "try: encodercheck.load('model.safetensors')\n"
        "except encodercheck.errors.LoadError: pass\n"
        "else: raise AssertionError('a file without tensors was read')\n"
    )
    (tmp_path / "model.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    python("-c", code, cwd=tmp_path).check_returncode()


def test_errors_of_the_choice_pass_through(hub, client):
    script = SCRIPT.replace("n.endswith(tuple(wanted))", "1 / 0").replace(
        "EncoderCheckError as", "ZeroDivisionError as"
    )
    assert script.count("Zero") == 1
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([["hf://org/name"], [], 0])],
        env={**os.environ, "HF_HOME": str(client.home), "HF_ENDPOINT": hub.endpoint},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == ["division by zero"]
