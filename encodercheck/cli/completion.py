"""What the shell is offered where Tab is pressed: names that are known without importing torch."""

from __future__ import annotations

import os

FIXTURE = "fixture:"
# bash takes a colon for a word of its own, and replaces only what comes after it.
IN_BASH = ["fixture", ":"]
# Before that, Tab is for files.
ENOUGH = 3


def models(incomplete: str) -> list[str]:
    """Offer fixtures as ``fixture:NAME``; nothing, which leaves Tab to the shell, for files."""
    typed = [*IN_BASH, incomplete] if incomplete else IN_BASH
    if _words()[-len(typed) :] == typed:
        return fixtures(incomplete)
    if len(incomplete) < ENOUGH:
        return []
    names = (FIXTURE + name for name in fixtures(""))
    return [name for name in names if name.startswith(incomplete)]


def fixtures(incomplete: str) -> list[str]:
    """Offer the names of the fixtures; after a comma, one more."""
    from encodercheck.fixtures import available

    before, comma, start = incomplete.rpartition(",")
    names = (recipe.name for recipe in available())
    return [f"{before}{comma}{name}" for name in names if name.startswith(start)]


def check_ids(incomplete: str) -> list[str]:
    """Offer the ids of the built-in checks."""
    from encodercheck.harness.runner import builtin_suite
    from encodercheck.harness.sources import written_ids

    found = (id_ for id_, _ in written_ids(builtin_suite()))
    return [id_ for id_ in found if id_.startswith(incomplete)]


def step_over_colon() -> None:
    """Where Tab is pressed in bash right after ``fixture:``, complete what follows the colon."""
    at = os.environ.get("COMP_CWORD", "")
    if at.isdigit() and _words()[-2:] == IN_BASH:
        os.environ["COMP_CWORD"] = str(int(at) + 1)


def _words() -> list[str]:
    """Return what has been typed, as bash says it."""
    return os.environ.get("COMP_WORDS", "").split()
