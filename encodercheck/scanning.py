"""One scan: load the encoder and the images, run the suite, report."""

from __future__ import annotations

import copy
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from encodercheck import blackbox, readings, room, sketch
from encodercheck.config.rules import NO_RULES, Rules
from encodercheck.encoder import Encoder
from encodercheck.errors import ConfigError
from encodercheck.harness.heard import Heard
from encodercheck.harness.listener import Listener, SilentListener
from encodercheck.harness.runner import run_suite, suite
from encodercheck.harness.second import SecondListener, worse
from encodercheck.harness.state import ScanState
from encodercheck.images import source
from encodercheck.images.split import CleanImages
from encodercheck.known.waivers import ModelWaiver
from encodercheck.loading import load
from encodercheck.memory import used_with
from encodercheck.nulls import Nulls
from encodercheck.profiles import PROFILES
from encodercheck.report import Finding, Outcome, Report
from encodercheck.resuming import Unfinished
from encodercheck.suspicion import Suspicion
from encodercheck.weights import rivals
from encodercheck.weights.header import quoted
from encodercheck.weights.metadata import callable_spec

if TYPE_CHECKING:
    from torch import Tensor

    from encodercheck.profiles import Profile
    from encodercheck.progress import Progress

VERSIONED = ("encodercheck", "torch", "torchvision", "pytest", "safetensors", "numpy")
FIXTURE_PREFIX = "fixture:"
INTERRUPTED = "the scan was interrupted"


class ScanInterrupted(KeyboardInterrupt):
    """The user stopped a scan; ``report`` is what was found until then, and has no verdict."""

    def __init__(self, report: Report) -> None:
        super().__init__(INTERRUPTED)
        self.report = report


def prepare(
    model: str | Path | Encoder | None,
    *,
    arch: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    tower: str | None = None,
    images: str | None = None,
    profile: str = "standard",
    seed: int = 0,
    device: str = "auto",
    artifacts: Path | None = None,
    null: str | Path | None = None,
    max_memory: int | None = None,
    building: Progress | None = None,
) -> ScanState:
    """Load ``model`` and the images for a scan with them.

    ``model`` is a .safetensors file, a folder, ``fixture:NAME``, or an Encoder, or None for the
    black box that ``arch`` names as ``package.module:callable``; ``tower`` the prefix of the
    encoder that is meant, where a file holds several; ``images`` a folder, a data set on the disk
    as ``cifar10:DIR`` (see :mod:`~encodercheck.images.datasets`), or None for the embedded
    generator; ``null`` a file of further clean encoders to compare with, of which copies of
    ``model`` itself are left out; ``max_memory`` how many bytes the encoder may take at work;
    ``building`` hears how far the generation of a fixture is.

    Raises:
        EncoderCheckError: the model, the images or an option is unusable; the message says why.
    """
    if profile not in PROFILES:
        raise ConfigError(f"profile {profile!r}: choose one of {', '.join(PROFILES)}")
    nulls = Nulls.shipped() if null is None else Nulls.shipped().merged(Nulls.read(null))
    read = partial(load, arch=arch, image_size=image_size, mean=mean, std=std, tower=tower)
    restore = None
    count = PROFILES[profile].search + PROFILES[profile].held_out
    if isinstance(model, Encoder):
        encoder = model
        room.require_for(encoder, count)
    else:
        encoder, place = open_encoder(
            model,
            arch=arch,
            image_size=image_size,
            mean=mean,
            std=std,
            tower=tower,
            device=device,
            building=building,
            at_once=count,
        )
        restore = partial(_weights, read, place) if place is not None else None
    reading = readings.other(encoder, partial(_few, images, seed))
    if reading is not None:
        about = encoder.provenance
        encoder.provenance = replace(about, notes=(*about.notes, reading.note()))
    made = partial(
        _state,
        images=images,
        effort=PROFILES[profile],
        seed=seed,
        nulls=nulls,
        max_memory=max_memory,
    )
    state = made(encoder, artifacts=artifacts)
    state.restore = restore
    if reading is not None:
        beside = artifacts / "read-otherwise" if artifacts is not None else None
        state.second = made(reading.encoder, artifacts=beside)
        state.second.read_with = reading.options
    return state


def _state(
    encoder: Encoder,
    *,
    images: str | None,
    effort: Profile,
    seed: int,
    nulls: Nulls,
    max_memory: int | None,
    artifacts: Path | None,
) -> ScanState:
    """Collect the images for a scan of an encoder."""
    if max_memory is not None:
        encoder.limit_memory(max_memory)
    encoder = encoder.moderate()
    encoder, nulls = _without_itself(encoder, nulls)
    count = effort.search + effort.held_out
    image_set = source.collect(images, count, size=encoder.image_size, seed=seed)
    if image_set.passed_over:
        encoder = _noted(encoder, f"in the images passed over: {image_set.passed_over}")
    return ScanState(
        encoder=encoder,
        images=CleanImages.of(image_set.images, effort.search),
        seed=seed,
        profile=effort,
        artifacts_dir=artifacts,
        image_set=image_set.describe(),
        further=source.Further(
            images, effort.decoder_images, encoder.image_size, seed, after=count
        ),
        nulls=nulls,
    )


def _without_itself(encoder: Encoder, nulls: Nulls) -> tuple[Encoder, Nulls]:
    """Return the clean encoders without copies of ``encoder``, and it with a note that says so."""
    known = any(clean.sketch is not None for clean in nulls.encoders)
    own = sketch.of_weights(encoder.module) if known else None
    others, copies = nulls.without(encoder.provenance.sha256, own)
    if not copies:
        return encoder, nulls
    names = ", ".join(quoted(clean.name, 80) for clean in copies)
    note = f"left out of the clean encoders to compare with, as copies of this one: {names}"
    return _noted(encoder, note), others


def _noted(encoder: Encoder, note: str) -> Encoder:
    """Return the encoder with one more note; one that was handed in stays as it is."""
    encoder = copy.copy(encoder)
    encoder.provenance = replace(encoder.provenance, notes=(*encoder.provenance.notes, note))
    return encoder


def _few(images: str | None, seed: int, size: int) -> Tensor:
    """Return the images that readings of a model are compared by."""
    return source.collect(images, readings.IMAGES, size=size, seed=seed).images


def open_encoder(
    model: str | Path | None,
    *,
    arch: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    tower: str | None = None,
    device: str = "auto",
    building: Progress | None = None,
    at_once: int = 1,
) -> tuple[Encoder, str | Path | None]:
    """Return the encoder that the arguments of :func:`prepare` name, and where its weights are.

    A black box has none. ``at_once`` images are to be in memory together.

    Raises:
        AmbiguousArchitecture: the file holds encoders that differ, and ``tower`` names none.
        EncoderCheckError: the model or an option is unusable; the message says why.
    """
    if model is None:
        spec = callable_spec(arch)
        if tower is not None:
            raise ConfigError("--tower: a black box has no tensors to choose among; leave it out")
        box = blackbox.ask(spec, image_size=image_size, mean=mean, std=std, device=device)
        room.require_for(box, at_once)
        return box, None
    path = resolve(str(model), building)
    encoder = load(
        path,
        arch=arch,
        image_size=image_size,
        mean=mean,
        std=std,
        device=device,
        tower=tower,
        at_once=at_once,
    )
    if encoder.provenance.rivals:
        raise rivals.ambiguous(model, encoder.provenance.rivals)
    # A report says what the user said, not where the cache keeps a fixture.
    encoder.provenance = replace(encoder.provenance, path=str(model))
    # A check may change the working directory; a model on a hub has no place in it.
    return encoder, Path(path).absolute() if Path(path).exists() else path


def _weights(read: Callable[..., Encoder], model: str | Path) -> Mapping[str, Tensor]:
    """Return the weights as the model file has them, by name."""
    weights: Mapping[str, Tensor] = read(model, device="cpu").module.state_dict()
    return weights


def resolve(model: str, building: Progress | None = None) -> str:
    """Return the path behind ``fixture:NAME``, generating it on first use; others as they are."""
    if not model.startswith(FIXTURE_PREFIX):
        return model
    from encodercheck import fixtures
    from encodercheck.progress import silent

    name, seed = fixtures.parse(model.removeprefix(FIXTURE_PREFIX))
    return str(fixtures.build(name, seed=seed, progress=building or silent).path)


def scan(
    model: str | Path | Encoder | None = None,
    *,
    arch: str | None = None,
    image_size: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    tower: str | None = None,
    images: str | None = None,
    checks: Sequence[str | Path] = (),
    keyword: str | None = None,
    profile: str = "standard",
    seed: int = 0,
    device: str = "auto",
    artifacts: str | Path | None = None,
    strict: bool = False,
    null: str | Path | None = None,
    max_memory: int | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    limits: Mapping[str, float] | None = None,
    severities: Mapping[str, str] | None = None,
    fail_on: str | None = None,
    waivers: Sequence[ModelWaiver] = (),
    fail_fast: bool = False,
) -> Report:
    """Run the suite on ``model`` and report what it found.

    Without a ``model``, ``arch="package.module:callable"`` is scanned as a black box: any callable
    from images (N, 3, H, W) to embeddings (N, D), without weights or gradients.
    ``tower`` is the prefix of the encoder that is meant, where a file holds several that differ.
    ``checks`` are further files or folders of ``check_*.py``; ``keyword`` selects as pytest's
    ``-k`` does; witnesses are written under ``artifacts``, or nowhere. ``null`` is a file that
    ``encodercheck calibrate`` wrote: its clean encoders are compared with, beside the shipped ones.
    ``max_memory``, in bytes, bounds what the encoder takes at work.

    ``select`` and ``ignore`` are ids of checks, or patterns such as ``EC2*``, to run or not to run.
    ``limits`` replace those written in checks, as ``{"EC202.gain": 0.9}`` or
    ``{"EC202.gain.at_most": 0.9}``; ``severities`` those of checks, by id. Failures of a severity
    below ``fail_on`` do not count, nor do those that ``waivers`` cover today. With ``fail_fast``
    the cheapest checks run first, and those after a failure that counts are inconclusive. A
    configuration file is for the command line: nothing is read from one here.

    Raises:
        EncoderCheckError: there is nothing to report, because the model, the images or an
            option is unusable.
    """
    started = time.monotonic()
    rules = Rules(
        select=tuple(select),
        ignore=tuple(ignore),
        limits=dict(limits or {}),
        severities=dict(severities or {}),
        fail_on=fail_on,
        waivers=tuple(waivers),
        fail_fast=fail_fast,
    )
    state = prepare(
        model,
        arch=arch,
        image_size=image_size,
        mean=mean,
        std=std,
        tower=tower,
        images=images,
        profile=profile,
        seed=seed,
        device=device,
        artifacts=Path(artifacts) if artifacts is not None else None,
        null=null,
        max_memory=max_memory,
    )
    return run(state, checks=checks, keyword=keyword, strict=strict, rules=rules, started=started)


def run(
    state: ScanState,
    *,
    checks: Sequence[str | Path] = (),
    keyword: str | None = None,
    strict: bool = False,
    rules: Rules = NO_RULES,
    listener: Listener | None = None,
    started: float | None = None,
    earlier: Unfinished | None = None,
) -> Report:
    """Run the suite on what :func:`prepare` returned, by ``rules``.

    What a scan found ``earlier`` that was interrupted stands, and its checks do not run again.

    A model that is to be read otherwise than its own file claims is scanned in both ways, and of
    each check the worse outcome is reported.

    Raises:
        ScanInterrupted: the user stopped the scan; the report says what was found until then.
    """
    started = time.monotonic() if started is None else started
    heard = Heard(listener or SilentListener())
    earlier = earlier or Unfinished()
    state.traits = state.traits or earlier.traits
    try:
        findings, suspicions = _found(state, heard, checks, keyword, rules, earlier.findings)
    except KeyboardInterrupt:
        told = _report(state, heard.findings(INTERRUPTED), [], strict, rules, started)
        raise ScanInterrupted(told) from None
    return _report(state, findings, suspicions, strict, rules, started)


def _found(
    state: ScanState,
    heard: Heard,
    checks: Sequence[str | Path],
    keyword: str | None,
    rules: Rules,
    known: Sequence[Finding],
) -> tuple[list[Finding], list[Suspicion | None]]:
    """Run the suite on every reading of the model; return the worse findings."""
    run_on = partial(run_suite, paths=suite(checks), keyword=keyword, rules=rules)
    findings = run_on(state, listener=heard, known=known)
    suspicions = [_suspicion(state, findings)]
    ended = rules.fail_fast and any(f.outcome is Outcome.FAILED and f.counts for f in findings)
    if state.second is not None and not ended:
        options = state.second.read_with
        found = run_on(state.second, listener=SecondListener(heard, options))
        suspicions.append(_suspicion(state.second, found))
        findings = worse(findings, found, options)
    return findings, suspicions


def _report(
    state: ScanState,
    findings: Sequence[Finding],
    suspicions: Sequence[Suspicion | None],
    strict: bool,
    rules: Rules,
    started: float,
) -> Report:
    about = {
        "claims": readings.claims(state.encoder),
        "read_also_with": "" if state.second is None else state.second.read_with,
    }
    return Report(
        model=state.encoder.describe() | about,
        images=state.image_set,
        findings=tuple(findings),
        seed=state.seed,
        device=str(state.encoder.device),
        versions=versions(),
        seconds=time.monotonic() - started,
        profile=state.profile.name,
        strict=strict,
        memory=used_with(state.encoder),
        compared_with=state.compared_with,
        rules=rules.describe(),
        suspicion=min(filter(None, suspicions), key=lambda s: s.probability, default=None),
    )


def _suspicion(state: ScanState, findings: Sequence[Finding]) -> Suspicion | None:
    """Return how often a clean encoder looks as suspicious as these findings."""
    values = {f"{found.id}.{m.name}": m.value for found in findings for m in found.measurements}
    return state.bank.suspicion(values, state.traits)


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {"python": platform.python_version(), **{n: metadata.version(n) for n in VERSIONED}}
