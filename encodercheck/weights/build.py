"""From ``--arch`` to a module without its classification head, weights still to come.

Nothing is downloaded: only names that a library has registered are built, never its
``hf-hub:`` and ``local-dir:`` schemes, and always without pre-trained weights.
"""

from __future__ import annotations

import ast
import difflib
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from importlib import import_module, invalidate_caches
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from encodercheck.errors import ConfigError, EncoderCheckError
from encodercheck.preprocessing import Preprocessing
from encodercheck.weights.header import quoted, reason
from encodercheck.weights.metadata import LIBRARIES

EXTRAS = {"timm": "timm", "open_clip": "open-clip"}
HEADS = ("fc", "heads", "head", "classifier")
# Classifiers beside the last one that help in training: published weights lack them.
AUXILIARY = ("aux1", "aux2", "AuxLogits")
# A comma that begins another option, and not the next item of a list.
OPTION = re.compile(r",(?=[^,=()\[\]]*=)")
# Options with which a library would fetch weights, or read them from another file.
REFUSED = frozenset(
    {"pretrained", "weights", "weights_backbone", "checkpoint_path", "cache_dir"}
    | {"pretrained_cfg", "pretrained_cfg_overlay", "timm_model_pretrained", "hf_model_name"}
    | {"timm_model_name", "num_classes", "in_chans", "features_only", "output_tokens"}
)

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

    def described(self, said: Mapping[str, Any]) -> Source:
        """Return the source with what ``said`` knows of the preprocessing going first."""

        def describe(module: nn.Module) -> Preprocessing:
            return (self.describe(module) or Preprocessing()).replaced(**said)

        return replace(self, describe=describe)

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
            except EncoderCheckError:
                raise
            except (Exception, SystemExit) as error:
                raise ConfigError(
                    f"--arch {quoted(self.name)}: cannot be built: {reason(error)}"
                ) from error


def build(arch: str) -> tuple[nn.Module, Preprocessing | None]:
    """Build the first module that ``arch`` names, and the preprocessing that goes with it.

    ``arch`` is ``torchvision:NAME``, ``timm:NAME``, ``open_clip:NAME``, a bare NAME that the three
    are asked for in this order, or ``package.module:callable``. A name may be followed by what
    the library's function takes: ``timm:vit_tiny_patch16_224,img_size=64,num_heads=6``.

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
    owner, colon, name = arch.partition(":")
    if not colon:
        yield from _bare(arch)
    elif owner in LIBRARIES:
        source = _find(owner, *split(name))
        if source is None:
            raise ConfigError(f"--arch {quoted(arch)}: {_unknown(split(name)[0], [owner])}")
        yield source
    else:
        yield Source(arch, partial(_call, arch), own_code=True, loose_head=True)


def split(spec: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of "NAME,key=value,key=value".

    Values are Python literals; what is none is a text.

    >>> split("vit_tiny_patch16_224,img_size=64,global_pool=avg")
    ('vit_tiny_patch16_224', {'img_size': 64, 'global_pool': 'avg'})

    Raises:
        ConfigError: an option is no ``key=value``, or one that would load weights or code.
    """
    name, *parts = OPTION.split(spec)
    options: dict[str, Any] = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if not equals or not key.isidentifier() or key in REFUSED:
            raise ConfigError(
                f"--arch {quoted(spec)}: the option '{quoted(part)}' cannot be given; options are "
                "key=value after commas"
            )
        try:
            options[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            options[key] = text
    return name, options


def joined(name: str, options: Mapping[str, Any]) -> str:
    """Return what :func:`split` takes apart."""
    return ",".join([name, *(f"{key}={value}" for key, value in options.items())])


def computes_on_meta(module: nn.Module) -> bool:
    """Tell whether the module holds values on the meta device that no file will replace."""
    saved = set(module.state_dict())
    buffers = any(buffer.is_meta for name, buffer in module.named_buffers() if name not in saved)
    return buffers or any(
        isinstance(value, Tensor) and value.is_meta
        for part in module.modules()
        for value in vars(part).values()
    )


def _bare(spec: str) -> Iterator[Source]:
    name, options = split(spec)
    asked, absent = [], []
    found = False
    for owner in LIBRARIES:
        try:
            source = _find(owner, name, options)
        except _NotInstalledError as error:
            absent.append(str(error))
            continue
        asked.append(owner)
        if source is not None:
            found = True
            yield source
    if not found:
        raise ConfigError("; ".join([f"--arch {quoted(name)}: {_unknown(name, asked)}", *absent]))


def _unknown(name: str, libraries: Sequence[str]) -> str:
    names = sorted({known for owner in libraries for known in NAMES[owner]()})
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else "check the name"
    return f"unknown to {', '.join(libraries)}; {hint}"


class _NotInstalledError(ConfigError):
    """A library that ``--arch`` needs is not there."""


def library(name: str) -> ModuleType:
    """Import one of the model libraries.

    Raises:
        ConfigError: it is not installed, or does not import.
    """
    try:
        return import_module("torchvision.models" if name == "torchvision" else name)
    except ImportError as error:
        raise _NotInstalledError(
            f"{name} is not installed: pip install encodercheck[{EXTRAS.get(name, name)}]"
        ) from error
    except Exception as error:
        raise _NotInstalledError(f"{name} cannot be imported: {reason(error)}") from error


def _torchvision_names() -> list[str]:
    models = library("torchvision")
    return list(models.list_models(module=models))


def _timm_names() -> list[str]:
    return list(library("timm").list_models())


def _open_clip_names() -> list[str]:
    return list(library("open_clip").list_models())


NAMES = {"torchvision": _torchvision_names, "timm": _timm_names, "open_clip": _open_clip_names}


def _find(owner: str, name: str, options: Mapping[str, Any]) -> Source | None:
    """Return the source of a library's model, None where the library does not know the name."""
    if owner == "timm":
        return timm_source(name, options)
    name = name.replace("/", "-") if owner == "open_clip" else name
    return FINDERS[owner](name, options) if name in NAMES[owner]() else None


def _from_torchvision(name: str, options: Mapping[str, Any]) -> Source:
    models = library("torchvision")

    def make() -> nn.Module:
        module: nn.Module = models.get_model(name, weights=None, **options)
        _strip_head(module)
        return module

    def describe(module: nn.Module) -> Preprocessing:
        weights = next(iter(models.get_model_weights(name)))
        transforms = weights.transforms()
        size = getattr(module, "image_size", transforms.crop_size[0])
        source = f"torchvision's {name} {weights.name}"
        return _preprocessing(size, transforms.mean, transforms.std, source)

    return Source(joined(f"torchvision:{name}", options), make, describe, loose_head=True)


def _strip_head(module: nn.Module) -> None:
    """Turn the last linear layer of the head, or a head without one, into the identity."""
    for name in (*HEADS, *AUXILIARY):
        head = getattr(module, name, None)
        if isinstance(head, nn.Sequential):
            linear = [key for key, part in head.named_children() if isinstance(part, nn.Linear)]
            if linear:
                setattr(head, linear[-1], nn.Identity())
                continue
        if isinstance(head, nn.Module):
            setattr(module, name, nn.Identity())


def timm_source(
    name: str, options: Mapping[str, Any], fields: Mapping[str, Any] | None = None
) -> Source | None:
    """Return the source of a timm model, None where timm does not know the name.

    ``fields`` are those of a ``pretrained_cfg`` that takes the place of timm's own.

    Raises:
        ConfigError: timm is not installed.
    """
    timm = library("timm")
    if not timm.is_model(name):
        return None
    arguments: dict[str, Any] = {"num_classes": 0, **options}
    if fields is not None:
        arguments["pretrained_cfg"] = dict(fields)

    def describe(module: nn.Module) -> Preprocessing | None:
        config: Any = getattr(module, "pretrained_cfg", None)
        if not config:
            return None
        default = Preprocessing()
        size = options.get("img_size") or config.get("input_size") or default.image_size
        side = size if isinstance(size, int) else size[-1]
        mean, std = config.get("mean", default.mean), config.get("std", default.std)
        return _preprocessing(side, mean, std, f"timm's {name}")

    make = partial(timm.create_model, name, pretrained=False, **arguments)
    return Source(joined(f"timm:{name}", options), make, describe)


def _from_open_clip(name: str, options: Mapping[str, Any]) -> Source:
    open_clip = library("open_clip")
    config = open_clip.get_model_config(name)
    quick_gelu = options.get("quick_gelu", config.get("quick_gelu", False))
    vision = {
        **config["vision_cfg"],
        **{key: value for key, value in options.items() if key != "quick_gelu"},
    }

    make = partial(open_clip_tower, config["embed_dim"], vision, quick_gelu)

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
    spec = joined(f"open_clip:{name}", options)
    return Source(spec, make, describe, () if options else _quick_gelu_note(name))


def open_clip_tower(width: int, vision: Mapping[str, Any], quick_gelu: bool) -> nn.Module:
    """Build an image tower of open_clip; the text tower would only take memory.

    ``width`` is the configuration's ``embed_dim``, ``vision`` its ``vision_cfg``.

    Raises:
        ConfigError: open_clip is not installed.
    """
    tower = library("open_clip").model._build_vision_tower
    # The names of weights that would be downloaded, and outputs that are no embedding.
    plain = {**vision, "timm_model_pretrained": False, "output_tokens": False}
    module: nn.Module = tower(width, plain, quick_gelu)
    return module


def _quick_gelu_note(name: str) -> tuple[str, ...]:
    sibling = f"{name}-quickgelu"
    if sibling not in _open_clip_names():
        return ()
    return (
        f"OpenAI's own weights have the same tensors but another activation: for them pass --arch "
        f"open_clip:{sibling}",
    )


FINDERS: dict[str, Callable[[str, Mapping[str, Any]], Source]] = {
    "torchvision": _from_torchvision,
    "open_clip": _from_open_clip,
}


def _preprocessing(
    size: int, mean: Sequence[float], std: Sequence[float], source: str
) -> Preprocessing:
    red, green, blue = map(float, mean)
    red_std, green_std, blue_std = map(float, std)
    return Preprocessing(int(size), (red, green, blue), (red_std, green_std, blue_std), source)


def imported(spec: str) -> Callable[..., Any]:
    """Import the user's ``package.module:callable``.

    Raises:
        ConfigError: it cannot be imported, or is no callable.
    """
    shown = f"--arch {quoted(spec)}"
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{shown}: expected package.module:callable")
    with _current_directory_importable():
        try:
            function: object = reduce(getattr, attribute.split("."), import_module(module_name))
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{shown}: cannot be imported: {reason(error)}") from error
    if not callable(function):
        raise ConfigError(f"{shown}: is of type {type(function).__name__}, not a callable")
    return function


def _call(arch: str) -> nn.Module:
    """Import the user's callable and call it."""
    shown = f"--arch {quoted(arch)}"
    function = imported(arch)
    with _current_directory_importable():
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
