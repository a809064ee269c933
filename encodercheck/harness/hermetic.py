"""pytest inside a scan: nothing of the user's own pytest settings reaches it, and nothing leaks.

Which plugins, settings, conftest files and environment variables take part is decided here alone.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from encodercheck.errors import ConfigError, EncoderCheckError
from encodercheck.harness import fixtures, lifecycle
from encodercheck.harness.ambience import restored_ambience
from encodercheck.harness.identity import CheckModule, shown
from encodercheck.harness.modules import evict_namesakes, restored_modules
from encodercheck.harness.outcome import describe, first_line
from encodercheck.harness.pytest_plugin import MARKER

SETTINGS = Path(__file__).with_name("runner.ini")
LAST_ERROR = ("last_type", "last_value", "last_traceback", "last_exc")
# Ours replace the terminal and JUnit; the rest would write files, install global hooks, or collect
# what is no check.
LEFT_OUT = (
    "terminal",
    "cacheprovider",
    "junitxml",
    "faulthandler",
    "unraisableexception",
    "threadexception",
    "pastebin",
    "doctest",
    "unittest",
)

# The environment, the modules and the standard streams are the process's, and a run needs its own.
ONE_AT_A_TIME = threading.RLock()

# What else is missing shows in the findings.
COMPLETE = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


@dataclass(frozen=True)
class Root:
    """A folder and what to collect in it, in one pytest run of its own.

    Folders do not share a run: the conftest of one would reach into the checks of another, and
    ``--confcutdir`` guards the parents of a single folder only.
    """

    folder: Path
    paths: tuple[Path, ...]


def refuse_optimized_python() -> None:
    """Refuse ``python -O``.

    Raises:
        ConfigError: ``assert`` statements are switched off, and a check that uses them would pass.
    """
    if sys.flags.optimize:
        raise ConfigError("python -O removes asserts, and checks would pass unseen; run without -O")


def run_pytest(root: Root, plugin: object, *, collect_only: bool = False) -> str:
    """Run pytest on ``root``; return why it ended early, or nothing where it did not.

    Raises:
        ConfigError: a check file, a conftest or an option is unusable.
        KeyboardInterrupt: the user's own.
    """
    with (
        ONE_AT_A_TIME,
        restored_process(),
        restored_ambience(),
        restored_modules(root.folder) as collected,
    ):
        watch = Watch(root, collected)
        evict_namesakes(root.folder / "conftest.py", root.folder)
        try:
            arguments = _arguments(root, collect_only)
            status = pytest.main(arguments, [fixtures, lifecycle, watch, plugin])
        except EncoderCheckError:
            raise
        except (Exception, SystemExit) as error:
            watch.breakdown = error
            status = pytest.ExitCode.INTERNAL_ERROR
    return watch.verdict(int(status))


def _arguments(root: Root, collect_only: bool) -> list[str]:
    return [
        f"-c{SETTINGS}",
        f"--rootdir={root.folder}",
        f"--confcutdir={root.folder}",
        "--import-mode=importlib",
        *(f"-pno:{name}" for name in LEFT_OUT),
        *(["--collect-only"] if collect_only else []),
        *map(str, root.paths),
    ]


@contextmanager
def restored_process() -> Iterator[None]:
    """Take the user's pytest variables away, and put the environment back as it was."""
    environment = dict(os.environ)
    last_error = {name: getattr(sys, name) for name in LAST_ERROR if hasattr(sys, name)}
    for name in environment:
        if name.startswith("PYTEST_"):
            del os.environ[name]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    try:
        yield
    finally:
        os.environ.update(environment)
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        # pytest keeps the last traceback for debuggers, and with it a copy of the encoder.
        for name in LAST_ERROR:
            if name in last_error:
                setattr(sys, name, last_error[name])
            elif hasattr(sys, name):
                delattr(sys, name)


class NoTerminal:
    """Prints nothing. Older versions of pytest explain an assert through the terminal only."""

    @property
    def _tw(self) -> NoTerminal:
        return self

    @staticmethod
    def _highlight(source: str, lexer: str = "") -> str:
        return source


class Watch:
    """A pytest plugin that takes files of checks, and remembers why a run did not go through."""

    def __init__(self, root: Root, collected: set[Path]) -> None:
        self.root = root
        self.collected = collected
        self.faults: list[str] = []
        self.interrupted = False
        self.ended = ""
        self.breakdown: BaseException | None = None

    def verdict(self, status: int) -> str:
        """Raise what the run ended with, or return it where its checks may still have a say."""
        if self.interrupted:
            raise KeyboardInterrupt
        if isinstance(self.breakdown, EncoderCheckError):
            raise self.breakdown
        if self.faults:
            raise ConfigError("; ".join(self.faults))
        if self.breakdown is not None:
            return f"pytest broke down: {describe(self.breakdown)}"
        if self.ended:
            return self.ended
        return "" if status in COMPLETE else f"pytest ended with status {status}"

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_load_initial_conftests(self) -> Generator[None, object, object]:
        """Turn a conftest that cannot be imported into one line."""
        try:
            return (yield)
        except (Exception, SystemExit) as error:
            raise ConfigError(explain(error, self.root.folder / "conftest.py")) from error

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_cmdline_main(self) -> Generator[None, object, object]:
        """Catch bad usage before pytest prints it."""
        try:
            return (yield)
        except pytest.UsageError as error:
            self.faults.append(first_line(error))
            return pytest.ExitCode.USAGE_ERROR

    def pytest_configure(self, config: pytest.Config) -> None:
        """Declare the marker."""
        config.addinivalue_line("markers", MARKER)
        # The terminal plugin declares it, and pytest 8.2 explains no assert without it.
        config.option.verbose = 0
        config.pluginmanager.register(NoTerminal(), "terminalreporter")

    def pytest_collectstart(self, collector: pytest.Collector) -> None:
        """Make sure that the file imported is the file collected."""
        if isinstance(collector, pytest.Module):
            self.collected.add(collector.path)
            evict_namesakes(collector.path, self.root.folder)

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, object, object]:
        """Keep a file that calls ``sys.exit`` from ending more than itself."""
        try:
            return (yield)
        except SystemExit as error:
            raise ConfigError(explain(error, collector.path)) from error

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> CheckModule:
        """Take every file given by name, and every ``check_*.py`` in a folder."""
        module: CheckModule = CheckModule.from_parent(parent, path=module_path)
        return module

    def pytest_exception_interact(
        self, node: pytest.Item | pytest.Collector, call: pytest.CallInfo[object], report: object
    ) -> None:
        """Note a file that could not be collected."""
        if isinstance(report, pytest.CollectReport) and call.excinfo is not None:
            self.faults.append(explain(call.excinfo.value, node.path))

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Tell the user's interrupt from pytest's own ways to stop."""
        error = excinfo.value
        if isinstance(error, pytest.exit.Exception | pytest.Session.Interrupted):
            self.ended = f"the run was stopped ({first_line(error) or 'pytest.exit'})"
        else:
            self.interrupted = True

    def pytest_internalerror(self, excinfo: pytest.ExceptionInfo[BaseException]) -> bool:
        """Keep what broke pytest, and keep pytest from printing it."""
        self.breakdown = excinfo.value
        return True


def explain(error: BaseException, file: Path) -> str:
    """Say in one line what is wrong with a file that cannot be imported."""
    cause = getattr(error, "cause", None) or error.__cause__ or error
    file = getattr(error, "path", None) or file
    if isinstance(cause, pytest.Collector.CollectError | pytest.exit.Exception):
        return f"{shown(file)}: {first_line(cause)}"
    line = cause.lineno if isinstance(cause, SyntaxError) else _line_in(cause, file)
    where = shown(file) + (f":{line}" if line else "")
    text = cause.msg if isinstance(cause, SyntaxError) else first_line(cause)
    return f"{where}: {type(cause).__name__}: {text}"


def _line_in(error: BaseException, file: Path) -> int | None:
    """Return the last line of ``file`` that the exception came through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
