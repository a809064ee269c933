"""Models on a hub, by the command line: a folder is found out, and nothing else is fetched."""

import json

import pytest
from commands import run
from hub_server import Hub
from safetensors.torch import save

import encodercheck
from encodercheck.errors import LoadError

timm = pytest.importorskip("timm")
pytest.importorskip("huggingface_hub")

CONFIG = {
    "architecture": "test_vit2",
    "model_args": {"img_size": 32},
    "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "input_size": [3, 32, 32]},
}


@pytest.fixture(scope="module")
def state():
    return timm.create_model("test_vit2", img_size=32).state_dict()


@pytest.fixture(scope="module")
def hub(state):
    halves = [dict(list(state.items())[part::2]) for part in range(2)]
    shards = [f"model-0000{part + 1}-of-00002.safetensors" for part in range(2)]
    weight_map = {name: shards[part] for part, half in enumerate(halves) for name in half}
    config = json.dumps(CONFIG).encode()
    repos = {
        "org/whole": {"config.json": config, "model.safetensors": save(state)},
        "org/sharded": {
            "config.json": config,
            "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode(),
            **{name: save(half) for name, half in zip(shards, halves, strict=True)},
        },
        "org/pickled": {"config.json": config, "pytorch_model.bin": b"never"},
    }
    extra = {"README.md": b"never", "evil.py": b"never"}
    with Hub({name: {"main": files | extra} for name, files in repos.items()}) as running:
        yield running


@pytest.fixture
def user(hub, tmp_path):
    """What the environment of somebody with an empty cache says."""
    return {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "NO_PROXY": "*"}


def test_a_model_on_a_hub_is_identified(hub, user, tmp_path):
    ended = run("identify", "hf://org/whole@main", "--json", cwd=tmp_path, **user)
    assert ended.returncode == 0, ended
    found = json.loads(ended.stdout)
    assert found["architecture"] == "timm:test_vit2,img_size=32"
    assert found["found_by"] == "config.json (timm)"
    assert (found["image_size"], found["mean"]) == (32, [0.1, 0.2, 0.3])
    assert f"from the hub, commit {hub.commit('org/whole')}" in found["notes"]
    assert not [path for path in hub.seen() if "README" in path or "evil" in path]


def test_a_scan_of_a_sharded_one_names_it_as_the_user_did(hub, user, tmp_path):
    options = ["-k", "check_integrity", "--profile", "quick", "--json", "-"]
    ended = run("scan", "hf://org/sharded", *options, cwd=tmp_path, **user)
    assert ended.returncode == 0, ended
    model = json.loads(ended.stdout)["model"]
    assert model["path"] == "hf://org/sharded"
    assert model["architecture"] == "timm:test_vit2,img_size=32"
    assert model["image_size"] == 32
    assert f"from the hub, commit {hub.commit('org/sharded')}" in model["notes"]
    assert not [path for path in hub.seen() if "README" in path or "evil" in path]


def test_pickles_on_a_hub_are_not_fetched(hub, user, tmp_path):
    ended = run("scan", "hf://org/pickled", cwd=tmp_path, **user)
    assert ended.returncode == 2, ended
    assert "only pickles (pytorch_model.bin)" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not [path for path in hub.seen() if "pytorch_model.bin" in path]


def test_the_library_says_it_in_one_line_too():
    with pytest.raises(LoadError, match="hf://"):
        encodercheck.load("hf://not/a/name")
