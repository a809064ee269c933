"""Zoos of small models for tests, and what runs on them."""

from __future__ import annotations

import json
import time
from pathlib import Path

import models
import torch
from commands import run

CHECK = """
import os, signal, time
import pytest

@pytest.mark.check("FATE", severity="high")
def check_fate(encoder, measure, artifacts):
    '''It ends as the model's first weight says.'''
    fate = round(float(encoder.module.conv1.weight[0, 0, 0, 0]))
    if fate == 1:
        (artifacts.directory / "note.txt").write_text("kept")
    if fate == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if fate == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if fate == 4:
        time.sleep(600)
    if fate == 5 and encoder.batch_size > 8:
        raise RuntimeError("CUDA out of memory")
    if fate == 6:
        time.sleep(0.5)
    for _ in range(2400 if fate == 7 else 0):
        if os.path.exists("go"):
            break
        time.sleep(0.05)
    measure("fate", float(fate == 1), at_most=0.5)

@pytest.mark.check("FATE2")
def check_another():
    '''It passes.'''
"""
FINE, FAILS, KILLED, CRASHES, HANGS, HUNGRY, SLOW, WAITS = range(8)
# Not cached by anything: as little as a scan can do.
CHEAP = ("-k", "FATE", "--checks", "check_fate.py", "--profile", "quick", "--device", "cpu")


def write(path: Path, fate: int = FINE, *, seed: int = 0) -> Path:
    """Write a model of its own that ends so."""
    tensors = dict(_STATE)
    weight = tensors["conv1.weight"].clone()
    weight[0, 0, 0, 0] = fate
    weight[0, 0, 0, 1] = seed / 1000
    tensors["conv1.weight"] = weight
    path.parent.mkdir(parents=True, exist_ok=True)
    return models.write(path, tensors)


def zoo(folder: Path, *fates: int) -> list[str]:
    """Write models into ``zoo/``, and the check; return their names."""
    (folder / "check_fate.py").write_text(CHECK)
    for number, fate in enumerate(fates):
        write(folder / "zoo" / f"m{number}.safetensors", fate, seed=number)
    return [f"zoo/m{number}.safetensors" for number in range(len(fates))]


def scan(folder: Path, *arguments: str | Path, **extra: str):  # type: ignore[no-untyped-def]
    """Run ``encodercheck scan`` with the one cheap check."""
    return run("scan", *arguments, *CHEAP, cwd=folder, **extra)


def ledger(folder: Path) -> list[dict[str, object]]:
    """Return what is in a ledger, line by line."""
    return [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]


def wait_for(ledger: Path, lines: int) -> None:
    """Wait until a ledger has so many lines."""
    for _ in range(1200):
        if ledger.exists() and ledger.read_bytes().count(b"\n") >= lines:
            return
        time.sleep(0.05)
    raise AssertionError(f"{ledger}: fewer than {lines} lines")


_STATE: dict[str, torch.Tensor] = models.state()
