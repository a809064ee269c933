"""Files that hold several encoders: none passes for another."""

import json

import models
import pytest
import torch
from commands import run
from safetensors.torch import save_file

import encodercheck
from encodercheck.errors import AmbiguousArchitecture, ConfigError
from encodercheck.loading import inspect, load
from encodercheck.scanning import open_encoder
from encodercheck.weights.resnet import ResNet
from encodercheck.weights.spec import ResNetSpec

OTHER = ResNetSpec(
    "basic", (1, 1), (8, 16), stem_width=8, stem_kernel=3, stem_stride=2, maxpool=False
)


def _under(prefix, tensors):
    return {f"{prefix}{name}": tensor.clone() for name, tensor in tensors.items()}


def _another(seed=7):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ResNet(OTHER).state_dict()


def _patches():
    """Return the tensors of a transformer that nobody knows."""
    return {"patch_embed.proj.weight": torch.rand(8, 3, 4, 4), "blocks.0.w": torch.rand(8, 8)}


def _write(path, tensors):
    return models.write(path, {name: tensor.contiguous() for name, tensor in tensors.items()})


PAIRS = {
    "student and teacher": ("student.", "teacher.", models.state(1)),
    "momentum encoder": ("module.encoder_q.", "module.encoder_k.", models.state(1)),
    "averaged weights": ("state_dict.", "state_dict_ema.", models.state(1)),
    "a copy without a prefix": ("momentum_encoder.", "", models.state(1)),
    "another ResNet": ("student.", "teacher.", _another()),
    "a transformer": ("encoder.", "vit.", _patches()),
}


@pytest.mark.parametrize(("own", "others", "tensors"), PAIRS.values(), ids=PAIRS)
def test_encoders_that_differ_are_no_model_until_one_is_named(tmp_path, own, others, tensors):
    together = _under(own, models.state()) | _under(others, tensors)
    path = _write(tmp_path / "model.safetensors", together)
    with pytest.raises(AmbiguousArchitecture) as caught:
        open_encoder(path, device="cpu")
    for prefix in (own, others):
        assert f"--tower {prefix or '.'}" in str(caught.value)
    for name in (own, own.rstrip(".")):
        encoder, _ = open_encoder(path, tower=name, device="cpu")
        alone = load(_write(tmp_path / "alone.safetensors", models.state()), device="cpu")
        images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        assert torch.equal(encoder(images), alone(images))


def test_the_one_without_a_prefix_can_be_named(tmp_path):
    together = models.state(1) | _under("momentum_encoder.", models.state())
    path = _write(tmp_path / "model.safetensors", together)
    encoder, _ = open_encoder(path, tower=".", device="cpu")
    assert torch.equal(encoder.module.state_dict()["conv1.weight"], models.state(1)["conv1.weight"])


def test_one_weight_is_enough_to_differ(tmp_path):
    copy = _under("teacher.", models.state())
    together = _under("student.", models.state()) | copy
    path = _write(tmp_path / "same.safetensors", together)
    encoder, _ = open_encoder(path, device="cpu")
    assert encoder.provenance.rivals == ()
    assert any("took 'student.'" in note for note in encoder.provenance.notes)

    copy["teacher.layer4.0.bn2.bias"][-1] += 1e-6
    path = _write(tmp_path / "model.safetensors", _under("student.", models.state()) | copy)
    with pytest.raises(AmbiguousArchitecture, match=r"holds 2 encoders that differ \(student\., t"):
        open_encoder(path, device="cpu")


def test_heads_and_text_towers_are_no_encoders(tmp_path):
    beside = {
        "text.token_embedding.weight": torch.rand(20, 8),
        "decoder.conv.weight": torch.rand(3, 8, 3, 3),
        "projector.0.weight": torch.rand(8, 64),
    }
    path = _write(tmp_path / "model.safetensors", _under("visual.", models.state()) | beside)
    assert open_encoder(path, device="cpu")[0].provenance.rivals == ()


def test_who_names_the_architecture_has_not_named_the_encoder(tmp_path):
    arch = "resnet,stem_stride=2,maxpool=False"
    together = _under("student.", models.state()) | _under("teacher.", models.state(1))
    path = _write(tmp_path / "model.safetensors", together)
    with pytest.raises(AmbiguousArchitecture, match="--tower"):
        open_encoder(path, arch=arch, device="cpu")
    # But what is of another kind is none of it.
    together = _under("student.", models.state()) | _under("vit.", _patches())
    path = _write(tmp_path / "model.safetensors", together)
    assert open_encoder(path, arch=arch, device="cpu")[0].provenance.rivals == ()


def test_a_tower_that_is_not_there_is_refused(tmp_path):
    path = _write(tmp_path / "model.safetensors", _under("student.", models.state()))
    with pytest.raises(ConfigError, match=r"--tower tutor: no tensor of .* begin with student\."):
        load(path, tower="tutor")
    with pytest.raises(ConfigError, match="--tower: a black box"):
        open_encoder(None, arch="models:state", tower="student")


def test_the_command_line_ends_with_2_and_says_how_to_go_on(tmp_path):
    together = _under("student.", models.state()) | _under("teacher.", models.state(1))
    path = _write(tmp_path / "model.safetensors", together)
    ended = run("scan", path, "-k", "EC001", "--json", tmp_path / "report.json", cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert "pass" not in ended.stdout.lower()
    told = json.loads((tmp_path / "report.json").read_text())["findings"][0]["message"]
    assert "--tower student. or --tower teacher." in told

    options = ["-k", "EC001", "--tower", "teacher", "--profile", "quick"]
    ended = run("scan", path, *options, cwd=tmp_path)
    assert ended.returncode == 0, ended
    many = run("scan", path, *options, "--out", tmp_path / "out", cwd=tmp_path)
    assert many.returncode == 0, many
    many = run("scan", path, *options[:2], "--out", tmp_path / "other", cwd=tmp_path)
    assert many.returncode == 2, many
    # Nothing is read of the weights here, and nothing is said of them.
    assert inspect(path, tower="teacher").notes != inspect(path).notes


def test_a_shard_that_repeats_the_encoder_counts_too(tmp_path):
    """A decoy does not hide in another file of the same model."""
    shards = {"one.safetensors": ("student.", 0), "two.safetensors": ("teacher.", 1)}
    weight_map = {}
    for file, (prefix, seed) in shards.items():
        tensors = _under(prefix, models.state(seed))
        save_file(tensors, tmp_path / file)
        weight_map |= dict.fromkeys(tensors, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(AmbiguousArchitecture, match="--tower"):
        encodercheck.scan(tmp_path, arch="resnet,stem_stride=2,maxpool=False", device="cpu")
