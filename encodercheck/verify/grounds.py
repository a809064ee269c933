"""What a finding rests on beside the model, as a hash: while it is the same, the finding stands."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encodercheck.cache import content_hash

if TYPE_CHECKING:
    from encodercheck.harness.hermetic import Root
    from encodercheck.harness.runner import Part

PACKAGE = Path(__file__).parents[1]
READ = (".py", ".json", ".ini", ".xz")
# What shows and judges findings does not change them. The checks are hashed one by one, and the
# fixtures are known by their model files.
UNINVOLVED = (
    "cli/",
    "render/",
    "checks/",
    "fixtures/",
    "intervals.py",
    "verify/judging.py",
    "verify/verification.py",
    "verify/workers.py",
    "zoo/",
)
CHECKS = "check_*.py"


def grounds(parts: Sequence[Part], settings: Mapping[str, Any]) -> dict[str, str]:
    """Return, for each check by its id, the hash of its code, of the package and of settings.

    A check's code is its file, without what it claims to catch, and the Python files beside it that
    are no checks: to edit one check leaves the findings of others as they are.
    """
    common = content_hash({"package": package_digest(), **settings})
    return {
        info.id: content_hash([common, info.check, _code(part.root, info.check.partition("::")[0])])
        for part in parts
        for info in part.infos
    }


def package_digest() -> str:
    """Return the hash of everything in the installed package that a finding can depend on."""
    files = (file for file in PACKAGE.rglob("*") if file.suffix in READ)
    involved = (
        file for file in files if not file.relative_to(PACKAGE).as_posix().startswith(UNINVOLVED)
    )
    return _digest(involved, PACKAGE)


def builders_digest() -> str:
    """Return the hash of the code that builds fixtures."""
    from encodercheck import fixtures

    folder = Path(str(fixtures.__file__)).parent
    return _digest(folder.rglob("*.py"), folder)


def _code(root: Root, file: str) -> str:
    own = root.folder / file
    beside = python_files(root.folder) if root.folder in root.paths else root.folder.glob("*.py")
    helpers = (path for path in beside if path != own and not path.match(CHECKS))
    return content_hash([_without_claims(own), _digest(helpers, root.folder)])


def _without_claims(file: Path) -> str | None:
    """Return the syntax of a check file but for ``catches`` in its markers."""
    source = _content(file)
    if source is None:
        return None
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return content_hash(source)
    for node in ast.walk(tree):
        for call in getattr(node, "decorator_list", ()):
            if isinstance(call, ast.Call):
                call.keywords = [
                    word for word in call.keywords if word.arg not in ("catches", "cost")
                ]
    return ast.dump(tree)


def python_files(folder: Path) -> Iterator[Path]:
    """Yield the Python files in a folder and below, but for hidden folders and environments."""
    for place, folders, files in os.walk(folder):
        here = Path(place)
        folders[:] = [f for f in folders if f[0] != "." and not (here / f / "pyvenv.cfg").exists()]
        yield from (here / file for file in files if file.endswith(".py"))


def _digest(files: Iterable[Path], folder: Path) -> str:
    contents = {file.relative_to(folder).as_posix(): _content(file) for file in files}
    return content_hash({name: data and content_hash(data) for name, data in contents.items()})


def _content(file: Path) -> bytes | None:
    """Return what is in a file; None where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError:
        return None
