"""What a ResNet of any width and depth is made of, and the tensors that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

Shape = tuple[int, ...]

EXPANSION = {"basic": 1, "bottleneck": 4}
NAMINGS = ("torchvision", "sequential")
STEM_KERNELS = (3, 7)
MAX_STAGES = 8
MAX_BLOCKS = 512
MAX_WIDTH = 2**16

# (block, depths, groups, base width) at the usual widths of 64, 128, 256 and 512.
KNOWN: Mapping[tuple[str, tuple[int, ...], int, int], str] = {
    ("basic", (2, 2, 2, 2), 1, 64): "resnet18",
    ("basic", (3, 4, 6, 3), 1, 64): "resnet34",
    ("bottleneck", (3, 4, 6, 3), 1, 64): "resnet50",
    ("bottleneck", (3, 4, 23, 3), 1, 64): "resnet101",
    ("bottleneck", (3, 8, 36, 3), 1, 64): "resnet152",
    ("bottleneck", (3, 4, 6, 3), 32, 4): "resnext50_32x4d",
    ("bottleneck", (3, 4, 23, 3), 32, 8): "resnext101_32x8d",
    ("bottleneck", (3, 4, 23, 3), 64, 4): "resnext101_64x4d",
    ("bottleneck", (3, 4, 6, 3), 1, 128): "wide_resnet50_2",
    ("bottleneck", (3, 4, 23, 3), 1, 128): "wide_resnet101_2",
}


@dataclass(frozen=True)
class ResNetSpec:
    """A ResNet without its classification head.

    >>> str(ResNetSpec("bottleneck", (3, 4, 6, 3), (64, 128, 256, 512)))
    'resnet50'
    >>> str(ResNetSpec("basic", (1, 1, 1, 1), (16, 32, 64, 128), stem_kernel=3, stem_stride=2,
    ...                maxpool=False))
    'resnet(basic, width 16, depths 1-1-1-1, 3x3 stem stride 2)'

    ``widths`` are torchvision's planes per stage: the output of a stage has four times as many
    channels with bottleneck blocks. ``stem_width`` 0 stands for the first of them, ``strides`` ()
    for 1 and then 2. ``groups`` and ``base_width`` are torchvision's (ResNeXt, wide ResNet).
    ``naming`` says how the tensors are called in the file and does not change the function.

    Raises:
        ValueError: the fields contradict each other, or are out of range.
    """

    block: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem_width: int = 0
    strides: tuple[int, ...] = ()
    stem_kernel: int = 7
    stem_stride: int = 2
    maxpool: bool = True
    groups: int = 1
    base_width: int = 64
    naming: str = "torchvision"

    def __post_init__(self) -> None:
        """Fill in the defaults that depend on other fields, and refuse nonsense."""
        stages = len(self.depths)
        object.__setattr__(self, "stem_width", self.stem_width or (self.widths or (0,))[0])
        object.__setattr__(self, "strides", self.strides or (1, *(2,) * (stages - 1)))
        for fault, found in (
            (f"block is none of {', '.join(EXPANSION)}", self.block not in EXPANSION),
            (f"naming is none of {', '.join(NAMINGS)}", self.naming not in NAMINGS),
            (f"depths are not 1 to {MAX_STAGES} stages", not 1 <= stages <= MAX_STAGES),
            ("widths, depths and strides differ in length", len(self.widths) != stages),
            ("widths, depths and strides differ in length", len(self.strides) != stages),
            ("a depth is out of range", not _within(self.depths, MAX_BLOCKS)),
            ("a width is out of range", not _within((*self.widths, self.stem_width), MAX_WIDTH)),
            ("a stride is not 1 or 2", not _within((*self.strides, self.stem_stride), 2)),
            ("the stem is not 3x3 or 7x7", self.stem_kernel not in STEM_KERNELS),
            ("groups or base_width is out of range", not _within(self.cardinality, MAX_WIDTH)),
        ):
            if found:
                raise ValueError(fault)
        if self.block == "basic" and self.cardinality != (1, 64):
            raise ValueError("basic blocks have one group and a base width of 64")
        if not _within([self.inner_width(width) for width in self.widths], MAX_WIDTH):
            raise ValueError("the width inside a block is out of range")

    @property
    def width(self) -> int:
        """The width of the first stage."""
        return self.widths[0]

    @property
    def expansion(self) -> int:
        """Channels that a block puts out, per unit of width."""
        return EXPANSION[self.block]

    @property
    def embedding_dim(self) -> int:
        """D of the (N, D) embeddings."""
        return self.widths[-1] * self.expansion

    @property
    def cardinality(self) -> tuple[int, int]:
        """Groups, and base width per group."""
        return self.groups, self.base_width

    def inner_width(self, width: int) -> int:
        """Return the channels of the 3x3 convolutions in a stage of this width."""
        if self.block == "basic":
            return width
        # As torchvision rounds it.
        return int(width * (self.base_width / 64.0)) * self.groups

    def has_downsample(self, stage: int) -> bool:
        """Tell whether a stage, counted from 0, begins with a convolution on the shortcut."""
        return self.strides[stage] != 1 or self.channels_into(stage) != self.channels_of(stage)

    def channels_of(self, stage: int) -> int:
        """Return the channels that a stage, counted from 0, puts out."""
        return self.widths[stage] * self.expansion

    def channels_into(self, stage: int) -> int:
        """Return the channels that a stage, counted from 0, takes in."""
        return self.channels_of(stage - 1) if stage else self.stem_width

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ResNetSpec:
        """Return the spec that :meth:`to_dict` wrote; what it left out keeps its default.

        Raises:
            ValueError: ``values`` come from somewhere else.
        """
        if not isinstance(values, Mapping):
            raise ValueError("the architecture is not an object")
        known = {field.name: field for field in fields(cls)}
        checked: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise ValueError(f"the architecture has an unknown field {name!r:.40}")
            checked[name] = _checked(name, str(known[name].type), value)
        for name in ("block", "depths", "widths"):
            if name not in checked:
                raise ValueError(f"the architecture lacks {name}")
        return cls(**checked)

    def __str__(self) -> str:
        """Return a short readable name."""
        usual = self.widths == (64, 128, 256, 512) and self.stem_width == 64
        name = KNOWN.get((self.block, self.depths, *self.cardinality)) if usual else None
        details = [] if name else [self.block, *self._sizes()]
        details += self._departures()
        return f"{name or 'resnet'}({', '.join(details)})" if details else str(name)

    def _sizes(self) -> list[str]:
        doubling = tuple(self.width * 2**stage for stage in range(len(self.widths)))
        several = f"widths {_dash(self.widths)}"
        sizes = [f"width {self.width}" if self.widths == doubling else several]
        sizes.append(f"depths {_dash(self.depths)}")
        if self.stem_width != self.width:
            sizes.append(f"stem width {self.stem_width}")
        if self.cardinality != (1, 64):
            sizes.append(f"{self.groups} groups of base width {self.base_width}")
        return sizes

    def _departures(self) -> list[str]:
        """Name what differs from a 7x7 stem with stride 2 and max-pool, and strides 1-2-2-2."""
        found = []
        if (self.stem_kernel, self.stem_stride) != (7, 2):
            found.append(f"{self.stem_kernel}x{self.stem_kernel} stem stride {self.stem_stride}")
        if self.maxpool != (self.stem_kernel == 7):
            found.append("max-pool" if self.maxpool else "no max-pool")
        if self.strides != (1, *(2,) * (len(self.strides) - 1)):
            found.append(f"strides {_dash(self.strides)}")
        return found


def expected_shapes(spec: ResNetSpec) -> dict[str, Shape]:
    """Return every tensor of the encoder under its torchvision name, with its shape.

    ``num_batches_tracked`` is left out: evaluation does not use it.
    """
    shapes: dict[str, Shape] = {}
    kernel = spec.stem_kernel
    shapes["conv1.weight"] = (spec.stem_width, 3, kernel, kernel)
    shapes.update(_norm("bn1", spec.stem_width))
    for stage, depth in enumerate(spec.depths):
        for index in range(depth):
            block = f"layer{stage + 1}.{index}"
            inputs = spec.channels_of(stage) if index else spec.channels_into(stage)
            for name, shape in _block(spec, spec.widths[stage], inputs):
                shapes[f"{block}.{name}"] = shape
        if spec.has_downsample(stage):
            shortcut = f"layer{stage + 1}.0.downsample"
            outputs = spec.channels_of(stage)
            shapes[f"{shortcut}.0.weight"] = (outputs, spec.channels_into(stage), 1, 1)
            shapes.update(_norm(f"{shortcut}.1", outputs))
    return shapes


def _block(spec: ResNetSpec, width: int, inputs: int) -> Iterator[tuple[str, Shape]]:
    inner = spec.inner_width(width)
    convolutions: tuple[Shape, ...]
    if spec.block == "basic":
        convolutions = (width, inputs, 3, 3), (width, width, 3, 3)
    else:
        convolutions = (
            (inner, inputs, 1, 1),
            (inner, inner // spec.groups, 3, 3),
            (width * spec.expansion, inner, 1, 1),
        )
    for number, shape in enumerate(convolutions, start=1):
        yield f"conv{number}.weight", shape
        yield from _norm(f"bn{number}", shape[0]).items()


def _norm(name: str, channels: int) -> dict[str, Shape]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (channels,) for part in parts}


def _within(values: Any, most: int) -> bool:
    return all(1 <= value <= most for value in values)


def _dash(values: tuple[int, ...]) -> str:
    return "-".join(map(str, values))


def _checked(name: str, kind: str, value: Any) -> Any:
    """Return a JSON value as the field's type, where it has exactly that type."""
    if kind.startswith("tuple"):
        if isinstance(value, list) and all(type(item) is int for item in value):
            return tuple(value)
    elif type(value).__name__ == kind:
        return value
    wanted = "a list of integers" if kind.startswith("tuple") else kind
    raise ValueError(f"the architecture's {name} is not {wanted}")
