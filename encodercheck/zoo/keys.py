"""What a result rests on, as a hash: while it is the same, the result stands.

Waivers, severities, ``--strict``, ``--fail-on`` and a baseline are no part of it: they are applied
to what was measured, see ``judging.py``. Only with ``--fail-fast`` do they decide what that is.
Neither is ``--max-memory``: embeddings do not depend on how they are cut into batches, which EC001
checks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encodercheck.cache import content_hash
from encodercheck.config.rules import NO_RULES, Rules
from encodercheck.errors import ConfigError, LoadError
from encodercheck.weights.header import located, os_reason
from encodercheck.weights.metadata import LIBRARIES

if TYPE_CHECKING:
    from encodercheck.weights.files import ModelFiles

# Raised when a result of an earlier version of this code would mean something else.
FORMAT = 2
CHUNK = 2**20
# They build models, so that a result depends on them as on torch.
BUILDERS = ("timm", "open_clip_torch", "transformers")


@dataclass(frozen=True)
class Settings:
    """How models are scanned: as by ``encodercheck scan``, with these options.

    ``rules`` are what runs, and with which limits.
    """

    arch: str | None = None
    image_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    tower: str | None = None
    images: str | None = None
    checks: tuple[Path, ...] = ()
    keyword: str | None = None
    profile: str = "standard"
    seed: int = 0
    device: str = "auto"
    null: Path | None = None
    rules: Rules = NO_RULES

    @property
    def loading(self) -> dict[str, Any]:
        """The options that decide what a model's files are taken for."""
        return {
            "arch": self.arch,
            "image_size": self.image_size,
            "mean": self.mean,
            "std": self.std,
            "tower": self.tower,
        }

    @property
    def preparing(self) -> dict[str, Any]:
        """The options of :func:`scanning.prepare`, but for memory and artifacts."""
        return {
            **self.loading,
            "images": self.images,
            "profile": self.profile,
            "seed": self.seed,
            "device": self.device,
            "null": self.null,
        }

    @property
    def reusable(self) -> bool:
        """Whether all that a result depends on can be seen: not of a user's own ``--arch``."""
        arch = self.arch or ""
        return ":" not in arch or arch.partition(":")[0] in LIBRARIES


def ground(settings: Settings) -> str:
    """Return the hash of the suite and the settings: what the results of all models rest on.

    Raises:
        EncoderCheckError: a check, the images or a setting is unusable, or nothing is to be run.
    """
    from encodercheck.harness.hermetic import refuse_optimized_python
    from encodercheck.harness.runner import collect, ruled, suite
    from encodercheck.nulls import Nulls
    from encodercheck.profiles import PROFILES
    from encodercheck.verify.grounds import grounds

    refuse_optimized_python()
    if settings.profile not in PROFILES:
        raise ConfigError(f"profile {settings.profile!r}: choose one of {', '.join(PROFILES)}")
    if settings.null is not None:
        Nulls.read(settings.null)
    parts = ruled(collect(suite(settings.checks), settings.keyword), settings.rules)
    facts = {
        "format": FORMAT,
        "loading": settings.loading,
        "images": _images(settings.images, settings.seed),
        "profile": settings.profile,
        "seed": settings.seed,
        "null": None if settings.null is None else content_hash(settings.null.read_bytes()),
        "limits": dict(settings.rules.limits),
    }
    if settings.rules.fail_fast:
        facts["ends by"] = [
            settings.rules.fail_on,
            dict(settings.rules.severities),
            [repr(waiver) for waiver in settings.rules.waivers],
        ]
    return content_hash(grounds(parts, facts))


def model_key(ground: str, *, sha256: str, configs: Mapping[str, str], device: str) -> str:
    """Return the key of a result: of a model with these weights, and configs beside them.

    ``device`` is the kind that it computes on: workers differ in it, as in their versions.
    """
    return content_hash(
        {
            "ground": ground,
            "model": sha256,
            "configs": dict(configs),
            "device": device,
            "versions": versions(),
        }
    )


def unreadable_key(ground: str, model: str) -> str:
    """Return the key of a result that there is none: of a model that was called so."""
    return content_hash({"ground": ground, "unreadable": model})


def weights_sha256(files: ModelFiles) -> str:
    """Return the SHA-256 that a report has for these weights.

    Raises:
        LoadError: a file cannot be read.
    """
    digests = {path.name: _sha256(path) for path in files.shards or (files.path,)}
    if not files.shards:
        return digests[files.path.name]
    lines = (f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def configs_sha256(files: ModelFiles) -> dict[str, str]:
    """Return the hashes of the files that may say what a model is; of what can be read."""
    found = {}
    for path in (*files.configs, *((files.path,) if files.shards else ())):
        with suppress(LoadError):
            found[path.name] = _sha256(path)
    return found


def versions() -> dict[str, str | None]:
    """Return the versions that a result depends on."""
    from encodercheck.scanning import versions

    return {**versions(), **{name: _version(name) for name in BUILDERS}}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _images(source: str | None, seed: int) -> Any:
    """Return what tells the clean images from others; see ``images/pool.py``."""
    if source is None:
        return None
    from encodercheck.images import pool

    found = pool.opened(source)
    return {"source": found.kind, **found.facts(seed)}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise LoadError(f"{located(path)}: cannot be read: {os_reason(error)}") from error
    return digest.hexdigest()
