"""Files to start from: a check and its test, a configuration, a workflow of a CI service."""

from __future__ import annotations

import re
import shlex
import string
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path

from encodercheck.cache import atomic_write_text, make_folder
from encodercheck.errors import ConfigError, OutputError
from encodercheck.harness.sources import written_ids

TEMPLATES = Path(__file__).with_name("scaffold")
# Where the action and the pre-commit hook are published; `init --repository` names another.
REPOSITORY = "encodercheck/encodercheck"
# Of a name and of an id, so that the lines of a check fit into 88 columns.
LONGEST = 40
NAME = re.compile(r"[a-z_][a-z0-9_]*")
ID = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
# What needs no quotes in YAML, nor other than single ones in a shell or a Jenkinsfile.
MODEL = re.compile(r"[A-Za-z0-9_./][\w./:@+ -]*[\w./]", re.ASCII)
REPOSITORY_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)


class Template(string.Template):
    """Text with ``%%{name}`` in it: YAML has dollar signs of its own."""

    delimiter = "%%"


def fill(template: str, **values: str) -> str:
    """Return a template of this package, filled in."""
    text = (TEMPLATES / f"{template}.template").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def check_files(
    name: str, id_: str | None, severity: str, *, beside: Iterable[Path] = ()
) -> dict[str, str]:
    """Return the names and the texts of a check and its test.

    ``id_`` is the name in capitals where it is None; ``beside`` are folders of checks whose ids are
    taken.

    Raises:
        ConfigError: the name or the id cannot be a check's, or the id is taken.
    """
    name = check_name(name)
    id_ = check_id(id_ or name.strip("_").upper())
    file = f"check_{name}.py"
    for taken, where in (found for folder in beside for found in written_ids(folder)):
        # That the file itself exists is another fault.
        if taken == id_ and where.name != file:
            raise ConfigError(f"check id {id_}: taken by {where}; choose another with --id")
    values = {"name": name, "id": id_, "severity": severity}
    return {
        file: fill("check.py", **values),
        f"test_check_{name}.py": fill("test_check.py", **values),
    }


def check_name(text: str) -> str:
    """Return what comes after ``check_`` in a check's name.

    Raises:
        ConfigError: no Python function can be called that.
    """
    name = text.removeprefix("check_")
    if not NAME.fullmatch(name) or not name.strip("_"):
        raise ConfigError(
            f"{text!r}: not a name for a check; use lower-case letters, digits and underscores, "
            "as in corner_squares"
        )
    if len(name) > LONGEST:
        raise ConfigError(f"{text!r}: longer than {LONGEST} letters; choose a shorter name")
    return name


def check_id(text: str) -> str:
    """Return a check's id as it is.

    Raises:
        ConfigError: it is none.
    """
    if not ID.fullmatch(text):
        raise ConfigError(
            f"--id {text!r}: use letters, digits, dots, dashes and underscores, as in ACME001"
        )
    if len(text) > LONGEST:
        raise ConfigError(f"--id {text!r}: longer than {LONGEST} letters; choose a shorter id")
    return text


def write_new(files: Mapping[Path, str], *, force: bool = False, way_out: str) -> None:
    """Write files, all of them or none where one exists already.

    Raises:
        OutputError: a file exists and not ``force``, or it cannot be written.
    """
    for path in files:
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; move it away")
        if path.exists() and not force:
            raise OutputError(f"{path}: exists already; {way_out}")
    for path, text in files.items():
        make_folder(path.parent)
        atomic_write_text(path, text)


def project_files(ci: str, *, model: str, repository: str = REPOSITORY) -> dict[Path, str]:
    """Return what a repository needs to scan its encoder: relative paths and texts.

    Raises:
        ConfigError: the model or the repository cannot be written into them.
    """
    files = {Path("encodercheck.toml"): fill("encodercheck.toml")}
    if ci in CI_FILES:
        path, template = CI_FILES[ci]
        files[path] = fill(template, **_values(model, repository))
    return files


def pre_commit_config(repository: str = REPOSITORY) -> str:
    """Return a configuration of pre-commit with our hook.

    Raises:
        ConfigError: the repository is none.
    """
    return fill("pre-commit-config.yaml", **_values("model.safetensors", repository))


def _values(model: str, repository: str) -> dict[str, str]:
    """Return what the templates of a project ask for; unusual characters stay out of them."""
    if not MODEL.fullmatch(model):
        raise ConfigError(
            f"--model {model!r}: a workflow takes letters, digits, spaces and ._/:@+- in a path; "
            "rename the file"
        )
    if not REPOSITORY_NAME.fullmatch(repository):
        raise ConfigError(f"--repository {repository!r}: write OWNER/NAME, as {REPOSITORY}")
    return {
        "model": model,
        "model_quoted": shlex.quote(model),
        "repository": repository,
        "version": version("encodercheck"),
    }


# Files of their own where a service allows it, so that none of the user's is touched.
CI_FILES = {
    "github": (Path(".github/workflows/encodercheck.yml"), "github.yml"),
    "gitlab": (Path(".gitlab/encodercheck.yml"), "gitlab.yml"),
    "jenkins": (Path("encodercheck.Jenkinsfile"), "Jenkinsfile"),
}
