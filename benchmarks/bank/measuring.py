"""Measure what the checks measure on the bank's encoders, searches to their end, with their traits.

Rows hold numbers only. A row of an encoder is measured with the profile standard, on the images of
a scan without ``--images`` or, for a third of the members, on images of its own source.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.bank import making
from benchmarks.bank.members import Member, world
from encodercheck.cache import atomic_write_text, cache_dir
from encodercheck.encoder import Encoder
from encodercheck.errors import CheckInconclusive
from encodercheck.fixtures.recipes import stream
from encodercheck.fixtures.worlds import WORLDS
from encodercheck.images import source
from encodercheck.images.split import CleanImages, CleanSplit
from encodercheck.methods import (
    battery,
    collapse,
    decree,
    evidence,
    inversion,
    recognition,
    traits,
)
from encodercheck.methods.collapse import HALF_CONTRAST, Clean
from encodercheck.methods.inversion import Inversion
from encodercheck.profiles import PROFILES
from encodercheck.trigger import Trigger

PROFILE = PROFILES["standard"]
WARM_STARTS = 4
SEED = 0
FOLDER = Path(__file__).parent

Row = dict[str, Any]


def path(member: Member, *, poisoned: bool) -> Path:
    """Return where the row of an encoder is kept until all are gathered."""
    name = f"{member.number:03d}-{'poisoned' if poisoned else 'clean'}.json"
    return cache_dir() / "bank" / "rows" / name


def images(member: Member) -> Tensor:
    """Return the images of the scan (N, 3, H, W), which no encoder was trained on."""
    count = PROFILE.search + PROFILE.held_out
    if member.scanned_on == "procedural":
        return source.collect(None, count, size=member.size, seed=SEED).images
    own = WORLDS[world(member.scanned_on)]
    return own(count, size=member.size, seed=stream(member.seed, "scan"))[0]


def measure(member: Member, *, poisoned: bool) -> Row | None:
    """Return the row of an encoder, from the cache where it is there; None without the encoder."""
    place = path(member, poisoned=poisoned)
    if place.exists():
        return dict(json.loads(place.read_text()))
    name = "poisoned" if poisoned else "clean"
    if not (making.folder(member) / f"{name}.safetensors").exists():
        return None
    encoder = making.read(member, poisoned=poisoned)
    split = CleanImages.of(images(member), PROFILE.search).split()
    started = time.process_time()
    row: Row = {
        "number": member.number,
        "family": member.kind,
        "method": member.method,
        "source": member.source,
        "scanned_on": member.scanned_on,
        "attack": member.attack if poisoned else None,
    }
    try:
        clean = Clean.of(encoder, split.held_out, fitted_on=split.search)
        row |= values(encoder, split, clean)
        own = making.triggers(member) if poisoned else []
        row["own"] = [_gains(encoder, trigger, split, clean) for trigger in own]
    except CheckInconclusive as error:
        row["inconclusive"] = str(error)
    row["seconds"] = round(time.process_time() - started, 1)
    place.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(place, json.dumps(row) + "\n")
    return row


def values(encoder: Encoder, split: CleanSplit, clean: Clean) -> Row:
    """Return traits, values of the searches, and what each left as evidence."""
    row: Row = {"traits": _rounded(traits.traits(encoder, split, seed=SEED))}
    hits = inversion.sift(encoder, split.search, PROFILE, seed=SEED)
    scores = sorted(hit.score for hit in hits)
    row["battery"] = [round(scores[int(q * (len(scores) - 1))], 4) for q in (0.25, 0.5, 0.75, 0.9)]
    row["EC102"] = _gains(encoder, battery.best(encoder, hits, split.search), split, clean)
    found = inversion.invert(encoder, split.search, hits=hits, profile=PROFILE, seed=SEED)
    row["EC202"] = _searched(encoder, split, clean, found)
    smallest = decree.smallest_confirmed(
        encoder,
        decree.minimise(
            encoder,
            split.search,
            found.candidates[:WARM_STARTS],
            steps=PROFILE.decree_steps,
            seed=SEED,
        ),
        split.held_out,
    )
    row["EC201"] = {"pl1": smallest.pl1 if smallest else 1.0}
    faint = inversion.invert_faint(encoder, split.search, profile=PROFILE, seed=SEED)
    row["EC203"] = _searched(encoder, split, clean, faint)
    large = inversion.invert_large(encoder, split.search, hits=hits, profile=PROFILE, seed=SEED)
    row["EC204"] = _searched(encoder, split, clean, large)
    row["EC205"] = forgotten(encoder, split)
    return row


def forgotten(encoder: Encoder, split: CleanSplit) -> Row:
    """Return what EC205 measures."""
    found = recognition.forget(encoder, split.search, profile=PROFILE, seed=SEED)
    seen = recognition.recognition(encoder, found.trigger, split)
    half = recognition.recognition(encoder, found.trigger.at_contrast(HALF_CONTRAST), split)
    return _rounded(
        {
            "forgotten": seen.forgotten,
            "forgotten_centred": seen.forgotten_centred,
            "recognised": seen.recognised,
            "half_contrast_forgotten": half.forgotten,
            "half_contrast_forgotten_centred": half.forgotten_centred,
        }
    ) | {"trace": [round(score, 3) for score in found.trace]}


def _searched(encoder: Encoder, split: CleanSplit, clean: Clean, found: Inversion) -> Row:
    unseen = split.held_out
    mean, most = evidence.same_size(encoder, unseen, clean, found.trigger, seed=SEED)
    return (
        _gains(encoder, found.trigger, split, clean)
        | _rounded(
            {
                "elsewhere": evidence.elsewhere(found),
                "middle": evidence.middle(found),
                "random_mean": mean,
                "random_max": most,
            }
        )
        | {"trace": [round(score, 3) for score in found.trace]}
    )


def _gains(encoder: Encoder, trigger: Any, split: CleanSplit, clean: Clean) -> Row:
    """Return the gains of a trigger, and of the same at half contrast where it has a contrast."""
    found = collapse.under(encoder, trigger, split.held_out, clean)
    row = {"gain": found.gain, "whitened_gain": found.whitened_gain}
    if isinstance(trigger, Trigger):
        half = collapse.under(encoder, trigger.at_contrast(HALF_CONTRAST), split.held_out, clean)
        row |= {"half_contrast_gain": half.gain, "half_contrast_whitened_gain": half.whitened_gain}
    return _rounded(row, 6)


def _rounded(values: dict[str, float], digits: int = 5) -> Row:
    return {name: round(value, digits) for name, value in values.items()}
