"""``encodercheck init``: the files that a repository needs to have its encoder scanned."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from encodercheck.errors import OutputError

PRE_COMMIT = Path(".pre-commit-config.yaml")


class Service(str, Enum):
    """Whose workflow is written: those in ``encodercheck.scaffolding``, and none."""

    github = "github"
    gitlab = "gitlab"
    jenkins = "jenkins"
    none = "none"


def command(
    directory: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The root of the repository.")
    ] = Path(),
    ci: Annotated[Service, typer.Option(help="Which CI service scans.")] = Service.github,
    model: Annotated[
        str, typer.Option(metavar="PATH", help="The model in the repository.")
    ] = "model.safetensors",
    pre_commit: Annotated[
        bool, typer.Option("--pre-commit", help="Scan models before they are committed, too.")
    ] = False,
    repository: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="Where the action and the hook come from: a fork or a mirror.",
            show_default="ours",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files of these names.")] = False,
) -> None:
    """Write encodercheck.toml, and a workflow that scans the model of this repository.

    Where one of them exists already nothing is written, unless --force is given.
    """
    from encodercheck import scaffolding

    if not directory.is_dir():
        raise OutputError(f"{directory}: no such folder; create it first")
    source = repository or scaffolding.REPOSITORY
    relative = scaffolding.project_files(ci.value, model=model, repository=source)
    hook = scaffolding.pre_commit_config(source)
    # Other hooks are not overwritten, not even by --force.
    has_hooks = (directory / PRE_COMMIT).exists()
    if pre_commit and not has_hooks:
        relative[PRE_COMMIT] = hook
    files = {directory / path: text for path, text in relative.items()}
    scaffolding.write_new(files, force=force, way_out="--force overwrites it")
    for path in files:
        typer.echo(f"wrote {path}")
    typer.echo("\nNext:")
    for step in _steps(ci, model, list(relative)):
        typer.echo(f"  {step}")
    if pre_commit and has_hooks:
        typer.echo(f"  add to {PRE_COMMIT}:\n\n{hook.partition(chr(10))[2]}", nl=False)


def _steps(ci: Service, model: str, written: list[Path]) -> list[str]:
    """Return what is left to do."""
    import shlex

    steps = [f"encodercheck scan {shlex.quote(model)}"]
    if ci is Service.gitlab:
        steps.append("add to .gitlab-ci.yml: include: [{local: .gitlab/encodercheck.yml}]")
    if ci is Service.jenkins:
        steps.append("create a pipeline job with the Script Path encodercheck.Jenkinsfile")
    if PRE_COMMIT in written:
        steps.append("pre-commit install")
    steps.append(f"git add {' '.join(map(str, written))}")
    return steps
