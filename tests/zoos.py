"""Output folders of scans that never took place."""

from __future__ import annotations

import hashlib
import json

from reports import FAILED, PASSED, UNDECIDED, report

from encodercheck.render import json as render
from encodercheck.zoo.results import SCHEMA, Entry

__all__ = ["FAILED", "PASSED", "UNDECIDED", "fill", "report", "some"]
FINISHED = "2026-11-20T10:00:00+00:00"


def fill(folder, reports, *, finished=FINISHED):
    """Write reports by the names of their models, and a ledger of them; return the folder."""
    (folder / "reports").mkdir(parents=True, exist_ok=True)
    with (folder / "ledger.jsonl").open("a", encoding="utf-8") as ledger:
        for number, made in enumerate(reports):
            name = made.model["path"]
            key = hashlib.sha256(repr((name, made.model["sha256"])).encode()).hexdigest()
            own = folder / "reports" / f"model {number}#-{key[:12]}"
            own.mkdir(exist_ok=True)
            (own / "report.json").write_text(render.render([made]), encoding="utf-8")
            entry = Entry(
                key=key,
                model=name,
                sha256=made.model["sha256"],
                report=f"reports/{own.name}/report.json",
                outcome=made.outcome.value,
                exit_code=made.exit_code,
                seconds=made.seconds,
                finished=finished,
            )
            assert entry.to_dict()["schema"] == SCHEMA
            ledger.write(json.dumps(entry.to_dict()) + "\n")
    return folder


def some(count, *findings):
    """Return reports of so many models, by default passed ones."""
    return [
        report(*(findings or (PASSED,)), path=f"hf://acme/model-{number}", sha256=f"{number:064x}")
        for number in range(count)
    ]
