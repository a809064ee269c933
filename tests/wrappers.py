"""Checkpoints as training code saves them: one encoder, many names, and what lies beside it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

State = dict[str, Tensor]


def under(prefix: str, state: State) -> State:
    """Return the state with a prefix on every name."""
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def sequential(state: State) -> State:
    """Return a ResNet's state as nn.Sequential(*resnet.children()) names it, without classifier."""
    # Between them ReLU and max-pool, which have no tensors.
    positions = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    parts = {name: name.partition(".") for name in state}
    return {
        f"{positions[first]}.{rest}": state[name]
        for name, (first, _, rest) in parts.items()
        if first in positions
    }


def other(state: State) -> State:
    """Return the state of a second encoder: what a teacher or a key encoder would hold."""
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def _mlp(prefix: str) -> State:
    return {
        f"{prefix}0.weight": torch.zeros(8, 4),
        f"{prefix}0.bias": torch.zeros(8),
        f"{prefix}2.weight": torch.zeros(4, 8),
    }


def _moco_v2(state: State) -> State:
    pair = under("module.encoder_q.", state) | under("module.encoder_k.", other(state))
    queue = {
        "module.queue": torch.zeros(4, 16),
        "module.queue_ptr": torch.zeros(1, dtype=torch.long),
    }
    return pair | queue | _mlp("module.encoder_q.fc.")


def _moco_v3(state: State) -> State:
    pair = under("module.base_encoder.", state) | under("module.momentum_encoder.", other(state))
    return pair | _mlp("module.predictor.")


def _dino(state: State) -> State:
    student = under("student.module.backbone.", state) | _mlp("student.module.head.mlp.")
    teacher = under("teacher.backbone.", other(state)) | _mlp("teacher.head.mlp.")
    return student | teacher | {"dino_loss.center": torch.zeros(1, 8)}


def _byol(state: State) -> State:
    online = under("online_encoder.net.", state) | _mlp("online_encoder.projector.")
    return online | under("target_encoder.net.", other(state)) | _mlp("online_predictor.")


def _simclr(state: State) -> State:
    return under("encoder.", state) | _mlp("projector.")


def _badencoder(state: State) -> State:
    return under("f.", state) | _mlp("g.")


def _mae(state: State) -> State:
    beside = {"mask_token": torch.zeros(1, 1, 8), "decoder_pos_embed": torch.zeros(1, 5, 8)}
    # An encoder that has a mask token keeps its own.
    return beside | state | under("decoder_blocks.0.", _mlp("mlp."))


def _lightly(state: State) -> State:
    return under("backbone.", state) | _mlp("projection_head.layers.")


def _solo_learn(state: State) -> State:
    pair = under("backbone.", state) | under("momentum_backbone.", other(state))
    return pair | _mlp("projector.") | {"classifier.weight": torch.zeros(10, 4)}


def _lightning(state: State) -> State:
    return under("model.", state) | {"criterion.temperature": torch.zeros(())}


def _data_parallel(state: State) -> State:
    return under("module.", state)


def _compiled(state: State) -> State:
    return under("_orig_mod.", state)


def _plain(state: State) -> State:
    return dict(state)


WRAPPERS: dict[str, Callable[[State], State]] = {
    "plain": _plain,
    "DataParallel": _data_parallel,
    "MoCo v2": _moco_v2,
    "MoCo v3": _moco_v3,
    "SimCLR": _simclr,
    "BYOL": _byol,
    "DINO": _dino,
    "MAE": _mae,
    "BadEncoder": _badencoder,
    "lightly": _lightly,
    "solo-learn": _solo_learn,
    "Lightning": _lightning,
    "torch.compile": _compiled,
}
"""How each saves the state of an encoder."""

WITHOUT_CLASSIFIER = ("SimCLR", "BYOL", "DINO", "MAE", "BadEncoder", "lightly")
"""Those that replace it by a projector, or never had one."""
