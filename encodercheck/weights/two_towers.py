"""Files that hold a text tower beside the image tower, as CLIP and its like do."""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from encodercheck.weights.checkpoint import Checkpoint

TEXT_NAMES = re.compile(
    r"word_embeddings|token_embedding|embed_tokens|text_model|(^|\.)(wte|wpe|shared)\."
)
# What turns token ids into vectors: a file that has it holds a text tower.
TOKEN_TABLE = re.compile(r"(word_embeddings|token_embedding|embed_tokens|wte|shared)\.weight$")


@dataclass(frozen=True)
class TextTower:
    """The text tower of a file, for checks that need both: which tensors it has.

    ``table`` is the name of its token embeddings, (vocabulary, width); ``tensors`` are the names of
    everything in the file that is outside the image tower, scales and projections included.
    """

    table: str
    vocabulary: int
    width: int
    tensors: tuple[str, ...]
    parameters: int

    def describe(self) -> dict[str, Any]:
        """Return it as JSON-ready values, without the names."""
        return {
            "token_embedding": self.table,
            "vocabulary": self.vocabulary,
            "width": self.width,
            "tensors": len(self.tensors),
            "parameters": self.parameters,
        }


def text_tower(checkpoint: Checkpoint, image_tower: Container[str]) -> TextTower | None:
    """Return the text tower of a file whose image tower has the given tensors, None without one."""
    outside = [name for name in checkpoint.tensors if name not in image_tower]
    tables = [
        name
        for name in outside
        if TOKEN_TABLE.search(name) and len(checkpoint.tensors[name].shape) == 2
    ]
    if not tables:
        return None
    # Beside the tokens' there may be tables of positions or kinds, which are smaller.
    table = max(tables, key=lambda name: checkpoint.tensors[name].shape[0])
    vocabulary, width = checkpoint.tensors[table].shape
    count = sum(checkpoint.tensors[name].numel for name in outside)
    return TextTower(table, vocabulary, width, tuple(outside), count)
