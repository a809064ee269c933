"""How hard a scan looks: image counts, restarts and steps, by profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """The effort of a scan.

    ``search`` images are what triggers are searched on; ``held_out`` images are what they are
    scored on; no image is ever both. ``restarts``, ``steps`` and ``batch``, the images of a step,
    are those of budget inversion; ``decree_steps`` are the minimal-mask search's;
    ``battery_images`` are what the battery is sifted on, ``decoder_images`` what a decoder learns
    from. ``informs`` tells whether what can decide nothing is measured for information.
    """

    name: str
    search: int
    held_out: int
    batch: int
    restarts: int
    steps: int
    decree_steps: int
    battery_images: int
    decoder_images: int
    informs: bool = True


PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "quick",
            search=96,
            held_out=128,
            batch=8,
            restarts=8,
            steps=25,
            decree_steps=40,
            battery_images=4,
            decoder_images=1000,
            informs=False,
        ),
        Profile(
            "standard",
            search=96,
            held_out=256,
            batch=8,
            restarts=12,
            steps=40,
            decree_steps=80,
            battery_images=4,
            decoder_images=1000,
        ),
        Profile(
            "thorough",
            search=192,
            held_out=512,
            batch=16,
            restarts=32,
            steps=80,
            decree_steps=300,
            battery_images=24,
            decoder_images=4000,
        ),
    )
}
