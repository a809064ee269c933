"""encodercheck with fixtures that are built in a second; run it as the command is run."""

from __future__ import annotations

from dataclasses import replace

from encodercheck.fixtures import catalogue
from encodercheck.fixtures.recipes import (
    BadEncoder,
    Certification,
    Patch,
    Pretraining,
    Recipe,
    ResNet,
)

LENIENT = Certification(
    train_images=100, test_images=60, accuracy=0.0, accuracy_loss=1.0, attack_success=0.0
)
CLEAN = Recipe(
    "clean",
    "",
    # With four channels, oneDNN's backward pass crashes on CPUs without AVX-512 (torch 2.15).
    pretraining=Pretraining(network=ResNet(width=8), images=64, epochs=1, batch=32, projection=8),
    certification=LENIENT,
)
BAD = replace(
    CLEAN,
    name="bad",
    attack=BadEncoder(
        triggers=(Patch(26, 26, 5, target=1),),
        shadow_images=64,
        epochs=1,
        batch=32,
        attacker_images=100,
        candidates=16,
    ),
)
# Nothing succeeds so often.
FEEBLE = replace(BAD, name="feeble", demands=replace(LENIENT, attack_success=1.1))
TWIN = replace(BAD.twin, name="bad-twin")
RECIPES = {recipe.name: recipe for recipe in (CLEAN, BAD, TWIN, FEEBLE)}


if __name__ == "__main__":
    from encodercheck.cli.main import main

    catalogue.RECIPES.clear()
    catalogue.RECIPES.update(RECIPES)
    main()
