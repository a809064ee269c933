"""Which tensors of a file are which tensors of an encoder, whatever prefix they wear."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from encodercheck.errors import AmbiguousArchitecture, LoadError
from encodercheck.weights.checkpoint import Checkpoint
from encodercheck.weights.header import listed, located, quoted
from encodercheck.weights.spec import Shape

# The first part of a name that belongs to a classifier, a projector or a loss, not to the encoder.
HEAD = re.compile(
    r"(fc|lin|g|h|mlp)(_?\d+)?"
    r"|(heads?|classifier|classification_head|linear|probe|prototypes?|queue|logits?|temperature"
    r"|criterion|loss|center|proj|pred|contrast|aux)(_?\d+|_\w+)?"
    r"|proj\w+|pred\w+|contrast\w+|auxlogits|aux\d|last_linear"
    # What masked image modelling trains beside the encoder.
    r"|decoder\w*|mask_token",
    re.IGNORECASE,
)
# Of two encoders trained together, the student's is the one that people use.
STUDENT = re.compile(r"(^|_)(student|online|query|q)(_|$)", re.IGNORECASE)
TEACHER = re.compile(r"(^|_)(teacher|target|key|k|momentum|ema)(_|$)", re.IGNORECASE)

FLOATS = frozenset({"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64"})
# What is stored beside narrow weights that mean nothing without it.
SCALE = re.compile(r"(weight|input|activation|output)_scale(_inv)?|scale_(weight|input)")
# Counts batches in training; evaluation does not use it, and files may lack it.
UNUSED = "num_batches_tracked"
MAX_ENCODERS = 16
# Prefixes longer than this are somebody's joke, and would make the search quadratic.
MAX_PREFIX_PARTS = 12


@dataclass(frozen=True)
class Match:
    """How a file fits the tensors that an encoder needs.

    ``key_map`` leads from names in the file to names in the module; ``missing`` and ``unexpected``
    are names, the former in the module and the latter in the file; ``misshapen`` are texts such as
    "conv1.weight is 64x1x7x7, not 64x3x7x7"; ``ignored`` are names in the file that are no part of
    the encoder; ``tied`` leads from names in the module that the file leaves out, because they
    share memory with another, to that other name in the module.
    """

    prefix: str
    key_map: dict[str, str]
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    unexpected: tuple[str, ...]
    ignored: tuple[str, ...]
    tied: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Tell whether every tensor of the encoder is there, and nothing of another one."""
        return not (self.missing or self.misshapen or self.unexpected)

    @property
    def faults(self) -> int:
        """The number of tensors that do not fit."""
        return len(self.missing) + len(self.misshapen) + len(self.unexpected)

    def describe(self) -> str:
        """Say what does not fit, as "3 tensors missing (a, b, c), 1 of another shape (...)"."""
        texts = []
        if self.missing:
            texts.append(f"{_tensors(self.missing)} missing ({listed(self.missing)})")
        if self.misshapen:
            texts.append(f"{_tensors(self.misshapen)} of another shape ({listed(self.misshapen)})")
        if self.unexpected:
            texts.append(f"{_tensors(self.unexpected)} unexpected ({listed(self.unexpected)})")
        return ", ".join(texts)


def match(
    expected: Mapping[str, Shape],
    checkpoint: Checkpoint,
    prefix: str,
    rename: Callable[[str], str | None] = lambda name: name,
    others: Iterable[str] = (),
    heads: Container[str] = (),
    ties: Mapping[str, str] = MappingProxyType({}),
    lenient: bool = False,
) -> Match:
    """Compare the tensors under ``prefix`` with the ``expected`` ones.

    ``rename`` leads from a name in the file, prefix stripped, to the name in the module; None
    says that it belongs to a head. ``others`` are the prefixes of further encoders in the file:
    what lies under them is not part of this one. ``heads`` are names that are known to belong to a
    head, whatever they look like; ``ties`` lead from names in the module to others of the same
    memory. ``lenient`` takes every module beside those of the encoder for a head.
    """
    apart = tuple(other for other in others if other != prefix and other.startswith(prefix))
    own_parts = {name.partition(".")[0] for name in expected}
    key_map: dict[str, str] = {}
    found: set[str] = set()
    misshapen, unexpected, ignored = [], [], []
    for name, tensor in checkpoint.tensors.items():
        if name.endswith(UNUSED):
            continue
        inside = name.startswith(prefix) and not (apart and name.startswith(apart))
        inner = rename(name[len(prefix) :]) if inside else None
        if inner is None or (
            inner not in expected
            and (
                inner in heads
                or is_head(inner)
                or is_scale(inner)
                or (lenient and inner.partition(".")[0] not in own_parts)
            )
        ):
            ignored.append(name)
        elif inner not in expected or inner in found:
            unexpected.append(name)
        else:
            found.add(inner)
            key_map[name] = inner
            if tensor.shape != expected[inner]:
                misshapen.append(f"{name} is {_by(tensor.shape)}, not {_by(expected[inner])}")
    absent = [name for name in expected if name not in found]
    # Whichever name of a shared tensor the file has.
    held = {ties.get(name, name): name for name in found}
    aliases = {name: held[ties.get(name, name)] for name in absent if ties.get(name, name) in held}
    aliases |= _aliases(checkpoint, prefix, rename)
    tied = {
        name: aliases[name]
        for name in absent
        if aliases.get(name) in found and expected[name] == expected[aliases[name]]
    }
    return Match(
        prefix,
        key_map,
        tuple(name for name in absent if name not in tied),
        tuple(misshapen),
        tuple(unexpected),
        tuple(ignored),
        tied,
    )


def _aliases(
    checkpoint: Checkpoint, prefix: str, rename: Callable[[str], str | None]
) -> dict[str, str]:
    """Return the file's own aliases under a prefix, in the module's names."""
    found = {}
    for name, kept in checkpoint.aliases.items():
        if name.startswith(prefix) and kept.startswith(prefix):
            inner, other = rename(name[len(prefix) :]), rename(kept[len(prefix) :])
            if inner is not None and other is not None:
                found[inner] = other
    return found


def is_head(name: str) -> bool:
    """Tell whether a name, prefix stripped, belongs to a head rather than to the encoder."""
    return HEAD.fullmatch(name.split(".", 1)[0]) is not None


def is_scale(name: str) -> bool:
    """Tell whether a tensor scales quantised weights."""
    return SCALE.fullmatch(name.rpartition(".")[2]) is not None


def prefixes_of(expected: Iterable[str], checkpoint: Checkpoint) -> list[str]:
    """Return the prefixes under which the most of the ``expected`` names occur, or [""]."""
    wanted = set(expected)
    hits: Counter[str] = Counter()
    for name in checkpoint.tensors:
        prefix, rest = "", name
        for _ in range(MAX_PREFIX_PARTS):
            if rest in wanted:
                hits[prefix] += 1
            part, dot, rest = rest.partition(".")
            if not dot:
                break
            prefix += part + dot
    most = max(hits.values(), default=0)
    return sorted(prefix for prefix, count in hits.items() if count == most) or [""]


def preferred(prefixes: Iterable[str], checkpoint: Checkpoint) -> str:
    """Return the prefix of the student or query encoder, else the plain one's, else the teacher's.

    The one that was asked for goes before them all.

    Raises:
        AmbiguousArchitecture: several encoders have the same standing.
    """
    prefixes = list(prefixes)
    if checkpoint.tower in prefixes:
        return str(checkpoint.tower)
    ranked = sorted((_rank(prefix), len(prefix), prefix) for prefix in prefixes)
    best = [prefix for rank, _, prefix in ranked if rank == ranked[0][0]]
    if len(best) > 1:
        raise AmbiguousArchitecture(
            f"{located(checkpoint.path)}: holds {len(best)} encoders of equal standing "
            f"({listed(best)}); say which one is meant with --tower {quoted(best[0] or '.')}"
        )
    return best[0]


def notes_of(found: Match, others: Iterable[str]) -> tuple[str, ...]:
    """Say which of several encoders was taken and what was left out, a line each."""
    notes = []
    passed = [f"'{quoted(prefix)}'" for prefix in others if prefix != found.prefix]
    if passed:
        notes.append(
            f"several encoders in the file: took '{quoted(found.prefix)}', not {', '.join(passed)}"
        )
    elif found.prefix:
        notes.append(f"stripped the prefix '{quoted(found.prefix)}'")
    groups = Counter(_group(name, found.prefix) for name in found.ignored)
    if groups:
        texts = [f"{name} ({count})" for name, count in groups.most_common()]
        notes.append(f"ignored {_tensors(found.ignored)} outside the encoder: {listed(texts, 4)}")
    return tuple(notes)


def check_dtypes(checkpoint: Checkpoint, names: Iterable[str]) -> None:
    """Refuse weights that do not convert to float32.

    Raises:
        LoadError: a tensor holds integers, floats of fewer than 8 bits, or such as are to be scaled
            by another tensor.
    """
    scales = {name.rpartition(".")[0] for name in checkpoint.tensors if is_scale(name)}
    for name in names:
        dtype = checkpoint.tensors[name].dtype
        if dtype.startswith("F8") and name.rpartition(".")[0] in scales:
            raise LoadError(
                f"{located(checkpoint.path)}: tensor '{quoted(name)}' is quantised ({dtype} with "
                "scales); save the weights as bfloat16 or float32"
            )
        if dtype in FLOATS:
            continue
        what = {"F": "narrow float", "C": "complex"}.get(dtype[0], "integer")
        raise LoadError(
            f"{located(checkpoint.path)}: tensor '{quoted(name)}' holds {what} weights ({dtype}), "
            "which are not supported yet; save the weights as float32, float16 or bfloat16"
        )


def _rank(prefix: str) -> int:
    parts = prefix.split(".")
    if any(TEACHER.search(part) for part in parts):
        return 2
    return 0 if any(STUDENT.search(part) for part in parts) else 1


def _group(name: str, prefix: str) -> str:
    inside = prefix if name.startswith(prefix) else ""
    first, dot, _ = name[len(inside) :].partition(".")
    return f"{inside}{first}{'.*' if dot else ''}"


def _tensors(names: tuple[str, ...]) -> str:
    return f"{len(names)} tensor{'' if len(names) == 1 else 's'}"


def _by(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"
