"""Checks as guests of the user's own pytest, whose settings and reports stay in charge."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from encodercheck.errors import CheckFailed, CheckInconclusive, ConfigError, EncoderCheckError
from encodercheck.harness import fixtures, lifecycle
from encodercheck.harness.hermetic import refuse_optimized_python
from encodercheck.harness.identity import (
    CheckModule,
    base_id,
    check_info,
    is_check,
    place,
    require_distinct,
)
from encodercheck.harness.record import RECORD, CheckRecord
from encodercheck.harness.state import SCAN, Scan

PATTERN = "check_*.py"


def host_checks(config: pytest.Config) -> None:
    """Have this pytest run collect and run checks on ``--encoder``.

    Raises:
        UsageError: under ``python -O`` or pytest-xdist.
    """
    with _as_usage_errors():
        refuse_optimized_python()
    _refuse_workers(config)
    # The same list decides which files are collected and which asserts are explained.
    config.addinivalue_line("python_files", PATTERN)
    for plugin in (fixtures, lifecycle, Guest(config)):
        config.pluginmanager.register(plugin)


def _refuse_workers(config: pytest.Config) -> None:
    """Refuse pytest-xdist, which would load the encoder once for each worker."""
    distributed = any(getattr(config.option, name, None) for name in ("numprocesses", "tx"))
    if distributed or hasattr(config, "workerinput"):
        raise pytest.UsageError(
            "--encoder does not go with pytest-xdist: every worker would load a model of its own; "
            "run without -n"
        )


class Guest:
    """A pytest plugin that collects checks, prepares the scan and words the reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_report_header(self) -> str:
        """Name the encoder."""
        return f"encoder: {self._config.getoption('--encoder')}"

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Load the encoder and the images before anything is collected."""
        option = session.config.getoption
        if option("collectonly"):
            return
        from encodercheck.scanning import prepare

        with _as_usage_errors():
            state = prepare(
                option("--encoder"),
                arch=option("--encoder-arch"),
                tower=option("--encoder-tower"),
                images=option("--encoder-images"),
                profile=option("--encoder-profile"),
                seed=option("--encoder-seed"),
                device=option("--encoder-device"),
                artifacts=option("--encoder-artifacts"),
                null=option("--encoder-null"),
            )
            if state.second is not None:
                raise ConfigError(
                    f"{option('--encoder')}: what the file claims is doubted, and "
                    f"`encodercheck scan` reads it with {state.second.read_with} as well; here "
                    "checks run on one reading: use encodercheck scan"
                )
        session.config.stash[SCAN] = Scan(state)

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> CheckModule | None:
        """Take ``check_*.py``; test files stay pytest's."""
        if not module_path.match(PATTERN):
            return None
        module: CheckModule = CheckModule.from_parent(parent, path=module_path)
        return module

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Read the markers, and let ``-k`` select by check id."""
        with _as_usage_errors():
            checks = [(item, check_info(item)) for item in items if is_check(item)]
            require_distinct((base_id(info), place(item)) for item, info in checks)
        for item, info in checks:
            item.extra_keyword_matches.add(info.id)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Show an inconclusive check as skipped, and what was measured with every check."""
        report = yield
        record = item.stash.get(RECORD, None)
        if record is None:
            return report
        error = call.excinfo.value if call.excinfo else None
        if isinstance(error, CheckInconclusive) and not hasattr(report, "wasxfail"):
            path, line, _ = item.reportinfo()
            report.outcome = "skipped"
            report.longrepr = (str(path), (line or 0) + 1, f"Skipped: inconclusive: {error}")
        elif isinstance(error, CheckFailed | EncoderCheckError) and call.excinfo and report.failed:
            # Raised by encodercheck: its frames explain nothing.
            shown = call.excinfo.getrepr(style="value", chain=False)
            if shown.reprcrash is not None:
                shown.reprcrash.message = str(error)
            report.longrepr = shown
        if report.when == "call":
            item.user_properties += [
                (f"{record.info.id}.{m.name}", m.value) for m in record.measurements
            ]
            report.sections += _measurements(record)
        return report


def _measurements(record: CheckRecord) -> list[tuple[str, str]]:
    """Return the section of the report that shows what a check measured."""
    lines = [
        f"{m.name} = {m.value:g}" + ("" if m.limit is None else f" ({m.direction} {m.limit:g})")
        for m in record.measurements
    ]
    if record.sentence:
        place = f" ({record.witness})" if record.witness else ""
        lines.append(f"witness: {record.sentence}{place}")
    return [(f"Measurements of {record.info.id}", "\n".join(lines))] if lines else []


@contextmanager
def _as_usage_errors() -> Iterator[None]:
    """Show what is the user's to mend as pytest shows bad usage: in one line, status 4."""
    try:
        yield
    except EncoderCheckError as error:
        raise pytest.UsageError(str(error)) from error
