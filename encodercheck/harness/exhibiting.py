"""Record what a report can show beside its numbers. Nothing here can change how a check ends."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from encodercheck.exhibits import Comparison, Cosines, Exhibit, Note
from encodercheck.harness.isolation import isolated
from encodercheck.harness.outcome import describe
from encodercheck.harness.record import CheckRecord

if TYPE_CHECKING:
    from torch import Tensor

    from encodercheck.harness.state import ScanState
    from encodercheck.methods.dede import Dede
    from encodercheck.methods.null import Null
    from encodercheck.trigger import Trigger
    from encodercheck.witness import Witness

# Enough for a histogram, 120 pairs, and next to nothing beside the search for a trigger.
COSINE_IMAGES = 16
RECONSTRUCTED_IMAGES = 3
# What a check can add of its own: a report is to stay small enough to be mailed.
MOST_PICTURES = 24


@contextmanager
def guarded(record: CheckRecord, what: str) -> Iterator[None]:
    """Make a note of whatever goes wrong in the block, instead of letting the check end by it."""
    try:
        yield
    except KeyboardInterrupt:
        raise
    # A model's own forward may raise anything, pytest's own exceptions and SystemExit too.
    except BaseException as error:
        record.exhibits.append(Note(f"{what} cannot be shown: {describe(error)}"))


def comparison(record: CheckRecord, name: str, value: float, null: Null) -> None:
    """Record what clean encoders measured as ``name``."""
    with guarded(record, f"what clean encoders measured as {name}"):
        shown = Comparison(
            name,
            value,
            clean=null.values,
            scale=null.scale,
            source=null.source,
            p_value=null.p_value(value),
        )
        record.exhibits.append(shown)


def witness(record: CheckRecord, state: ScanState, found: Witness) -> None:
    """Record the trigger and what it does; the last witness of a check is the one that counts."""
    kept = [exhibit for exhibit in record.exhibits if exhibit not in record.of_witness]
    record.exhibits[:] = kept
    with guarded(record, "the trigger"), isolated(state.seed, "exhibits"):
        from encodercheck.harness import pictures

        images = state.images.held_out_images(COSINE_IMAGES)
        shown = found.examples if found.examples is not None else images
        record.exhibits.append(pictures.of_trigger(found.trigger, shown.cpu()))
        record.exhibits.append(_cosines(state, found.trigger, images))
    record.of_witness = record.exhibits[len(kept) :]


def reconstructions(
    record: CheckRecord, state: ScanState, dede: Dede, triggers: list[Trigger]
) -> None:
    """Record what a decoder makes of a few images, under the trigger that spoils it most."""
    with guarded(record, "reconstructions"), isolated(state.seed, "exhibits"):
        from encodercheck.harness import pictures

        images = state.images.held_out_images(RECONSTRUCTED_IMAGES)
        worst = max(triggers, key=lambda trigger: _error(dede, trigger.stamp(images[:1])))
        record.exhibits += pictures.of_reconstructions(dede, images, worst)


def picture(record: CheckRecord, pixels: Tensor, *, caption: str, alt: str) -> None:
    """Record a picture of the check's own."""
    from encodercheck.harness import pictures

    too_many = Note(f"A check shows at most {MOST_PICTURES} pictures: the rest are left out.")
    if len(record.pictures) == MOST_PICTURES:
        if too_many not in record.exhibits:
            record.exhibits.append(too_many)
        return
    with guarded(record, f"the picture {caption!r}"):
        record.pictures.append(pictures.picture(pixels, caption=caption, alt=alt))


def _cosines(state: ScanState, trigger: Trigger, images: Tensor) -> Exhibit:
    import torch

    # Running out of memory halves an encoder's batches, which is not to reach the scan's own.
    encoder = copy.copy(state.encoder)
    embeddings = encoder(torch.cat([images, trigger.stamp(images)])).detach().float().cpu()
    unit = torch.nn.functional.normalize(embeddings, dim=-1)
    first, second = torch.triu_indices(len(images), len(images), offset=1)
    clean, stamped = (
        (part @ part.T)[first, second].tolist() for part in torch.split(unit, len(images))
    )
    return Cosines(tuple(clean), tuple(stamped), len(images))


def _error(dede: Dede, images: Tensor) -> float:
    seen, decoded = dede.reconstruct(images)
    return float((seen - decoded).square().mean())
