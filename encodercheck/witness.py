"""The witness of a failed check: the trigger, what it does, and how to see it again."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from encodercheck.cache import atomic_write_bytes
from encodercheck.errors import LoadError, OutputError, WitnessError
from encodercheck.trigger import Trigger
from encodercheck.weights.header import read_header

if TYPE_CHECKING:
    from PIL import Image

FORMAT = "encodercheck.witness/1"
FILE_NAME = "witness.safetensors"
PICTURE_NAME = "witness.png"
TILE = 128
EXAMPLES = 6


@dataclass(frozen=True)
class Witness:
    """A trigger and what it was measured to do to images that it was not searched on.

    ``cosine`` is the mean pairwise cosine of ``count`` images with the trigger on them, ``base``
    that of the same images without; ``examples`` (K, 3, H, W) in [0, 1] are some of the images.
    """

    trigger: Trigger
    cosine: float
    base: float
    count: int
    examples: Tensor | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    """Which check, model and seed the witness comes from."""

    @property
    def gain(self) -> float:
        """Which part of the way from the base to 1 the trigger takes the mean cosine."""
        return (self.cosine - self.base) / (1 - self.base)

    @property
    def seed(self) -> int:
        """The seed of the scan that found the trigger."""
        return int(self.origin.get("seed", 0))

    def found_on(self, sha256: str) -> bool:
        """Tell whether the trigger was found on the model file with this hash."""
        return bool(self.origin.get("model_sha256") == sha256)

    def sentence(self) -> str:
        """Say where the trigger sits and what it does, in one line."""
        return (
            f"{self.trigger.describe()}, makes {self.count} unseen images {self.cosine:.3f} alike; "
            f"unstamped {self.base:.2f}"
        )

    def save(self, directory: Path, **origin: Any) -> Path:
        """Write ``witness.safetensors`` and ``witness.png`` into ``directory``; return the former.

        Raises:
            OutputError: the directory cannot be written to.
        """
        facts = {
            "cosine": self.cosine,
            "base": self.base,
            "count": self.count,
            "additive": self.trigger.additive,
            "name": self.trigger.name,
            "origin": {**self.origin, **origin},
        }
        tensors = {
            "mask": self.trigger.mask.float().contiguous().cpu(),
            "pattern": self.trigger.pattern.float().contiguous().cpu(),
        }
        metadata = {"format": FORMAT, "encodercheck": json.dumps(facts, sort_keys=True)}
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{directory}: cannot be created ({error.strerror})") from error
        path = directory / FILE_NAME
        atomic_write_bytes(path, safetensors.torch.save(tensors, metadata))
        buffer = io.BytesIO()
        picture(self).save(buffer, format="PNG", optimize=True)
        atomic_write_bytes(directory / PICTURE_NAME, buffer.getvalue())
        return path

    @staticmethod
    def load(path: Path) -> Witness:
        """Read a witness that :meth:`save` wrote.

        Raises:
            WitnessError: the file is missing, damaged, or no witness.
        """
        try:
            metadata = read_header(path).metadata
            if metadata.get("format") != FORMAT:
                raise WitnessError(f"{path}: not a witness that encodercheck saved")
            facts = json.loads(metadata["encodercheck"])
            tensors = safetensors.torch.load_file(path)
            trigger = Trigger(
                tensors["mask"],
                tensors["pattern"],
                additive=bool(facts["additive"]),
                name=str(facts["name"]),
            )
            return Witness(
                trigger,
                cosine=float(facts["cosine"]),
                base=float(facts["base"]),
                count=int(facts["count"]),
                origin=dict(facts["origin"]),
            )
        except LoadError as error:
            raise WitnessError(str(error)) from error
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise WitnessError(
                f"{path}: a damaged witness ({error}); scan the model again"
            ) from error


def picture(witness: Witness) -> Image.Image:
    """Draw mask, pattern and stamped images side by side, captioned, each 128 pixels or larger."""
    from PIL import Image, ImageDraw

    trigger = witness.trigger
    shown = trigger.pattern / 2 + 0.5 if trigger.additive else trigger.pattern * trigger.mask
    tiles = [("mask", trigger.mask.expand(3, -1, -1)), ("pattern", shown)]
    if witness.examples is not None:
        images = witness.examples[:EXAMPLES].cpu()
        tiles += [("image", images[0])]
        tiles += [("stamped", image) for image in trigger.stamp(images)]
    scale = max(1, TILE // trigger.size[0])
    side, gap, caption = scale * trigger.size[0], 8, 16
    canvas = Image.new("RGB", (gap + len(tiles) * (side + gap), side + gap + 2 * caption), "white")
    draw = ImageDraw.Draw(canvas)
    for i, (label, pixels) in enumerate(tiles):
        left = gap + i * (side + gap)
        draw.text((left, 2), label, fill="black")
        canvas.paste(tile(pixels, side), (left, caption))
    draw.text((gap, side + caption + 3), witness.sentence(), fill="black")
    return canvas


def tile(pixels: Tensor, side: int) -> Image.Image:
    """Return pixels (3, H, W) in [0, 1] as a picture of ``side`` x ``side``, enlarged unblurred."""
    from PIL import Image

    values = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(values).resize((side, side), Image.Resampling.NEAREST)
