"""From ``--arch`` to a module without its classification head, weights still to come.

Nothing is downloaded: only names that a library has registered are built, never its
``hf-hub:`` and ``local-dir:`` schemes, and always without pre-trained weights.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from encodercheck.encoder import Preprocessing
from encodercheck.errors import ConfigError
from encodercheck.weights.header import quoted, reason

LIBRARIES = ("torchvision", "timm", "open_clip")
EXTRAS = {"timm": "timm", "open_clip": "open-clip"}
HEADS = ("fc", "heads", "head", "classifier")

Describe = Callable[[nn.Module], "Preprocessing | None"]


@dataclass(frozen=True)
class Source:
    """One way to build what ``--arch`` names.

    ``own_code`` tells that the module comes from the user's callable and is built as it is, on the
    CPU. ``loose_head`` tells that what is left of a head may go where the file has none.
    """

    name: str
    make: Callable[[], nn.Module]
    describe: Describe = lambda module: None
    notes: tuple[str, ...] = ()
    own_code: bool = False
    loose_head: bool = False

    def build(self, *, on_meta: bool = True) -> nn.Module:
        """Return the module; on the meta device it takes neither time nor memory.

        A module that cannot be built on the meta device is built on the CPU. The global random
        state stays as it was.

        Raises:
            ConfigError: the module cannot be built at all.
        """
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if on_meta and not self.own_code:
                try:
                    with torch.device("meta"):
                        return self.make()
                except Exception:
                    pass  # some models compute with their weights
            try:
                return self.make()
            except ConfigError:
                raise
            except (Exception, SystemExit) as error:
                raise ConfigError(
                    f"--arch {quoted(self.name)}: cannot be built: {reason(error)}"
                ) from error


def build(arch: str) -> tuple[nn.Module, Preprocessing | None]:
    """Build the first module that ``arch`` names, and the preprocessing that goes with it.

    ``arch`` is ``torchvision:NAME``, ``timm:NAME``, ``open_clip:NAME``, a bare NAME that the three
    are asked for in this order, or ``package.module:callable``.

    Raises:
        ConfigError: nothing has that name, its library is not installed, or it cannot be built.
    """
    source = next(sources(arch))
    module = source.build()
    return module, source.describe(module)


def sources(arch: str) -> Iterator[Source]:
    """Yield the ways to build ``arch``, at least one; several libraries may know a bare name.

    Raises:
        ConfigError: nothing has that name, or its library is not installed.
    """
    library, colon, name = arch.partition(":")
    if not colon:
        yield from _bare(arch)
    elif library in LIBRARIES:
        source = _find(library, name)
        if source is None:
            raise ConfigError(f"--arch {quoted(arch)}: {_unknown(name, [library])}")
        yield source
    else:
        yield Source(arch, partial(_call, arch, library, name), own_code=True, loose_head=True)


def _bare(name: str) -> Iterator[Source]:
    asked, absent = [], []
    found = False
    for library in LIBRARIES:
        try:
            source = _find(library, name)
        except _NotInstalledError as error:
            absent.append(str(error))
            continue
        asked.append(library)
        if source is not None:
            found = True
            yield source
    if not found:
        raise ConfigError("; ".join([f"--arch {quoted(name)}: {_unknown(name, asked)}", *absent]))


def _unknown(name: str, libraries: Sequence[str]) -> str:
    names = sorted({known for library in libraries for known in NAMES[library]()})
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "check the name"
    return f"unknown to {', '.join(libraries)}; {hint}"


class _NotInstalledError(ConfigError):
    """A library that ``--arch`` needs is not there."""


def _library(name: str) -> ModuleType:
    try:
        return import_module("torchvision.models" if name == "torchvision" else name)
    except ImportError as error:
        raise _NotInstalledError(
            f"{name} is not installed: pip install encodercheck[{EXTRAS.get(name, name)}]"
        ) from error
    except Exception as error:
        raise _NotInstalledError(f"{name} cannot be imported: {reason(error)}") from error


def _torchvision_names() -> list[str]:
    models = _library("torchvision")
    return list(models.list_models(module=models))


def _timm_names() -> list[str]:
    return list(_library("timm").list_models())


def _open_clip_names() -> list[str]:
    return list(_library("open_clip").list_models())


NAMES = {"torchvision": _torchvision_names, "timm": _timm_names, "open_clip": _open_clip_names}


def _find(library: str, name: str) -> Source | None:
    """Return the source of a library's model, None where the library does not know the name."""
    if library == "timm":
        known = _library("timm").is_model(name)
    else:
        name = name.replace("/", "-") if library == "open_clip" else name
        known = name in NAMES[library]()
    return FINDERS[library](name) if known else None


def _from_torchvision(name: str) -> Source:
    models = _library("torchvision")

    def make() -> nn.Module:
        module: nn.Module = models.get_model(name, weights=None)
        _strip_head(module)
        return module

    def describe(module: nn.Module) -> Preprocessing:
        weights = next(iter(models.get_model_weights(name)))
        transforms = weights.transforms()
        size = getattr(module, "image_size", transforms.crop_size[0])
        source = f"torchvision's {name} {weights.name}"
        return _preprocessing(size, transforms.mean, transforms.std, source)

    return Source(f"torchvision:{name}", make, describe, loose_head=True)


def _strip_head(module: nn.Module) -> None:
    """Turn the last linear layer of the head, or a head without one, into the identity."""
    for name in HEADS:
        head = getattr(module, name, None)
        if isinstance(head, nn.Sequential):
            linear = [key for key, part in head.named_children() if isinstance(part, nn.Linear)]
            if linear:
                setattr(head, linear[-1], nn.Identity())
                continue
        if isinstance(head, nn.Module):
            setattr(module, name, nn.Identity())


def _from_timm(name: str) -> Source:
    timm = _library("timm")

    def describe(module: nn.Module) -> Preprocessing | None:
        config: Any = getattr(module, "pretrained_cfg", None)
        if not config:
            return None
        default = Preprocessing()
        size = config.get("input_size", (default.image_size,))[-1]
        mean, std = config.get("mean", default.mean), config.get("std", default.std)
        return _preprocessing(size, mean, std, f"timm's {name}")

    return Source(
        f"timm:{name}",
        partial(timm.create_model, name, pretrained=False, num_classes=0),
        describe,
    )


def _from_open_clip(name: str) -> Source:
    open_clip = _library("open_clip")
    config = open_clip.get_model_config(name)
    # The names of weights that would be downloaded, and outputs that are no embedding.
    vision = {**config["vision_cfg"], "timm_model_pretrained": False, "output_tokens": False}

    def make() -> nn.Module:
        # The text tower would take more memory than the image tower, for nothing.
        tower = open_clip.model._build_vision_tower
        module: nn.Module = tower(config["embed_dim"], vision, config.get("quick_gelu", False))
        return module

    def describe(module: nn.Module) -> Preprocessing:
        size = vision.get("image_size", 224)
        known = {
            (tuple(pretrained.get("mean", mean)), tuple(pretrained.get("std", std)))
            for tag in open_clip.list_pretrained_tags_by_model(name)
            for pretrained in [open_clip.get_pretrained_cfg(name, tag)]
        }
        agreed_mean, agreed_std = known.pop() if len(known) == 1 else (mean, std)
        side = size if isinstance(size, int) else size[-1]
        return _preprocessing(side, agreed_mean, agreed_std, f"open_clip's {name}")

    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    return Source(f"open_clip:{name}", make, describe, _quick_gelu_note(name))


def _quick_gelu_note(name: str) -> tuple[str, ...]:
    sibling = f"{name}-quickgelu"
    if sibling not in _open_clip_names():
        return ()
    return (
        f"OpenAI's own weights have the same tensors but another activation: for them pass --arch "
        f"open_clip:{sibling}",
    )


FINDERS: dict[str, Callable[[str], Source]] = {
    "torchvision": _from_torchvision,
    "timm": _from_timm,
    "open_clip": _from_open_clip,
}


def _preprocessing(
    size: int, mean: Sequence[float], std: Sequence[float], source: str
) -> Preprocessing:
    red, green, blue = map(float, mean)
    red_std, green_std, blue_std = map(float, std)
    return Preprocessing(int(size), (red, green, blue), (red_std, green_std, blue_std), source)


def _call(arch: str, module_name: str, attribute: str) -> nn.Module:
    """Import the user's callable and call it."""
    shown = f"--arch {quoted(arch)}"
    if not module_name or not attribute:
        raise ConfigError(f"{shown}: expected package.module:callable")
    with _current_directory_importable():
        try:
            function = reduce(getattr, attribute.split("."), import_module(module_name))
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{shown}: cannot be imported: {reason(error)}") from error
        if not callable(function):
            raise ConfigError(f"{shown}: is of type {type(function).__name__}, not a callable")
        try:
            module = function()
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{shown}: the call failed: {reason(error)}") from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"{shown}: returned {type(module).__name__}; it must return a torch.nn.Module"
        )
    return module


@contextmanager
def _current_directory_importable() -> Iterator[None]:
    # A console script, unlike `python -m`, does not put it on the path.
    here = str(Path.cwd())
    invalidate_caches()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)
