"""Options for scans of many models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

Listed = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="F",
        help="Scan the models named in a file too, one a line, # begins a comment; - is stdin.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Keep each model's report and witnesses in DIR; what is there already is not "
        "measured again.",
    ),
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Measure again what DIR of --out has already.")
]
Shard = Annotated[
    str | None,
    typer.Option(
        metavar="I/N", help="Scan only the I-th of N parts of the models; see encodercheck merge."
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Scan N models at a time, in processes of their own."),
]
Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", min=0.1, help="Give up on a model after so long."),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="auto|local|ADDRESS",
        help="Scan on a Ray cluster: one that runs here, one made for this, or that at ADDRESS.",
    ),
]
CpusPerModel = Annotated[
    float | None,
    typer.Option(metavar="N", min=0, help="The cores a model takes of the cluster (default: 1)."),
]
GpusPerModel = Annotated[
    float | None,
    typer.Option(
        metavar="N",
        min=0,
        help="The GPUs a model takes, 0.5 too (default: 1 where there are any).",
    ),
]


@dataclass(frozen=True)
class Many:
    """How many models are scanned."""

    out: Path | None = None
    fresh: bool = False
    shard: str | None = None
    jobs: int | None = None
    timeout: float | None = None
    cluster: str | None = None
    cpus: float | None = None
    gpus: float | None = None

    @property
    def asked(self) -> bool:
        """Whether any option here is for more than the scan of one model as ever."""
        return any((self.out, self.shard, self.jobs, self.timeout, self.cluster))
