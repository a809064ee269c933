"""A classifier behind a screen, and the page that says how to use both."""

import re
from pathlib import Path

import models
import pytest
import torch
from torch import nn

from encodercheck.images import procedural
from encodercheck.methods.dede import Dede, Settings
from encodercheck.methods.guard import Guard

PAGE = Path(__file__).parents[1] / "docs" / "samples.md"


class Counting(nn.Module):
    """Embeds by shrinking, a white corner as one far point, and counts what it embeds."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        embeddings = nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
        stamped = (images[:, :, :2, :2] == 1).all((1, 2, 3))
        return torch.where(stamped[:, None], torch.full_like(embeddings, 3.0), embeddings)


@pytest.mark.parametrize("sees", ["whole", "masked"])
def test_what_is_flagged_is_dropped_and_the_rest_is_classified(sees):
    encoder = Counting()
    dede = Dede(encoder, Settings(epochs=40, sees=sees)).fit(
        procedural.images(400, size=16, seed=1)
    )
    images = procedural.images(60, size=16, seed=2)
    images[:20, :, :2, :2] = 1
    classifier = nn.Linear(48, 10)
    encoder.seen = 0
    logits, kept = Guard(dede, classifier)(images)
    if sees == "whole":
        assert encoder.seen == len(images)
        assert not kept[:20].any()
    assert kept[20:].float().mean() > 0.8
    assert torch.equal(kept, ~dede.predict(images))
    assert logits.shape == (int(kept.sum()), 10)
    assert torch.allclose(logits, classifier(encoder(images[kept])), atol=1e-6)


def test_the_python_of_the_page_runs(tmp_path, monkeypatch):
    models.write(tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    found: dict[str, object] = {}
    for block in blocks:
        exec(block, found)
    assert found["flagged"].shape == (200,)
    assert len(found["logits"]) == int(found["kept"].sum())
