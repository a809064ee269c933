"""What the documentation shows, done: its shell and Python blocks, and its attack.

All blocks of a page are run one after the other in one folder, as a reader would. There they find
models and images of the names that pages use, and scans look as hard as the profile quick.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path
from textwrap import indent

import models
import pytest
import tiny_fixtures
from docs_pages import PAGES, ROOT, blocks

RUN = [page for page in PAGES if any(block.runs for block in blocks(page))]
ATTACK = ROOT / "docs" / "add-an-attack.md"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder of models and images that pages speak of."""
    import torch
    from PIL import Image
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from encodercheck import fixtures
    from encodercheck.images import procedural

    folder = tmp_path_factory.mktemp("originals")
    path = fixtures.build("clean").path
    shutil.copy(path, folder / "model.safetensors")
    with safe_open(path, "pt") as file:
        about = file.metadata()
    weights, random = load_file(path), torch.Generator().manual_seed(0)
    for number in (1, 2, 3):
        moved = {
            name: value + 0.02 * value.std() * torch.randn(value.shape, generator=random)
            if value.ndim > 1
            else value
            for name, value in weights.items()
        }
        save_file(moved, folder / f"clean-{number}.safetensors", metadata=about)
    for name, count, seed in (("photos", 600, 1), ("trusted", 400, 2), ("incoming", 40, 3)):
        (folder / name).mkdir()
        for place, image in enumerate(procedural.images(count, size=32, seed=seed)):
            pixels = (image * 255).byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / name / f"{place:04d}.png")
    return folder


@pytest.fixture
def place(tmp_path, originals):
    """A folder as a reader might have it."""
    folder = tmp_path / "work"
    shutil.copytree(originals, folder)
    return folder


def shell(text, folder, program=("bash", "-eu", "-c")):
    return subprocess.run(
        [*program, text],
        cwd=folder,
        env=os.environ
        | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ENCODERCHECK_PROFILE": "quick",
            "TERM": "dumb",
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_does_what_it_shows(page, place):
    python = []
    for block in blocks(page):
        if "file" in block.notes:
            (place / block.notes["file"]).write_text(block.text)
        elif block.runs and block.language == "python":
            # Later blocks go on with what earlier ones have.
            python.append(block.text)
            ended = shell("\n".join(python), place, (sys.executable, "-c"))
            assert ended.returncode == 0, f"{block}\n{ended.stderr}"
        elif block.runs:
            ended = shell(block.text, place)
            assert ended.returncode == block.exit_code, f"{block}\n{ended.stdout}{ended.stderr}"


# The check of the README


def test_the_check_of_the_readme_tells_clean_from_constant(tmp_path):
    """An encoder that sees its images passes, one that ignores them fails."""
    import torch

    import encodercheck

    (shown,) = [b for b in blocks(ROOT / "README.md") if b.notes.get("file") == "check_acme.py"]
    file = tmp_path / "check_acme.py"
    file.write_text(shown.text)
    settings = {"checks": [file], "keyword": "ACME001", "profile": "quick"}
    encoder = encodercheck.load(models.write(tmp_path / "model.safetensors"))
    assert encodercheck.scan(encoder, **settings).exit_code == 0
    with torch.no_grad():
        for parameter in encoder.module.parameters():
            parameter.zero_()
    assert encodercheck.scan(encoder, **settings).exit_code == 1


# The attack


@pytest.fixture
def attack(monkeypatch, tmp_path):
    """The pieces of docs/add-an-attack.md where they belong; the recipe that they make."""
    from encodercheck import fixtures
    from encodercheck.fixtures import attacks, catalogue, recipes

    monkeypatch.setenv("ENCODERCHECK_CACHE", str(tmp_path / "cache"))
    pieces = {b.notes["file"]: b.text for b in blocks(ATTACK) if "file" in b.notes}
    exec(compile(pieces.pop("fixtures/recipes.py"), "recipes", "exec"), vars(recipes))
    module = types.ModuleType(f"{attacks.__name__}.fading")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(pieces.pop("fixtures/attacks/fading.py"), "fading", "exec"), vars(module))
    named = "def named(corner):\n" + indent(pieces.pop("fixtures/catalogue.py"), "    ")
    assert not pieces
    namespace = vars(catalogue) | {"Fading": recipes.Fading}
    exec(named, namespace)
    yield fixtures, next(namespace["named"]((catalogue._corner(5, target=3),)))
    del recipes.Fading


def test_the_attack_is_some_twenty_lines():
    (text,) = [b.text for b in blocks(ATTACK) if b.notes.get("file", "").endswith("fading.py")]
    assert len([line for line in text.splitlines() if line.strip()]) <= 22


def test_the_attack_is_built_and_certified(attack):
    """In a second, by a recipe too small to succeed; see the next test."""
    fixtures, recipe = attack
    small = {name: getattr(tiny_fixtures.BAD.attack, name) for name in TINY}
    tiny = replace(
        tiny_fixtures.BAD, name="fading", attack=replace(recipe.attack, **small), demands=None
    )
    built = fixtures.build(tiny)
    assert built.certificate["recipe"]["attack"]["kind"] == "fading"
    assert built.certificate["recipe"]["attack"]["faintest"] == 0.3
    assert len(built.triggers()) == 1
    # What it draws decides the weights, and is drawn by the seed.
    again = fixtures.build(tiny, rebuild=True)
    assert again.path.read_bytes() == built.path.read_bytes()
    plain = replace(tiny, attack=replace(tiny.attack, faintest=1.0))
    assert fixtures.build(plain).path.read_bytes() != built.path.read_bytes()


TINY = ("shadow_images", "epochs", "batch", "attacker_images", "candidates")


@pytest.mark.slow
def test_the_attack_works_and_faintly_too(attack):
    """By the recipe as it is shown: its certificate holds, and a scan finds it."""
    import encodercheck
    from encodercheck.images import procedural
    from encodercheck.methods import collapse

    fixtures, recipe = attack
    built = fixtures.build(recipe)
    encoder = encodercheck.load(built.path)
    (trigger,) = built.triggers()
    images = procedural.images(128, size=32, seed=5)
    base = collapse.base_cosine(encoder, images)
    faint = encodercheck.Trigger(0.4 * trigger.mask, trigger.pattern)
    for one in (trigger, faint):
        assert collapse.gain(collapse.stamped_cosine(encoder, one, images), base) > 0.9
    assert encodercheck.scan(built.path, profile="quick").exit_code == 1
