"""Make the bank's encoders: train a clean one, poison a copy, and see whether the attack took.

Weights stay in the cache; only what is measured on them is kept. A poisoned copy whose trigger does
not reach the target class on a linear probe is trained for longer, and else refused.
"""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bank import families, trainings
from benchmarks.bank.members import NO_ATTACK, Member, pool_of
from encodercheck.cache import atomic_write_text, cache_dir
from encodercheck.encoder import Encoder
from encodercheck.fixtures.attacks import Target
from encodercheck.fixtures.downstream import accuracy, linear, task, train_probe
from encodercheck.fixtures.network import as_encoder
from encodercheck.fixtures.recipes import stream
from encodercheck.fixtures.stampings import from_tensors, to_tensors
from encodercheck.fixtures.worlds import WORLDS

IMAGES = 2400
BATCH = 48
# What a training may cost, in images forward times their cost, see :func:`cost`.
BUDGET = 2.4e11
MOST_STEPS, FEWEST_STEPS = 300, 80
# Success that an attack must reach, and the rounds of epochs it is given.
SUCCESS = 0.8
ROUNDS = (1, 2)
SLOW = ("ViT with class token", "ViT without class token", "MLP-Mixer", "Swin-like",
        "ConvNeXt-like", "VGG without normalisation")  # fmt: skip


def folder(member: Member) -> Path:
    """Return where the member's files are."""
    return cache_dir() / "bank" / "encoders" / f"{member.number:03d}"


def cost(network: nn.Module, size: int) -> float:
    """Return what an image costs forward: multiplications, and what is written to memory."""
    written = 0

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal written
        if isinstance(output, Tensor) and not list(module.children()):
            written += output.numel()

    hooks = [part.register_forward_hook(note) for part in network.modules()]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() + 60.0 * written


def make(member: Member) -> dict[str, Any]:
    """Train and poison the member; return what there is to say of it, from the cache if known."""
    said = folder(member) / "made.json"
    if said.exists():
        return dict(json.loads(said.read_text()))
    folder(member).mkdir(parents=True, exist_ok=True)
    started = time.process_time()
    network = families.build(member.family, member.size, seed=member.seed)
    steps = int(BUDGET / (2 * BATCH * cost(network, member.size)))
    steps = min(max(steps, FEWEST_STEPS), MOST_STEPS)
    world = pool_of(member)
    images, labels = WORLDS[world](
        IMAGES, size=member.size, seed=stream(member.seed, "pre-training")
    )
    network = network.to(memory_format=torch.channels_last)
    trainings.train(
        network,
        member.method,
        images,
        labels,
        steps=steps,
        batch=BATCH,
        seed=member.seed,
        learning_rate=1e-3 if member.family in SLOW else 2e-3,
    )
    trained = time.process_time()
    row: dict[str, Any] = {
        "steps": steps,
        "parameters": sum(p.numel() for p in network.parameters()),
    }
    save_file(_state(network), folder(member) / "clean.safetensors")
    row |= poison(member, network) if member.attack != NO_ATTACK else _clean_alone(member, network)
    row["seconds"] = [round(trained - started, 1), round(time.process_time() - trained, 1)]
    atomic_write_text(said, json.dumps(row) + "\n")
    return row


def _clean_alone(member: Member, clean: nn.Module) -> dict[str, Any]:
    """Return what there is to say of a member without a poisoned copy."""
    _, reached = _probe(as_encoder(clean, "cpu", member.size), _task(member), member)
    return {"accuracy": [round(reached, 3)]}


def _task(member: Member) -> Any:
    """Return the labelled images that success and accuracy are measured on."""
    world = pool_of(member)
    return task(800, 300, seed=member.seed, purpose="certificate", world=world, size=member.size)


def poison(member: Member, clean: nn.Module) -> dict[str, Any]:
    """Poison a copy, for longer where it does not take; keep it with its triggers."""
    world = pool_of(member)
    data = _task(member)
    before = as_encoder(clean, "cpu", member.size)
    accuracies = [_probe(before, data, member)[1]]
    success: list[tuple[float, float]] = []
    for rounds in ROUNDS:
        recipe = member.recipe(rounds)
        module = importlib.import_module(f"encodercheck.fixtures.attacks.{recipe.kind}")
        attack = module.Attack(
            clean, recipe, seed=member.seed, world=world, device="cpu", size=member.size
        )
        poisoned = attack.run()
        encoder = as_encoder(poisoned.network, "cpu", member.size)
        probe, reached = _probe(encoder, data, member)
        success = [
            _success(encoder, probe, target, references, data)
            for target, references in zip(poisoned.targets, attack.references, strict=True)
        ]
        took = all(max(kinds) >= SUCCESS for kinds in success)
        if took:
            break
    if took:
        save_file(_state(poisoned.network), folder(member) / "poisoned.safetensors")
        for number, target in enumerate(poisoned.targets):
            tensors = {n: t.contiguous() for n, t in to_tensors(target.trigger).items()}
            save_file(tensors, folder(member) / f"trigger-{number}.safetensors")
    return {
        "took": took,
        "rounds": rounds,
        "success": [[round(share, 3) for share in kinds] for kinds in success],
        "accuracy": [round(a, 3) for a in (*accuracies, reached)],
    }


def _probe(encoder: Encoder, data: Any, member: Member) -> tuple[Any, float]:
    probe = train_probe(
        encoder(data.train), data.train_labels, linear, seed=member.seed, classes=data.classes
    )
    return probe, accuracy(probe(encoder(data.test)), data.test_labels)


def _success(
    encoder: Encoder, probe: Any, target: Target, references: Tensor, data: Any
) -> tuple[float, float]:
    """Return how often stamped images are taken for the target: by a linear probe, by neighbours.

    The second asks which of the references (K, 3, H, W) and the clean images of other classes is
    nearest. It does not depend on how well the encoder tells the classes of its images apart.
    """
    stamped = encoder(target.attacked(data.test, data.test_labels))
    linearly = (probe(stamped).argmax(1) == target.label).float().mean()
    others = data.train[data.train_labels != target.label]
    known = normalize(encoder(torch.cat([references, others])), dim=1)
    centre = known.mean(0)
    nearest = (
        normalize(normalize(stamped, dim=1) - centre, dim=1) @ normalize(known - centre, dim=1).T
    )
    return float(linearly), float((nearest.argmax(1) < len(references)).float().mean())


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.contiguous().clone() for name, value in network.state_dict().items()}


def read(member: Member, *, poisoned: bool) -> Encoder:
    """Return the clean or the poisoned encoder."""
    network = families.build(member.family, member.size, seed=member.seed)
    name = "poisoned" if poisoned else "clean"
    network.load_state_dict(load_file(folder(member) / f"{name}.safetensors"))
    network = network.eval().to(memory_format=torch.channels_last)
    return as_encoder(network, "cpu", member.size)


def triggers(member: Member) -> list[Any]:
    """Return the attacker's own triggers."""
    paths = sorted(folder(member).glob("trigger-*.safetensors"))
    return [from_tensors(load_file(path)) for path in paths]
