"""Results of many models as one Parquet file: a row for each model, check and measurement.

docs/zoo-results.md says what the columns mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encodercheck.cache import atomic_writer
from encodercheck.errors import ConfigError
from encodercheck.report import Finding, Measurement, Report

if TYPE_CHECKING:
    import pyarrow as pa

    from encodercheck.zoo.saved import Result

SCHEMA = "encodercheck.results/1"
P_VALUE = "p_value"
# Rows are written in groups of so many, and no more of them are ever held.
GROUP = 50_000

# Kinds: "word" is a text of which there are few, "text" one of which there may be many.
MODEL_COLUMNS = {
    "model": "word",
    "sha256": "word",
    "architecture": "word",
    "provenance": "word",
    "parameters": "int64",
    "image_size": "int32",
    "embedding_dim": "int32",
    "model_outcome": "word",
    "exit_code": "int8",
    "model_seconds": "float64",
    "finished": "time",
    "profile": "word",
    "strict": "bool",
    "seed": "int64",
    "device": "word",
    "images": "word",
    "image_count": "int64",
    "compared_with": "word",
    "encodercheck_version": "word",
    "torch_version": "word",
    "versions": "word",
}
CHECK_COLUMNS = {
    "check_id": "word",
    "check_name": "word",
    "severity": "word",
    "outcome": "word",
    "counts": "bool",
    "waived": "bool",
    "message": "text",
    "seconds": "float64",
    "witness": "text",
}
MEASUREMENT_COLUMNS = {
    "measurement": "word",
    "value": "float64",
    "limit_value": "float64",
    "direction": "word",
    "measurement_outcome": "word",
    "p_value": "float64",
}
COLUMNS = MODEL_COLUMNS | CHECK_COLUMNS | MEASUREMENT_COLUMNS
REQUIRED = frozenset(MODEL_COLUMNS) - {"finished", "encodercheck_version", "torch_version"}
"""The columns that are never null; the others are where a row has nothing to say in them."""

Row = dict[str, Any]


def require() -> None:
    """Find out before anything is read that Parquet can be written.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--parquet: pyarrow cannot be imported ({error}); pip install 'encodercheck[parquet]'"
        ) from error


def write(path: Path, results: Iterable[tuple[Result, Report]], *, group: int = GROUP) -> int:
    """Write a Parquet file, whole or not at all, and return how many rows it has.

    Memory does not grow with the number of results.

    Raises:
        ConfigError: pyarrow is not installed.
        OutputError: the file cannot be written.
    """
    require()
    import pyarrow as pa
    from pyarrow import parquet

    whole, count = schema(), 0
    rows = chain.from_iterable(rows_of(result, report) for result, report in results)
    with (
        atomic_writer(path) as file,
        parquet.ParquetWriter(file, whole, compression="zstd") as writer,
    ):
        while some := list(islice(rows, group)):
            columns = {name: _column(name, some) for name in COLUMNS}
            writer.write_table(pa.table(columns, schema=whole))
            count += len(some)
    return count


def schema() -> pa.Schema:
    """Return the columns with their types; the file says which version of them it has."""
    import pyarrow as pa

    types = {
        "word": pa.dictionary(pa.int32(), pa.string()),
        "text": pa.string(),
        "time": pa.timestamp("us", tz="UTC"),
        "bool": pa.bool_(),
        "int8": pa.int8(),
        "int32": pa.int32(),
        "int64": pa.int64(),
        "float64": pa.float64(),
    }
    fields = [
        pa.field(name, types[kind], nullable=name not in REQUIRED) for name, kind in COLUMNS.items()
    ]
    return pa.schema(fields, metadata={"encodercheck.schema": SCHEMA})


def rows_of(result: Result, report: Report) -> Iterator[Row]:
    """Yield a row for each measurement; for a check without any, and for a model without checks.

    Who counts models or checks then counts all of them.
    """
    model = _model(result, report)
    for finding in report.findings:
        check = model | _check(finding)
        if not finding.measurements:
            yield check
        for measurement, chance in _with_p_values(finding.measurements):
            yield check | _measurement(measurement, chance)
    if not report.findings:
        yield model


def _model(result: Result, report: Report) -> Row:
    model, images, versions = report.model, report.images, report.versions
    return {
        "model": result.model,
        "sha256": model["sha256"] or result.entry.sha256,
        "architecture": model["architecture"],
        "provenance": model["provenance"],
        "parameters": model["parameters"],
        "image_size": _bounded(model["image_size"]),
        "embedding_dim": _bounded(model["embedding_dim"]),
        "model_outcome": report.outcome.value,
        "exit_code": report.exit_code,
        "model_seconds": report.seconds,
        "finished": _time(result.entry.finished),
        "profile": report.profile,
        "strict": report.strict,
        "seed": report.seed,
        "device": report.device,
        "images": images["source"],
        "image_count": images["count"],
        "compared_with": report.compared_with,
        "encodercheck_version": versions.get("encodercheck"),
        "torch_version": versions.get("torch"),
        "versions": json.dumps(versions, sort_keys=True),
    }


def _check(finding: Finding) -> Row:
    return {
        "check_id": finding.id,
        "check_name": finding.check,
        "severity": finding.severity,
        "outcome": finding.outcome.value,
        "counts": finding.counts,
        "waived": finding.waiver is not None,
        "message": finding.message,
        "seconds": finding.seconds,
        "witness": finding.witness,
    }


def _measurement(measurement: Measurement, chance: float | None) -> Row:
    return {
        "measurement": measurement.name,
        "value": measurement.value,
        "limit_value": measurement.limit,
        "direction": measurement.direction and measurement.direction.value,
        "measurement_outcome": measurement.outcome.value,
        "p_value": chance,
    }


def _with_p_values(
    measurements: Iterable[Measurement],
) -> Iterator[tuple[Measurement, float | None]]:
    """Yield measurements with their p-values, which checks measure right before what they are of.

    They are no rows of their own.
    """
    chance: Measurement | None = None
    for measurement in measurements:
        if measurement.name == P_VALUE and measurement.limit is None:
            if chance is not None:
                yield chance, chance.value
            chance = measurement
            continue
        yield measurement, None if chance is None else chance.value
        chance = None
    if chance is not None:
        # An inconclusive check may have stopped between the two.
        yield chance, chance.value


def _column(name: str, rows: Iterable[Row]) -> list[Any]:
    values = [row.get(name) for row in rows]
    if COLUMNS[name] in ("word", "text"):
        # Half a character, as JSON can have it, is no text to anybody else.
        return [v if v is None or v.isascii() else _whole(v) for v in values]
    return values


def _whole(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _bounded(number: int) -> int:
    """Return what 32 bits hold: a report that says more is wrong, and one for all the others."""
    return min(number, 2**31 - 1)


def _time(text: str) -> datetime | None:
    """Return the moment an ISO 8601 text names, which is UTC unless it says otherwise."""
    try:
        # Python 3.10 does not know the Z.
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
