"""How pixels in [0, 1] become an encoder's input, and where each part of that came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Triple = tuple[float, float, float]

IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10: tuple[Triple, Triple] = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))

PARTS = ("image_size", "mean", "std")


@dataclass(frozen=True)
class Preprocessing:
    """How pixels in [0, 1] become the encoder's input.

    >>> chosen = Preprocessing(source="timm").replaced("--image-size", image_size=64)
    >>> chosen.summary()
    'image_size: --image-size; mean, std: timm'

    ``image_size`` is the side of the square input in pixels; ``mean`` and ``std`` are per channel,
    in the same [0, 1] units as the pixels. ``source`` says where the values came from, ``parts``
    where those came from that have another source.
    """

    image_size: int = 224
    mean: Triple = IMAGENET[0]
    std: Triple = IMAGENET[1]
    source: str = "assumed: ImageNet"
    parts: Mapping[str, str] = field(default_factory=dict)

    def source_of(self, part: str) -> str:
        """Return where one of ``image_size``, ``mean`` and ``std`` came from."""
        return self.parts.get(part, self.source)

    def replaced(self, source: str, **values: Any) -> Preprocessing:
        """Return the preprocessing with those parts replaced whose values are not None."""
        known = {name: value for name, value in values.items() if value is not None}
        return replace(self, **known, parts={**self.parts, **dict.fromkeys(known, source)})

    def summary(self) -> str:
        """Return the sources on one line, parts of one source together."""
        grouped: dict[str, list[str]] = {}
        for part in PARTS:
            grouped.setdefault(self.source_of(part), []).append(part)
        if len(grouped) == 1:
            return next(iter(grouped))
        return "; ".join(f"{', '.join(parts)}: {source}" for source, parts in grouped.items())
