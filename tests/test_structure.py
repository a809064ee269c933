"""A network's structure: the same whoever wrote it, another for every change of its function."""

import copy
import math

import models
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

from encodercheck import scanning
from encodercheck.encoder import Encoder, Preprocessing
from encodercheck.structure import fingerprint
from encodercheck.weights.build import sources
from encodercheck.weights.resnet import ResNet

TINY = "timm:vit_tiny_patch16_224,img_size=32,patch_size=8,embed_dim=32,depth=2,num_heads=2"


class Written(nn.Module):
    """The small ResNet of ``models`` as somebody else would write it, in one piece."""

    def __init__(self, *, stride=2, pool=False, act="relu", eps=1e-5, widths=(8, 16, 32, 64)):
        super().__init__()
        self.act, self.pool, self.first = act, pool, stride
        self.stem = nn.Conv2d(3, widths[0], 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0], eps)
        self.units = nn.ModuleList()
        for number, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
            unit = nn.ModuleDict()
            unit["a"] = nn.Conv2d(before, width, 3, 1 if number == 0 else 2, 1, bias=False)
            unit["na"] = nn.BatchNorm2d(width, eps)
            unit["b"] = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            unit["nb"] = nn.BatchNorm2d(width, eps)
            if number:
                shortcut = nn.Conv2d(before, width, 1, 2, bias=False)
                unit["short"] = nn.Sequential(shortcut, nn.BatchNorm2d(width, eps))
            self.units.append(unit)

    def forward(self, images):
        act = getattr(functional, self.act)
        x = act(self.norm(self.stem(images)))
        if self.pool:
            x = functional.max_pool2d(x, 3, 2, 1)
        for unit in self.units:
            # Before the other branch, and added the other way round: that makes no difference.
            kept = unit["short"](x) if "short" in unit else x
            x = act(kept + unit["nb"](unit["b"](act(unit["na"](unit["a"](x))))))
        return x.mean((2, 3))


class Attention(nn.Module):
    """A transformer of one block, with attention by PyTorch's function or by its definition."""

    def __init__(self, *, fused=True, norm=nn.LayerNorm, act=None, scale=None, dim=16, heads=2):
        super().__init__()
        self.fused, self.heads, self.scale = fused, heads, scale
        self.patches = nn.Conv2d(3, dim, 8, 8)
        self.norm, self.norm2 = norm(dim), norm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 32), act or nn.GELU(), nn.Linear(32, dim))

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        n, tokens, dim = x.shape
        if self.fused:
            parts = self.qkv(self.norm(x)).reshape(n, tokens, 3, self.heads, -1)
            q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
            attended = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        else:
            q, k, v = (
                part.reshape(n, tokens, self.heads, -1).transpose(1, 2)
                for part in self.qkv(self.norm(x)).chunk(3, dim=-1)
            )
            scores = q @ k.transpose(-2, -1) * (self.scale or 1 / math.sqrt(dim // self.heads))
            attended = torch.softmax(scores, -1) @ v
        x = x + self.out(attended.transpose(1, 2).reshape(n, tokens, dim))
        return (x + self.mlp(self.norm2(x)))[:, 0]


class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


def of(module, size=32):
    found = fingerprint(module.eval(), size)
    assert found is None or (len(found) == 16 and int(found, 16) >= 0)
    return found


def test_the_same_network_written_by_somebody_else_is_the_same():
    assert of(Written()) == of(ResNet(models.SPEC))


def test_weights_have_no_part_in_it():
    one, other = ResNet(models.SPEC), ResNet(models.SPEC)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(math.nan)
    assert of(one) == of(other)
    assert of(one.double()) == of(other)


@pytest.mark.parametrize(
    "changed",
    [
        {"stride": 1},
        {"pool": True},
        {"act": "silu"},
        {"act": "leaky_relu"},
        {"eps": 1e-3},
        {"widths": (8, 16, 32, 72)},
        {"widths": (8, 16, 32)},
        {"widths": (8, 16, 32, 64, 64)},
    ],
    ids=str,
)
def test_every_change_of_a_convolutional_network_shows(changed):
    assert of(Written(**changed)) != of(Written())


def test_the_image_size_and_paddings_and_groups_show():
    padded, grouped = Written(), Written()
    padded.stem.padding = (0, 0)
    grouped.units[0]["b"] = nn.Conv2d(8, 8, 3, 1, 1, groups=2, bias=False)
    found = [of(Written()), of(Written(), 64), of(padded), of(grouped)]
    assert len(set(found)) == 4


def test_a_module_and_a_function_are_the_same():
    body = [nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.anything = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            return functional.adaptive_avg_pool2d(functional.relu(self.anything(x)), 1)[:, :, 0, 0]

    assert of(nn.Sequential(*body)) == of(Named())
    assert of(nn.Sequential(body[0], nn.MaxPool2d(2), *body[1:])) != of(Named())
    assert of(nn.Sequential(body[0], nn.LeakyReLU(0.1), *body[2:])) != of(
        nn.Sequential(body[0], nn.LeakyReLU(0.2), *body[2:])
    )


def test_attention_is_the_same_by_any_kernel():
    assert of(Attention()) == of(Attention(fused=False))
    assert of(Attention(scale=0.5)) == of(Attention(fused=False, scale=0.5))


@pytest.mark.parametrize(
    "changed",
    [
        {"norm": RMSNorm},
        {"act": nn.ReLU()},
        {"act": nn.GELU("tanh")},
        {"scale": 0.5},
        {"heads": 4},
        {"dim": 32},
    ],
    ids=str,
)
def test_every_change_of_a_transformer_shows(changed):
    assert of(Attention(**changed)) != of(Attention())


def test_vision_transformers_of_a_library():
    def built(options=""):
        (source,) = sources(TINY + options)
        return of(source.build(on_meta=False))

    assert built() == built()
    assert len({built(), built(",global_pool=avg"), built(",depth=3"), built(",num_heads=4")}) == 4


def test_what_lies_unused_in_a_module_is_no_part_of_it():
    burdened = Written()
    burdened.decoy = nn.Linear(7, 7)
    assert of(burdened) == of(Written())


def test_a_module_that_needs_numbers_is_followed_with_its_weights():
    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            x = self.conv(x)
            return (x if float(x.sum()) > -1e9 else -x).mean((2, 3))

    plain = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1))
    assert of(Looking()) == of(plain)


def test_the_module_stays_as_it_was():
    class Keeping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.kept = nn.Conv2d(3, 8, 3), None

        def forward(self, x):
            self.kept = self.conv(x)
            return self.kept.mean((2, 3))

    module = Keeping().eval()
    before = copy.deepcopy(module.state_dict())
    state = torch.get_rng_state()
    of(module)
    assert module.kept is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.backends.mha.get_fastpath_enabled()


def test_what_cannot_be_followed_has_none():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            raise KeyError("no")

    assert of(Failing()) is None
    assert of(nn.Flatten()) is None
    assert Encoder(nn.Flatten(), preprocessing=Preprocessing(image_size=8)).structure is None


def test_an_encoder_knows_its_own():
    encoder = Encoder(ResNet(models.SPEC), preprocessing=Preprocessing(image_size=32))
    assert encoder.structure == of(Written())
    assert encoder.lend().structure == encoder.structure


def test_a_scan_compares_with_the_same_network_by_another_name(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from test_structure import Written\n\n\n"
        "def build():\n    return Written(widths=(16, 32, 64, 128))\n\n\n"
        "def other():\n    return Written(widths=(16, 32, 64, 128), stride=1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file(Written(widths=(16, 32, 64, 128)).state_dict(), file)
    found = {}
    for name in ("build", "other"):
        state = scanning.prepare(file, arch=f"mine:{name}", image_size=32, profile="quick")
        found[name] = state.null("EC202.gain", scale="gain")
    assert found["build"].own
    assert "of the same structure (resnet(basic, width 16" in found["build"].source
    assert not found["other"].own


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_b0"])
def test_libraries_that_compute_the_same_agree(name):
    timm = pytest.importorskip("timm")
    torchvision = pytest.importorskip("torchvision")
    theirs = getattr(torchvision.models, name)(weights=None)
    assert of(theirs, 64) == of(timm.create_model(name), 64)


def test_libraries_that_compute_something_else_do_not():
    timm = pytest.importorskip("timm")
    names = ["resnet50", "resnetaa50", "resnetblur50", "efficientnet_b0", "tf_efficientnet_b0"]
    assert len({of(timm.create_model(name), 64) for name in names}) == len(names)
