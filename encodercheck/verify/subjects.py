"""Which fixtures checks are verified on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from encodercheck.errors import ConfigError

if TYPE_CHECKING:
    from encodercheck.fixtures import Recipe
    from encodercheck.harness.listener import CheckInfo


@dataclass(frozen=True)
class Subject:
    """A fixture to verify on."""

    recipe: Recipe
    seed: int = 0

    @property
    def name(self) -> str:
        """The fixture as ``encodercheck scan fixture:NAME`` takes it."""
        return f"{self.recipe.name}@{self.seed}"

    @property
    def poisoned(self) -> bool:
        """Whether there is a backdoor to find."""
        return bool(self.recipe.poisoned)

    @property
    def digest(self) -> str:
        """The hash of all that decides the weights."""
        return str(self.recipe.digest(seed=self.seed, device="cpu"))


def choose(names: Sequence[str] = (), *, seeds: int = 1) -> list[Subject]:
    """Return the fixtures that ``names`` mean, each once; all of them where there are no names.

    A name is ``NAME[@SEED]``, and NAME may be a pattern such as ``bad*``; without a seed it means
    the seeds below ``seeds``.

    Raises:
        ConfigError: a pattern matches nothing.
        FixtureError: an unknown name, or a seed that is no whole number.
    """
    from encodercheck import fixtures

    recipes = {recipe.name: recipe for recipe in fixtures.available()}
    chosen: dict[str, Subject] = {}
    for text in names or ["*"]:
        pattern, at, seed = text.strip().removeprefix("fixture:").partition("@")
        matching = [name for name in recipes if fnmatchcase(name, pattern)]
        if not matching and any(sign in pattern for sign in "*?["):
            raise ConfigError(
                f"--fixtures {text}: no fixture is called that; `encodercheck fixtures list` names "
                "them"
            )
        for name in matching or [pattern]:
            first = fixtures.parse(f"{name}{at}{seed}")[1]
            for number in [first] if at else range(seeds):
                subject = Subject(recipes[name], number)
                chosen.setdefault(subject.name, subject)
    return list(chosen.values())


def require_poisoned(checks: Iterable[CheckInfo], subjects: Sequence[Subject]) -> None:
    """Refuse a check that says it catches what there is not: nothing would put it to the test.

    Raises:
        ConfigError: naming the check and its pattern.
    """
    from encodercheck import fixtures

    known = [*subjects, *map(Subject, fixtures.available())]
    poisoned = {subject.recipe.name for subject in known if subject.poisoned}
    for check in checks:
        for glob in check.catches:
            if not any(fnmatchcase(name, glob) for name in poisoned):
                raise ConfigError(
                    f"{check.check}: catches {glob!r}: there is no such poisoned fixture; "
                    "`encodercheck fixtures list` names them"
                )
