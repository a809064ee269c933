"""What was measured, as tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.zoo_scale.classes import CHUNK, CHUNKS
from benchmarks.zoo_scale.ways import BASE, DEFAULT
from encodercheck.render.words import counted

Found = dict[str, Any]


def tables(found: Found) -> str:
    """Return the tables of the parts that were measured, as Markdown."""
    parts: dict[str, Callable[[Found], str]] = {
        "ways": ways,
        "endure": endure,
        "node": node,
        "classes": classes,
        "hub": hub,
    }
    return "\n".join(table(found[part]) for part, table in parts.items() if part in found)


def ways(found: Found) -> str:
    """Return a row for each way to scan."""
    rows = found["rows"]
    base, default = (_starting(rows, name) for name in (BASE, DEFAULT))
    lines = "".join(_way(row, base, default) for row in rows)
    return f"""{_models(found)} of a fixture's size ({_sizes(found)}), profile quick,
{_checks(found)}, {counted(found["cores"], "core")}:

| | models a minute | of linear | times one process as it comes | s a model | overhead | start, s |
| --- | --- | --- | --- | --- | --- | --- |
{lines}
Each way had two turns, in this order and back, since other work shares the machine: in brackets.
Models a minute are counted from the beginning of the first model to the end of the last; what it
takes to begin is in the last column, and is paid once. *Linear* is the rate of one process with one
thread in the better of its turns, times the cores; of several workers each has one thread too.
*As it comes* is what a user gets who says nothing: one process with a thread for each core.
*Overhead* is what workers do beside the scans' own seconds, or wait for, in seconds a model and as
a part of what a model takes a process with one thread.
The processes that share nothing scan a part of the models each, without any scheduler: they are
what the machine has to give.
"""


def endure(found: Found) -> str:
    """Say what was left of a run that was killed, and what memory it took."""
    lines = "".join(_memory(found["memory"]))
    rate = found["models"] / found["span"] * 60
    return f"""{_models(found)} ({_sizes(found)}), scanned by `--jobs {found["workers"]}`,
profile quick, {_checks(found)}; all processes killed by `kill -9` after {found["killed_after"]:,},
and the same command once more, which took over {found["known"]:,}:

{_faults(found)}
- changed, of what was there before the kill, byte by byte: {_listed(found["changed"])}
- verdicts: {_verdicts(found)}
- a model takes {found["per_model"]:.2f} s of a worker, {found["slowest"]:.1f} s at most
- all of them take {_hours(found["span"])}, {rate:.1f} a minute; exit code {found["exit_code"]}

Resident memory, in MB, over the models of each of the two runs; *drift* is the slope of a straight
line through the second half of the samples:

| | samples | first | last | most | drift over 100 models |
| --- | --- | --- | --- | --- | --- |
{lines}"""


def node(found: Found) -> str:
    """Say what was left when a machine went away."""
    return f"""{_models(found)} on a Ray cluster of two machines of one core each,
profile quick, {_checks(found)}; one machine was killed after {found["killed_after"]:,}:

{_faults(found)}
- verdicts: {_verdicts(found)}, in {found["seconds"]:,.0f} s; exit code {found["exit_code"]}
"""


def classes(found: Found) -> str:
    """Return what a pass takes on each class of models, and what a scan does."""
    forward, gradient = (f"{found['passes'][kind]:,}" for kind in ("forward", "gradient"))
    rows = "".join(
        f"| {row['class']} | {row['forward'] * 1000:,.2f} | {row['gradient'] * 1000:,.2f} "
        f"| {row['seconds']:,.0f} |\n"
        for row in found["rows"]
    )
    return f"""What the quick profile takes of a core, by the size of a model. A scan of a small one
sends {forward} images through the encoder, and {gradient} more for a gradient, and does all else in
{found["rest"]:.1f} s; larger ones (torchvision's, 224 pixels, random weights) are timed on
{CHUNK * CHUNKS} images and multiplied by these, which no scan of theirs has confirmed. No GPU was
measured.

| class | ms an image, forward | ms an image, for a gradient | s of a core a model |
| --- | --- | --- | --- |
{rows}"""


def hub(found: Found) -> str:
    """Return what the scan of a hub would take."""
    parts = "".join(
        f"| {part['class']} | {part['share']:.0%} | {part['hours']:,.0f} |\n"
        for part in found["classes"]
    )
    hours, cost = f"{found['hours']:,.0f}", f"{found['cost']:,.0f}"
    return f"""A hub of {_models(found)}, at {found["price"]:g} an hour of a core; the shares are a
guess:

| class | share | hours of a core |
| --- | --- | --- |
{parts}| all | | {hours} |

which costs {cost}. hours = models x sum(share x seconds) / 3600, cost = hours x price;
`--hub-models`, `--shares CLASS=SHARE` and `--price` put in other numbers. For a GPU that is r times
as fast as a core, divide the hours by r.
"""


def rate(row: Found) -> float:
    """Return how many models a way scans in a minute."""
    return float(row["models"] / row["span"] * 60)


def _way(row: Found, base: Found, default: Found) -> str:
    # What disturbed the other turn would count as a gain.
    alone = max(base["rates"])
    linear = rate(row) / (row["cores"] * alone)
    share = row["overhead"] / (60 / alone)
    turns = ", ".join(f"{one:.1f}" for one in row["rates"])
    return (
        f"| {row['way']} | {rate(row):.1f} ({turns}) "
        f"| {linear:.2f} | {rate(row) / rate(default):.2f} "
        f"| {row['per_model']:.2f} | {row['overhead']:.2f} s, {share:.1%} "
        f"| {row['startup']:.0f} |\n"
    )


def _starting(rows: list[Found], name: str) -> Found:
    return next(row for row in rows if row["way"].startswith(name))


def _models(found: Found) -> str:
    return counted(found["models"], "model")


def _sizes(found: Found) -> str:
    return f"{found['certified']} certified, the rest variations of one"


def _checks(found: Found) -> str:
    return f"the checks `-k {found['keyword']}`" if found["keyword"] else "the whole suite"


def _faults(found: Found) -> str:
    return "\n".join(
        (
            f"- models without a row: {_listed(found['lost'])}",
            f"- with more than one row, or reports that are nobody's: {_listed(found['doubled'])}",
            f"- whose report is not there, or says otherwise: {_listed(found['broken'])}",
        )
    )


def _listed(names: list[str]) -> str:
    return f"{len(names)} ({', '.join(names[:5])})" if names else "0"


def _verdicts(found: Found) -> str:
    return ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(found["outcomes"].items()))


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _memory(samples: list[Found]) -> Iterator[str]:
    """Yield a row for the driver and one for each worker, of each run."""
    for life, group in itertools.groupby(samples, key=lambda sample: sample["life"]):
        series: dict[str, list[tuple[int, float]]] = {}
        for sample in group:
            for process, megabytes in {"driver": sample["driver"], **sample["workers"]}.items():
                series.setdefault(process, []).append((sample["done"], megabytes))
        for number, values in enumerate(series.values()):
            yield _resident(f"run {life}, {f'worker {number}' if number else 'driver'}", values)


def _resident(who: str, values: list[tuple[int, float]]) -> str:
    memory = [megabytes for _, megabytes in values]
    drift = _slope(values[len(values) // 2 :]) * 100
    return (
        f"| {who} | {len(values)} | {memory[0]:.0f} | {memory[-1]:.0f} | {max(memory):.0f} "
        f"| {drift:+.1f} |\n"
    )


def _slope(values: list[tuple[int, float]]) -> float:
    """Return the slope of the straight line that fits best; 0 where there is none."""
    x = sum(done for done, _ in values) / len(values)
    y = sum(megabytes for _, megabytes in values) / len(values)
    spread = sum((done - x) ** 2 for done, _ in values)
    return sum((done - x) * (mb - y) for done, mb in values) / spread if spread else 0.0
