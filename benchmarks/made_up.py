"""Reports of scans that never took place, of models that do not exist."""

from __future__ import annotations

import random
from collections.abc import Iterator

from encodercheck.report import Direction, Finding, Measurement, Outcome, Report

LIMITS = {"EC102": 0.872, "EC202": 0.872, "EC203": 0.989, "EC204": 0.989, "EC301": 0.751}
KINDS = (
    ("timm/resnet50.a1_in1k", "resnet50", 25_557_032, 224, 2048),
    ("timm/vit_base_patch16_224.dino", "vit_base_patch16_224", 85_798_656, 224, 768),
    ("openai/clip-vit-base-patch32", "ViT-B-32", 87_849_216, 224, 512),
    ("acme/simclr-resnet18", "resnet(basic, width 64)", 11_168_832, 32, 512),
    ("lab/byol-convnext-tiny", "convnext_tiny", 27_820_128, 224, 768),
    ("acme/narrow-encoder", "resnet(basic, width 16)", 307_536, 32, 128),
)


def reports(count: int) -> Iterator[Report]:
    """Yield reports as they might be: two in a hundred fail, three have no verdict."""
    luck = random.Random(0)
    for number in range(count):
        name, architecture, parameters, side, width = luck.choice(KINDS)
        path = f"hf://{name}-{number:04d}"
        fate = luck.random()
        if fate < 0.015:
            yield Report.unreadable(path, "no known architecture fits the weights; name it: --arch")
            continue
        model = {
            **{"path": path, "sha256": f"{number:064x}", "architecture": architecture},
            **{"provenance": "config.json", "notes": [], "parameters": parameters},
            **{"image_size": side, "embedding_dim": width},
        }
        images = {"source": "procedural", "count": 352, "unreadable": 0}
        versions = {"encodercheck": "0.1.0", "torch": "2.6.0"}
        found = tuple(findings(luck, fate))
        seconds = luck.lognormvariate(3.2 if side < 100 else 4.4, 0.5)
        yield Report(model, images, found, 0, "cuda:0", versions, seconds)


def findings(luck: random.Random, fate: float) -> Iterator[Finding]:
    """Yield what the checks might say of one model."""
    for id_, limit in LIMITS.items():
        outcome, values = Outcome.PASSED, (luck.uniform(0.02, 1), luck.uniform(0.3, 0.95) * limit)
        if fate > 0.98 and (id_ == "EC202" or (id_ == "EC102" and luck.random() < 0.4)):
            outcome, values = (
                Outcome.FAILED,
                (10 ** -luck.uniform(3, 9), luck.uniform(0.96, 0.9995)),
            )
        if 0.015 < fate < 0.03 or (fate < 0.07 and id_ == "EC301"):
            message = "bring images of the kind that the encoder was trained on"
            yield Finding(id_, "check", "critical", Outcome.INCONCLUSIVE, message)
            continue
        chance, value = values
        measured = (
            Measurement("p_value", chance),
            Measurement("gain", value, limit, Direction.AT_MOST),
        )
        yield Finding(id_, "check", "critical", outcome, measurements=measured)
