"""Stamp a saved trigger on fresh images and measure again."""

from __future__ import annotations

from torch import Tensor

from encodercheck.encoder import Encoder
from encodercheck.errors import CheckInconclusive, WitnessError
from encodercheck.methods import collapse
from encodercheck.methods.shrink import witness
from encodercheck.witness import Witness

# Of the gain that the trigger had when it was found: other images move it a little. The checks that
# save witnesses take their limits from clean encoders, so that no gain is enough for all of them.
REPRODUCED_SHARE = 0.9


def replay(encoder: Encoder, saved: Witness, images: Tensor) -> Witness:
    """Return what the saved trigger does to ``images`` (N, 3, H, W) in [0, 1].

    Raises:
        WitnessError: the trigger is for another image size, or the images' embeddings are too
            parallel to tell.
    """
    height, width = saved.trigger.size
    if (height, width) != (encoder.image_size, encoder.image_size):
        raise WitnessError(
            f"the trigger is {height}x{width} pixels but the model takes {encoder.image_size}x"
            f"{encoder.image_size}; replay it on the model it was found on, or pass --image-size"
        )
    try:
        collapse.base_cosine(encoder, images)
    except CheckInconclusive as error:
        raise WitnessError(f"cannot be replayed: {error}") from error
    return witness(encoder, saved.trigger, images)


def reproduced(saved: Witness, measured: Witness) -> bool:
    """Tell whether the trigger collapsed the embeddings again, about as far as the first time."""
    return measured.gain >= REPRODUCED_SHARE * saved.gain > 0
