"""From MODEL to a plan: which module to build, which tensor goes where, which preprocessing.

In this order: ``--arch``, encodercheck's own metadata, a configuration beside the file, the index
of known towers, and families that can be read off their tensors. Whatever is found is built on the
meta device and believed only if every tensor of it is in the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from encodercheck.errors import AmbiguousArchitecture, ConfigError, LoadError
from encodercheck.preprocessing import Preprocessing
from encodercheck.weights import hf_transformers, identify, index, rivals
from encodercheck.weights.build import Source, sources, split
from encodercheck.weights.checkpoint import Checkpoint
from encodercheck.weights.configs import Declared, declared, named
from encodercheck.weights.files import ModelFiles, locate
from encodercheck.weights.header import located, quoted, reason
from encodercheck.weights.identify import Function
from encodercheck.weights.match import (
    MAX_ENCODERS,
    UNUSED,
    Match,
    check_dtypes,
    is_head,
    match,
    notes_of,
    preferred,
    prefixes_of,
)
from encodercheck.weights.metadata import MAX_IMAGE_SIZE, METADATA, Metadata, read_metadata
from encodercheck.weights.read_resnet import Identified, assumptions, read_resnet
from encodercheck.weights.resnet import ResNet
from encodercheck.weights.rivals import Rival
from encodercheck.weights.spec import KNOWN
from encodercheck.weights.two_towers import TextTower, text_tower

FAMILY = "resnet"
BY_TENSORS = "the index of known towers"


@dataclass(frozen=True)
class Plan:
    """How a model becomes an encoder.

    ``build(on_meta)`` makes the module. ``key_map`` leads from names in the checkpoint to names in
    the module, ``tied`` from names in the module to others there of the same memory. ``rivals`` are
    further encoders in the file, where none was chosen.
    """

    checkpoint: Checkpoint
    build: Callable[[bool], nn.Module]
    key_map: Mapping[str, str]
    tied: Mapping[str, str]
    architecture: str
    found_by: str
    notes: tuple[str, ...]
    preprocessing: Preprocessing
    text_tower: TextTower | None = None
    rivals: tuple[Rival, ...] = ()


def plan(
    model: str | Path,
    *,
    arch: str | None = None,
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    tower: str | None = None,
) -> Plan:
    """Find out what a model is, without reading its weights.

    ``tower`` is the prefix of the encoder that is meant, where the file holds several.

    Raises:
        LoadError: the files cannot be read, fit nothing, or hold no image encoder.
        AmbiguousArchitecture: architectures that compute different features fit.
        ConfigError: an argument cannot work.
    """
    check_preprocessing(image_size, mean, std)
    files = locate(model)
    checkpoint = files.open()
    metadata = read_metadata(checkpoint)
    if not checkpoint.tensors:
        raise LoadError(f"{located(checkpoint.path)}: holds no tensors; save the weights again")
    if tower is not None:
        checkpoint = checkpoint.under(tower)
    if arch is not None:
        found = _told(checkpoint, arch, metadata)
    elif metadata.spec is not None:
        found = _resnet(checkpoint, read_resnet(checkpoint, metadata))
    elif metadata.arch is not None:
        found = _named(checkpoint, metadata.arch, metadata)
    else:
        found = _declared(checkpoint, files, metadata) or _recognised(checkpoint, metadata)
    others = rivals.find(found.checkpoint, found.key_map, copies_only=arch is not None)
    return replace(
        found,
        preprocessing=overridden(found.preprocessing, image_size, mean, std),
        text_tower=text_tower(found.checkpoint, set(found.key_map)),
        notes=(*files.notes, *found.notes),
        rivals=() if tower is not None and checkpoint.tower == "" else others,
    )


def _told(checkpoint: Checkpoint, arch: str, metadata: Metadata) -> Plan:
    """Plan with what the user says it is."""
    name, options = (arch, {}) if ":" in arch.partition(",")[0] else split(arch)
    if name == FAMILY:
        return _resnet(checkpoint, read_resnet(checkpoint, metadata, options))
    own = _own_resnet(checkpoint, arch, metadata)
    if own is not None:
        return replace(own, found_by="--arch")
    closest: Match | None = None
    for source in _with_sizes(checkpoint, arch):
        for view in identify.views(checkpoint):
            # Who names the encoder says that what lies beside it is none of it.
            found = fitted(view, source, metadata, found_by="--arch", lenient=True)
            if isinstance(found, Plan):
                return found
            if closest is None or found.faults < closest.faults:
                closest = found
    assert closest is not None  # sources() yields or raises
    raise LoadError(
        f"--arch {quoted(arch)} does not fit {located(checkpoint.path)}: {closest.describe()}; "
        f"{_way_out(checkpoint, metadata)}"
    )


def _named(checkpoint: Checkpoint, arch: str, metadata: Metadata) -> Plan:
    """Plan with what the file's own metadata say it is."""
    try:
        source = named(checkpoint.path, arch)
        found = fitted(checkpoint, source, metadata, found_by=METADATA)
    except ConfigError as error:
        raise LoadError(
            f"{located(checkpoint.path)}: its metadata names the model: {error}"
        ) from error
    if isinstance(found, Plan):
        return found
    raise LoadError(
        f"{located(checkpoint.path)}: its metadata says {quoted(arch)}, which does not fit: "
        f"{found.describe()}; pass --arch"
    )


def _declared(checkpoint: Checkpoint, files: ModelFiles, metadata: Metadata) -> Plan | None:
    """Plan with what a configuration says it is; None where there is none.

    Raises:
        LoadError: no configuration fits the file.
    """
    misfit: tuple[Declared, Match] | None = None
    checkpoint = hf_transformers.mended(checkpoint)
    for said in declared(files.configs, checkpoint):
        try:
            found = fitted(
                checkpoint, said.source, metadata, found_by=said.found_by, heads=said.heads
            )
        except ConfigError as error:
            raise LoadError(
                f"{located(checkpoint.path)}: {said.found_by} beside it: {error}"
            ) from error
        if isinstance(found, Plan):
            return found
        misfit = misfit or (said, found)
    if misfit is None:
        return None
    said, closest = misfit
    raise LoadError(
        f"{located(checkpoint.path)}: {said.found_by} beside it says {quoted(said.source.name)}, "
        f"which does not fit: {closest.describe()}; pass --arch"
    )


def _recognised(checkpoint: Checkpoint, metadata: Metadata) -> Plan:
    """Plan with what the tensors alone say.

    Raises:
        AmbiguousArchitecture: they fit several architectures that compute different features.
        UnknownArchitecture: they fit none that is known.
    """
    for view in identify.views(checkpoint):
        functions = identify.functions(view)
        if len(functions) > 1:
            raise identify.ambiguous(view, functions)
        if functions:
            return _verified(view, functions[0], metadata)
    return _resnet(checkpoint, identify.by_family(checkpoint, metadata))


def _verified(checkpoint: Checkpoint, function: Function, metadata: Metadata) -> Plan:
    """Build a tower of the function that is installed, and believe it if it fits."""
    absent: ConfigError | None = None
    for hit in function.hits:
        own = _own_resnet(checkpoint, hit.arch, metadata)
        if own is not None:
            return replace(own, found_by=BY_TENSORS, notes=(*_also(function), *own.notes))
        try:
            source = next(sources(hit.arch))
            found = fitted(checkpoint, source, metadata, found_by=BY_TENSORS, heads=hit.entry.heads)
        except ConfigError as error:
            absent = absent or error
            continue
        if isinstance(found, Plan):
            others = _normalisations(function.hits, found.preprocessing)
            return replace(found, notes=(*_also(function), *others, *found.notes))
    why = f"{absent}" if absent else "the installed library builds something else by that name"
    raise LoadError(
        f"{located(checkpoint.path)}: its tensors are those of {function.archs[0]}, but {why}"
    )


def _own_resnet(checkpoint: Checkpoint, arch: str, metadata: Metadata) -> Plan | None:
    """Plan with our own blocks for one of torchvision's ResNets, where the file holds it.

    They compute what torchvision's do, and to import torchvision takes as long as torch.
    """
    name = arch.removeprefix("torchvision:")
    if name not in KNOWN.values():
        return None
    try:
        found = read_resnet(checkpoint, replace(metadata, spec=None))
    except LoadError:
        return None
    if str(found.spec) != name:
        return None
    made = _resnet(checkpoint, found)
    source = f"torchvision's {name}"
    preprocessing = replace(found.preprocessing, source=source)
    # The name settles what no tensor shows.
    notes = tuple(note for note in made.notes if note not in assumptions(found.spec))
    return replace(
        made, architecture=f"torchvision:{name}", preprocessing=preprocessing, notes=notes
    )


def _resnet(checkpoint: Checkpoint, found: Identified) -> Plan:
    def build(on_meta: bool) -> nn.Module:
        with torch.random.fork_rng(devices=[]), torch.device("meta" if on_meta else "cpu"):
            return ResNet(found.spec)

    return Plan(
        checkpoint=checkpoint,
        build=build,
        key_map=found.key_map,
        tied={},
        architecture=str(found.spec),
        found_by=found.found_by,
        notes=found.notes,
        preprocessing=found.preprocessing,
    )


def fitted(
    checkpoint: Checkpoint,
    source: Source,
    metadata: Metadata,
    *,
    found_by: str,
    heads: Container[str] = (),
    lenient: bool = False,
) -> Plan | Match:
    """Build a source on the meta device; return the plan if it fits, else what does not.

    Raises:
        AmbiguousArchitecture: several encoders fit, and nothing says which to take.
        ConfigError: the source cannot be built.
    """
    module = source.build()
    found, others = _matched(source.name, module, checkpoint, heads, lenient)
    absent = _absent_heads(module, found) if source.loose_head else ()
    if absent:
        _remove(module, absent)
        found, others = _matched(source.name, module, checkpoint, heads, lenient)
    if not found.complete:
        return found
    state = module.state_dict()
    floats = [name for name, inner in found.key_map.items() if state[inner].is_floating_point()]
    check_dtypes(checkpoint, floats)

    def build(on_meta: bool) -> nn.Module:
        if on_meta:
            return module
        fresh = source.build(on_meta=False)
        _remove(fresh, absent)
        return fresh

    preprocessing = source.describe(module) or Preprocessing()
    return Plan(
        checkpoint=checkpoint,
        build=build,
        key_map=found.key_map,
        tied=found.tied,
        architecture=source.name,
        found_by=found_by,
        notes=(*source.notes, *_absent_note(absent), *notes_of(found, others)),
        preprocessing=preprocessing.replaced(METADATA, **metadata.preprocessing),
    )


def _matched(
    arch: str, module: nn.Module, checkpoint: Checkpoint, heads: Container[str], lenient: bool
) -> tuple[Match, list[str]]:
    """Return the best match, and the prefixes of every encoder in the file that fits as well.

    Raises:
        AmbiguousArchitecture: several fit, and nothing says which to take.
    """
    try:
        state = module.state_dict(keep_vars=True)
        expected = {
            name: tuple(tensor.shape) for name, tensor in state.items() if not name.endswith(UNUSED)
        }
    except Exception as error:
        raise ConfigError(
            f"--arch {quoted(arch)}: its weights cannot be listed: {reason(error)}"
        ) from error
    first: dict[int, str] = {}
    ties = {
        name: kept for name in expected if (kept := first.setdefault(id(state[name]), name)) != name
    }
    prefixes = prefixes_of(expected, checkpoint)[:MAX_ENCODERS]
    matches = {
        prefix: match(
            expected,
            checkpoint,
            prefix,
            others=prefixes,
            heads=heads,
            ties=ties,
            lenient=lenient,
        )
        for prefix in prefixes
    }
    fitting = [prefix for prefix in matches if matches[prefix].complete]
    if fitting:
        return matches[preferred(fitting, checkpoint)], fitting
    return min(matches.values(), key=lambda found: found.faults), []


def _with_sizes(checkpoint: Checkpoint, arch: str) -> Iterable[Source]:
    """Yield the sources of ``arch``, then those for the image size that the file was made for."""
    found = list(sources(arch))
    yield from found
    for source in found:
        yield from _resized(checkpoint, source.name)


def _resized(checkpoint: Checkpoint, arch: str) -> list[Source]:
    """Return the sources of an architecture for another image size, where the file has one."""
    library = arch.partition(":")[0]
    if library not in index.SIZE_OPTIONS or "," in arch:
        return []
    hits = index.load().find(identify.shapes_of(checkpoint))
    specs = {hit.arch for hit in hits if hit.entry.arch == arch and hit.resized}
    return [source for spec in sorted(specs) for source in sources(spec)]


def _absent_heads(module: nn.Module, found: Match) -> tuple[str, ...]:
    """Return the module's heads of which the file holds nothing."""
    missing = set(found.missing)
    absent = []
    for name, child in module.named_children():
        needed = {f"{name}.{key}" for key in child.state_dict() if not key.endswith(UNUSED)}
        if is_head(name) and needed and needed <= missing:
            absent.append(name)
    return tuple(absent)


def _remove(module: nn.Module, names: Iterable[str]) -> None:
    for name in names:
        setattr(module, name, nn.Identity())


def _absent_note(names: Sequence[str]) -> tuple[str, ...]:
    return (f"not in the file, so left out: {', '.join(names)}",) if names else ()


def _also(function: Function) -> tuple[str, ...]:
    """Name the other towers of the same function, and of other preprocessing perhaps."""
    others = function.archs[1:]
    if not others:
        return ()
    sizes = (
        {hit.entry.image_size for hit in function.hits} if not function.hits[0].resized else set()
    )
    text = f"computes the same as {', '.join(others[:4])}"
    more = f" and {len(others) - 4} more" if len(others) > 4 else ""
    sized = (
        f", which come at {', '.join(map(str, sorted(sizes)))} px: --image-size settles it"
        if len(sizes) > 1
        else ""
    )
    return (f"{text}{more}{sized}",)


def _normalisations(hits: Sequence[index.Hit], used: Preprocessing) -> tuple[str, ...]:
    """Say with which other means and standard deviations weights of these towers are published."""
    known = {norm: hit.arch for hit in reversed(hits) for norm in hit.entry.normalisations}
    return tuple(
        f"weights of {arch} are also published for mean {_triple(mean)} and std {_triple(std)}: "
        "pass --mean and --std if it is one of them"
        for (mean, std), arch in known.items()
        if (mean, std) != (used.mean, used.std)
    )


def _triple(values: Sequence[float]) -> str:
    return ",".join(f"{value:.4g}" for value in values)


def _way_out(checkpoint: Checkpoint, metadata: Metadata) -> str:
    """Say how a file might be read that does not fit ``--arch``."""
    try:
        if metadata.spec is not None:
            return f"without --arch it reads as {read_resnet(checkpoint, metadata).spec}"
        return f"without --arch it reads as {_recognised(checkpoint, metadata).architecture}"
    except AmbiguousArchitecture as error:
        if error.candidates:
            return f"it would fit --arch {' or --arch '.join(error.candidates)}"
    except (LoadError, ConfigError):
        pass
    return "pass the --arch that it was trained with"


def overridden(
    preprocessing: Preprocessing,
    image_size: int | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Preprocessing:
    """Return the preprocessing with what the command line says of it going first."""
    for name, value in (("image_size", image_size), ("mean", mean), ("std", std)):
        if value is not None:
            chosen = value if isinstance(value, int) else tuple(map(float, value))
            preprocessing = preprocessing.replaced(f"--{name.replace('_', '-')}", **{name: chosen})
    return preprocessing


def check_preprocessing(
    image_size: int | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    """See that what the command line says of the preprocessing can work.

    Raises:
        ConfigError: it cannot.
    """
    if image_size is not None and not 1 <= image_size <= MAX_IMAGE_SIZE:
        raise ConfigError(f"--image-size {image_size}: must lie between 1 and {MAX_IMAGE_SIZE}")
    for option, values in (("--mean", mean), ("--std", std)):
        if values is None:
            continue
        if len(values) != 3 or not all(math.isfinite(value) for value in values):
            raise ConfigError(f"{option}: must be three numbers, one per channel")
        if option == "--std" and min(values) <= 0:
            raise ConfigError("--std: must be positive")
