"""The house keeps its shape: which rooms may import which, what is public, what is documented."""

import ast
import inspect
from pathlib import Path

import pytest

import encodercheck
from encodercheck.cli.options import ProfileName
from encodercheck.profiles import PROFILES

ROOT = Path(__file__).parents[1]
ROOMS = {
    "encodercheck.checks": ROOT / "checks",
    "encodercheck.fixtures": ROOT / "fixtures",
    "encodercheck": ROOT / "encodercheck",
}

# Who must not import whom. A recipe that could see the detector could be tuned to it.
FORBIDDEN = {
    "encodercheck.errors": ["encodercheck."],
    "encodercheck.exhibits": ["encodercheck."],
    "encodercheck.weights": ["encodercheck.methods", "encodercheck.harness", "encodercheck.images"],
    "encodercheck.encoder": ["encodercheck.methods", "encodercheck.harness", "encodercheck.render"],
    "encodercheck.images": ["encodercheck.methods", "encodercheck.harness"],
    "encodercheck.trigger": ["encodercheck.methods", "encodercheck.harness"],
    "encodercheck.methods": ["encodercheck.harness", "encodercheck.render", "encodercheck.report"],
    "encodercheck.checks": ["encodercheck.harness", "encodercheck.render", "encodercheck.report"],
    "encodercheck.fixtures": [
        "encodercheck.checks",
        "encodercheck.methods",
        "encodercheck.harness",
    ],
    "encodercheck.render": ["encodercheck.methods", "encodercheck.harness", "encodercheck.images"],
    "encodercheck.harness": ["encodercheck.render", "encodercheck.fixtures", "encodercheck.checks"],
}


def _modules():
    for package, folder in ROOMS.items():
        for file in sorted(folder.rglob("*.py")):
            parts = file.relative_to(folder).with_suffix("").parts
            yield ".".join([package, *(part for part in parts if part != "__init__")]), file


def _imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _within(name, room):
    return name == room or name.startswith(room if room.endswith(".") else f"{room}.")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_run_one_way(room):
    inside = [(name, file) for name, file in _modules() if _within(name, room)]
    assert inside
    wrong = [
        f"{name} imports {imported}"
        for name, file in inside
        for imported in _imports(file)
        for forbidden in FORBIDDEN[room]
        if _within(imported, forbidden)
    ]
    assert not wrong


def test_nothing_sees_the_command_line():
    wrong = [
        name
        for name, file in _modules()
        if not _within(name, "encodercheck.cli") and name != "encodercheck.__main__"
        for imported in _imports(file)
        if _within(imported, "encodercheck.cli")
    ]
    assert not wrong


def test_the_public_names():
    assert encodercheck.__all__ == [
        "Encoder",
        "Finding",
        "Measurement",
        "Report",
        "Trigger",
        "load",
        "scan",
    ]


@pytest.mark.parametrize("name", encodercheck.__all__)
def test_public_names_are_there_and_documented(name):
    thing = getattr(encodercheck, name)
    assert inspect.getdoc(thing)
    parameters = inspect.signature(thing).parameters.values()
    assert all(parameter.annotation is not parameter.empty for parameter in parameters)


def test_the_command_line_offers_every_profile():
    assert [name.value for name in ProfileName] == list(PROFILES)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'scna'"):
        _ = encodercheck.scna
