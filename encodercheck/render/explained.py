"""What the built-in checks mean, for formats that explain themselves: docs/checks.md in short."""

from __future__ import annotations

from dataclasses import dataclass

BADENCODER = "https://arxiv.org/abs/2108.00352"
DECREE = "https://arxiv.org/abs/2303.15180"
DEDE = "https://arxiv.org/abs/2411.16154"
RANKME = "https://arxiv.org/abs/2210.02885"
CTRL = "https://arxiv.org/abs/2210.07346"

RESCAN = "Do not use the encoder before the cause is known. "
REPLAY = (
    "Do not use the encoder, nor classifiers built on it, before the trigger is explained. "
    "`encodercheck replay WITNESS MODEL` stamps it on fresh images and measures again. Where the "
    "images of the scan are of another kind than those the encoder was trained on, scan again with "
    "`--images`; where no clean encoder of its architecture was compared with, measure some with "
    "`encodercheck calibrate` and scan with `--null`."
)


@dataclass(frozen=True)
class Explanation:
    """What a check does, what to do where it fails, and where its method comes from."""

    meaning: str
    advice: str
    source: str | None = None


EXPLANATIONS = {
    "EC001": Explanation(
        "Weights and embeddings are finite; the same images embed the same twice, and the same "
        "alone as in a batch.",
        RESCAN + "Fetch the weights again and compare their hash with the publisher's.",
    ),
    "EC101": Explanation(
        "The encoder does not ignore its input: embeddings of clean images differ by more than "
        "rounding, and with their mean taken off they span at least two directions. This says "
        "nothing of backdoors.",
        RESCAN + "See with `encodercheck identify` whether its preprocessing is right.",
        RANKME,
    ),
    "EC102": Explanation(
        "Canonical patches and frequencies are stamped on images that no search has seen. A hit "
        "is an alarm; no hit is no proof, since a real trigger need not be among them.",
        REPLAY,
        CTRL,
    ),
    "EC201": Explanation(
        "DECREE's search for the smallest trigger that makes embeddings alike. In a backdoored "
        "encoder it is smaller than in clean ones.",
        REPLAY,
        DECREE,
    ),
    "EC202": Explanation(
        "The trigger on 3 % of the image that makes images most alike is searched for, and "
        "measured on images that the search has not seen.",
        REPLAY,
        BADENCODER,
    ),
    "EC203": Explanation(
        "The faint change of the whole image that makes images most alike is searched for: a "
        "pattern added within 16/255, or a picture blended in at a fifth.",
        REPLAY,
        BADENCODER,
    ),
    "EC204": Explanation(
        "The rectangle on 12 % of the image that makes images most alike is searched for: large "
        "triggers leave too little of themselves within 3 %.",
        REPLAY,
        BADENCODER,
    ),
    "EC205": Explanation(
        "The rectangle on 3 % of the image under which an embedding tells least of its image is "
        "searched for: a backdoor erases what is on the rest, even where it keeps images apart.",
        REPLAY,
    ),
    "EC301": Explanation(
        "A decoder learns to reconstruct clean images from their embeddings. Under a backdoor's "
        "trigger the embedding no longer tells what is in the patches beside it.",
        REPLAY,
        DEDE,
    ),
    "EC000": Explanation(
        "A scan could not start: the model, the images or an option is unusable.",
        "The message says what is wrong, and the way out.",
    ),
}
