"""Add a waiver to a configuration file, whose other content stays as it is, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from encodercheck.cache import atomic_write_bytes
from encodercheck.config import Config, parse, prefix, short
from encodercheck.errors import ConfigError
from encodercheck.known.waivers import PREFIX, ModelWaiver
from encodercheck.report import Finding, Outcome, Report
from encodercheck.suggest import did_you_mean


def waiver_for(
    reports: Sequence[Report],
    check: str,
    *,
    reason: str,
    expires: date,
    today: date,
    model: str | None = None,
) -> ModelWaiver:
    """Return a waiver of what ``check`` found, on the one model of ``reports`` that failed it.

    ``model`` names it, by its path or hash, where several did.

    Raises:
        ConfigError: there is no such failure, there are several, or the waiver would be none.
    """
    report = _failed(reports, check, model)
    sha256 = str(report.model.get("sha256") or "")
    if not sha256:
        raise ConfigError(f"{report.model.get('path')}: has no weights to waive anything for")
    if expires < today:
        raise ConfigError(f"--expires {expires}: is over already; name a day to come")
    try:
        return ModelWaiver(sha256, check, reason, expires)
    except ValueError as error:
        raise ConfigError(f"no waiver: {error}") from error


def add(path: Path, waiver: ModelWaiver) -> None:
    """Append a waiver to the file at ``path``, which is made where there is none.

    Raises:
        ConfigError: the file is malformed, or would be with the waiver in it.
        OutputError: the file cannot be written.
    """
    # A link stays one.
    path = path.resolve()
    atomic_write_bytes(path, with_waiver(path, _content(path), waiver))


def with_waiver(path: Path, raw: bytes | None, waiver: ModelWaiver) -> bytes:
    """Return what the file at ``path``, with the content ``raw``, is to hold.

    Raises:
        ConfigError: it is malformed, or would be.
    """
    before = Config(path) if raw is None else parse(path, raw)
    raw = raw or b""
    newline = b"\r\n" if b"\r\n" in raw else b"\n"
    lines = waiver.to_toml(f"{prefix(path)}waivers").encode().replace(b"\n", newline)
    gap = b"" if not raw else newline if raw.endswith(b"\n") else newline * 2
    content = raw + gap + lines
    try:
        after = parse(path, content)
    except ConfigError as error:
        raise ConfigError(
            f"{short(path)}: a waiver cannot be appended to it; write waivers as [[waivers]] tables"
        ) from error
    if after.values != {**before.values, "waivers": (*before.waivers, waiver)}:
        raise ConfigError(f"{short(path)}: a waiver at its end would mean something else")
    return content


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{short(path)}: cannot be read ({error.strerror})") from error


def _failed(reports: Sequence[Report], check: str, model: str | None) -> Report:
    """Return the report of the one model that failed ``check``."""
    meant = [report for report in reports if model is None or _is(report, model)]
    if not meant:
        paths = [str(report.model.get("path")) for report in reports]
        raise ConfigError(
            f"--model {model}: is not in the report; {did_you_mean(model or '', paths)}"
        )
    found = {id(report): _finding(report, check) for report in meant}
    failed = [
        report
        for report in meant
        if (finding := found[id(report)]) and finding.outcome is Outcome.FAILED
    ]
    if len({report.model.get("sha256") for report in failed}) > 1:
        paths = [str(report.model.get("path")) for report in failed]
        raise ConfigError(f"{check} failed on {', '.join(paths)}; choose one with --model")
    if failed:
        return failed[0]
    outcomes = [finding.outcome.value for finding in found.values() if finding]
    if outcomes:
        raise ConfigError(f"{check}: {outcomes[0]}; only a failure can be waived")
    ids = [finding.id for report in meant for finding in report.findings]
    raise ConfigError(f"{check}: is no check of the report; {did_you_mean(check, ids)}")


def _finding(report: Report, check: str) -> Finding | None:
    return next((finding for finding in report.findings if finding.id == check), None)


def _is(report: Report, model: str) -> bool:
    return model.removeprefix(PREFIX) in (report.model.get("path"), report.model.get("sha256"))
