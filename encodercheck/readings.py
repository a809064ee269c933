"""What only the file itself claims of an encoder, and whether another reading makes more of it.

Image size, normalisation and strides are in no tensor. A file that claims wrong ones has the scan
look at another function than the one that people use. The right reading of trained weights spreads
clean images further than a wrong one, so that readings which do are scanned as well. What the user
says is not doubted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor, nn

from encodercheck.encoder import Encoder
from encodercheck.preprocessing import CIFAR10, IMAGENET, PARTS, Preprocessing, Triple
from encodercheck.weights.metadata import METADATA
from encodercheck.weights.resnet import ResNet
from encodercheck.weights.spec import ResNetSpec, expected_shapes

Look = Callable[[int], Tensor]
Measure = Callable[[Encoder], float]

IMAGES = 32
"""How many clean images readings are compared by."""
CLEARLY_MORE = 1.25
"""How many times the spread of what is claimed another reading must have. Of sixteen trained small
ResNets and ViTs no other reading had more than 1.19 times that of the right one."""
USUAL = (
    IMAGENET,
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    CIFAR10,
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
)
"""Means and standard deviations that encoders are used with. Those left out lie close to these."""
NO_NORMALISATION = USUAL[-1]
# Published ones lie well inside. Beyond, a reading is doubted whatever its spread.
USUAL_MEANS, USUAL_STDS = (0.0, 1.0), (0.15, 0.6)
LARGEST_DOUBLED = 256
# Below, images are all one and tell no reading from another.
ALIKE_PIXELS = 0.02
# Readings whose spread is this part of the widest are as good.
NEARLY = 0.85
READ_OFF = "read off the tensors"


@dataclass(frozen=True)
class Reading:
    """Another reading of the same tensors, which is scanned as well.

    ``options`` are those of the command line that make it the user's own word, ``claimed`` those
    that do so for what the file says; ``reason`` says why it is scanned.
    """

    encoder: Encoder
    options: str
    claimed: str
    reason: str

    def note(self) -> str:
        """Return what a report says of it."""
        return (
            f"also scanned with {self.options}, since {self.reason}; of each check the worse "
            f"outcome counts. If you know it, say so: {self.options} or {self.claimed}"
        )


def claims(encoder: Encoder) -> list[str]:
    """Return what only the file itself says, as "image size 32 (the file's metadata)"."""
    chosen, found_by = encoder.preprocessing, encoder.provenance.found_by
    values = {
        "image_size": str(chosen.image_size),
        "mean": _numbers(chosen.mean),
        "std": _numbers(chosen.std),
    }
    told = [
        f"{part.replace('_', ' ')} {values[part]} ({chosen.source_of(part)})"
        for part in PARTS
        if _is_claim(chosen.source_of(part))
    ]
    spec = getattr(encoder.module, "spec", None)
    if not _is_claim(found_by):
        return told
    if not isinstance(spec, ResNetSpec):
        return [f"architecture {encoder.provenance.architecture} ({found_by})", *told]
    pool = "with" if spec.maxpool else "without"
    stem = f"stem of stride {spec.stem_stride} {pool} max-pool"
    strides = "-".join(map(str, spec.strides))
    return [f"{stem}, then strides {strides} ({found_by})", *told]


def other(encoder: Encoder, look: Look) -> Reading | None:
    """Return the reading to scan beside the one that is claimed; None where there is none.

    ``look(size)`` returns a few clean images (N, 3, size, size) in [0, 1].
    """
    if not (_is_claim(encoder.provenance.found_by) or claims(encoder) or _strides_free(encoder)):
        return None
    spread_of = partial(_spread, look=cache(look))
    start = spread_of(encoder)
    best = _better(encoder, _normalisations(encoder), spread_of)
    best = _better(best, _shapes(best), spread_of)
    best = _better(best, _normalisations(best), spread_of)
    kept = replace(
        best.preprocessing, mean=encoder.preprocessing.mean, std=encoder.preprocessing.std
    )
    faithful = _read(best, best.module, kept)
    if kept != best.preprocessing and spread_of(faithful) >= NEARLY * spread_of(best):
        best = faithful
    times = f"{spread_of(best) / start:.1f} times as far apart" if start else "apart only so"
    reason = f"clean images embed {times}"
    if _is_odd(best):
        best = max(_normalisations(best), key=spread_of)
        reason = "the file's own mean and std are none that encoders are used with"
    if best is encoder:
        return None
    return Reading(best, _options(best, encoder), _options(encoder, best), reason)


def _better(now: Encoder, others: Iterable[Encoder], spread_of: Measure) -> Encoder:
    """Return the most usual of the readings that spread clean images clearly further than ``now``.

    Of those that come near the widest, since a smaller image makes up for a smaller stride.
    """
    found = [(spread_of(one), one) for one in others]
    widest = max((width for width, _ in found), default=0.0)
    if not widest or widest < CLEARLY_MORE * spread_of(now):
        return now
    return min((one for width, one in found if width >= NEARLY * widest), key=_oddness)


def _oddness(encoder: Encoder) -> tuple[bool, bool]:
    """Return how unusual a reading is: whether of another size, or with a max-pool that is rare."""
    spec = getattr(encoder.module, "spec", None)
    pooled = isinstance(spec, ResNetSpec) and spec.maxpool != (spec.stem_kernel == 7)
    return encoder.image_size != _usual_size(encoder), pooled


def spread(embeddings: Tensor) -> float:
    """Return how far apart the directions of embeddings (N, D) are, in [0, 2]: 1 - mean cosine.

    In double precision, of embeddings divided by their own largest magnitude; 0 where one has no
    direction.
    """
    values = embeddings.detach().cpu().double()
    scaled = values / values.abs().amax(1, keepdim=True)
    unit = scaled / scaled.norm(dim=1, keepdim=True)
    count = len(unit)
    cosine = float((unit.sum(0).square().sum() - count) / (count * (count - 1)))
    return 1 - cosine if cosine == cosine else 0.0


def _spread(encoder: Encoder, look: Look) -> float:
    images = look(encoder.image_size)
    if images.std(0).mean() < ALIKE_PIXELS:
        return 0.0
    try:
        return spread(encoder(images))
    except RuntimeError:
        # Not every size or stride leaves something to pool.
        return 0.0


def _normalisations(encoder: Encoder) -> Iterator[Encoder]:
    """Yield the encoder with usual means and deviations in the place of those that are claimed."""
    now = encoder.preprocessing
    for mean, std in USUAL:
        changed = replace(
            now,
            mean=mean if _is_claim(now.source_of("mean")) else now.mean,
            std=std if _is_claim(now.source_of("std")) else now.std,
        )
        if changed != now:
            yield _read(encoder, encoder.module, changed)


def _shapes(encoder: Encoder) -> Iterator[Encoder]:
    """Yield the encoder with all other strides, max-pools and sizes that may be meant."""
    yield from _sizes(encoder)
    for stem in _stems(encoder):
        yield stem
        yield from _sizes(stem)


def _stems(encoder: Encoder) -> Iterator[Encoder]:
    """Yield the ResNet with the other strides and max-pools that its tensors leave open."""
    module = encoder.module
    if not isinstance(module, ResNet) or not _strides_free(encoder):
        return
    spec = module.spec
    usual = replace(spec, strides=())
    stems = itertools.product((1, 2), (False, True)) if spec.stem_kernel == 3 else [(2, True)]
    for (stride, pool), strides in itertools.product(stems, {spec.strides, usual.strides}):
        changed = replace(spec, stem_stride=stride, maxpool=pool, strides=strides)
        if changed != spec and expected_shapes(changed) == expected_shapes(spec):
            yield _read(encoder, _rebuilt(module, changed), encoder.preprocessing, str(changed))


def _sizes(encoder: Encoder) -> Iterator[Encoder]:
    """Yield the convolutional encoder at the usual size of its kind, and at twice the claimed."""
    now = encoder.preprocessing
    if not _is_claim(now.source_of("image_size")) or len(_convolutions(encoder)) < 2:
        return
    usual = _usual_size(encoder)
    for size in sorted({usual, 2 * now.image_size} - {now.image_size}):
        if size <= max(usual, LARGEST_DOUBLED):
            yield _read(encoder, encoder.module, replace(now, image_size=size))


def _convolutions(encoder: Encoder) -> list[nn.Conv2d]:
    return [part for part in encoder.module.modules() if isinstance(part, nn.Conv2d)]


def _usual_size(encoder: Encoder) -> int:
    """Return the image size that goes with the stem: 3x3 ones are for small images."""
    small = _is_resnet(encoder) and _convolutions(encoder)[0].kernel_size == (3, 3)
    return 32 if small else 224


def _read(
    encoder: Encoder, module: nn.Module, chosen: Preprocessing, architecture: str | None = None
) -> Encoder:
    """Return an encoder of the same weights, read otherwise."""
    provenance = encoder.provenance
    if architecture is not None:
        provenance = replace(provenance, architecture=architecture)
    return Encoder(module, preprocessing=chosen, provenance=provenance, device=encoder.device)


def _rebuilt(module: ResNet, spec: ResNetSpec) -> ResNet:
    """Return the ResNet that a spec describes, with the very weights of another."""
    with torch.device("meta"):
        made = ResNet(spec)
    made.load_state_dict(module.state_dict(), assign=True)
    return made


def _strides_free(encoder: Encoder) -> bool:
    """Tell whether nobody but the file, or what its names remind of, says what the strides are."""
    found_by = encoder.provenance.found_by
    return _is_resnet(encoder) and (_is_claim(found_by) or found_by == READ_OFF)


def _is_resnet(encoder: Encoder) -> bool:
    return isinstance(encoder.module, ResNet)


def _is_claim(source: str) -> bool:
    """Tell whether a model's own files say so: its metadata, or a configuration beside it."""
    return source == METADATA or ".json" in source


def _is_odd(encoder: Encoder) -> bool:
    """Tell whether a file claims a normalisation that no encoder is used with."""
    now = encoder.preprocessing
    odd_mean = _is_claim(now.source_of("mean")) and not _within(now.mean, USUAL_MEANS)
    odd_std = _is_claim(now.source_of("std")) and not _within(now.std, USUAL_STDS)
    return (odd_mean or odd_std) and (now.mean, now.std) != NO_NORMALISATION


def _within(values: Triple, limits: tuple[float, float]) -> bool:
    return all(limits[0] <= value <= limits[1] for value in values)


def _options(encoder: Encoder, against: Encoder) -> str:
    """Return the options that say how an encoder is read, where it differs from another reading."""
    told = []
    spec, other_spec = (getattr(one.module, "spec", None) for one in (encoder, against))
    if isinstance(spec, ResNetSpec) and spec != other_spec:
        arch = f"resnet,stem_stride={spec.stem_stride},maxpool={spec.maxpool}"
        if isinstance(other_spec, ResNetSpec) and spec.strides != other_spec.strides:
            arch = f"'{arch},strides=[{','.join(map(str, spec.strides))}]'"
        told.append(f"--arch {arch}")
    now, then = encoder.preprocessing, against.preprocessing
    if now.image_size != then.image_size:
        told.append(f"--image-size {now.image_size}")
    told += [
        f"--{part} {_numbers(getattr(now, part))}"
        for part in ("mean", "std")
        if getattr(now, part) != getattr(then, part)
    ]
    return " ".join(told)


def _numbers(values: Triple) -> str:
    return ",".join(f"{value:g}" for value in values)
