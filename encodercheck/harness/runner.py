"""Run a suite of checks on an encoder, or list it."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from encodercheck.config.rules import NO_RULES, Rules
from encodercheck.errors import CheckInconclusive, ConfigError
from encodercheck.harness.hermetic import Root, refuse_optimized_python, run_pytest
from encodercheck.harness.identity import base_id, check_info, place, require_distinct, shown
from encodercheck.harness.listener import SILENT, CheckInfo, Listener
from encodercheck.harness.outcome import Phase, conclude, first_line, judge, not_reported
from encodercheck.harness.packs import installed_packs
from encodercheck.harness.record import RECORD, CheckRecord
from encodercheck.harness.state import SCAN, Scan, ScanState
from encodercheck.report import Finding, Outcome


def run_suite(
    state: ScanState,
    *,
    paths: Sequence[Path],
    keyword: str | None = None,
    only: Collection[str] | None = None,
    listener: Listener = SILENT,
    rules: Rules = NO_RULES,
    known: Sequence[Finding] = (),
) -> list[Finding]:
    """Run the checks in ``paths`` and return one finding for each, in order.

    Every file is collected before the first check runs. ``keyword`` selects as pytest's ``-k``
    does, by check ids too; of what it leaves ``only`` these ids are run, and of these what
    ``rules`` let run; where they end a scan at the first failure, the checks that are left are
    inconclusive. Checks that have a finding among those ``known`` are not run again. A finding's
    outcome is decided by what the check raised and measured; pytest's exit status has no say in it.

    Raises:
        ConfigError: a path, a check file, ``keyword`` or a rule is unusable, or nothing is to be
            run.
        KeyboardInterrupt: the user stopped the scan.
    """
    refuse_optimized_python()
    state.limits = {**state.limits, **rules.limits}
    scan = Scan(state, listener)
    suite = ruled(collect(paths, keyword), rules)
    if only is not None:
        suite = [part.reduced(only) for part in suite]
    infos = [info for part in suite for info in part.infos]
    listener.collected(infos)
    verdict = Verdict(rules, state.encoder.provenance.sha256)
    standing = _standing(infos, known, verdict)
    for finding in standing:
        listener.finished(finding)
    left = {info.id for info in infos} - {finding.id for finding in standing}
    ran = [finding for part in suite for finding in _run(part.reduced(left), scan, verdict)]
    # What is no check's, as that a folder ended early, comes last.
    order = {info.id: place for place, info in enumerate(infos)}
    findings = sorted([*standing, *ran], key=lambda f: order.get(f.id, len(order)))
    findings = findings if standing else ran
    for error in rules.unused_limits(findings):
        listener.finished(error)
        findings.append(error)
    return findings


def _standing(
    infos: Sequence[CheckInfo], known: Sequence[Finding], verdict: Verdict
) -> list[Finding]:
    """Return what is known of these checks already, judged anew: rules may have changed."""
    found = {finding.id: finding for finding in known}
    return [
        verdict.judge(replace(found[info.id], severity=info.severity, waiver=None, minor=False))
        for info in infos
        if info.id in found
    ]


def list_checks(paths: Sequence[Path]) -> list[CheckInfo]:
    """Return the checks in ``paths`` without running them; no encoder is needed.

    Raises:
        ConfigError: a path or a check file is unusable, or there are no checks.
    """
    return [info for part in collect(paths, None) for info in part.infos]


def suite(checks: Sequence[str | Path] = ()) -> list[Path]:
    """Return where checks are collected from: the built-in suite, installed packs, ``checks``.

    Raises:
        ConfigError: a check pack cannot be imported.
    """
    return [builtin_suite(), *installed_packs(), *(Path(path) for path in checks)]


def builtin_suite() -> Path:
    """Return the folder of the built-in checks."""
    spec = find_spec("encodercheck.checks")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("the built-in checks are not installed; reinstall encodercheck")
    return Path(spec.submodule_search_locations[0])


@dataclass
class Part:
    """The checks of one folder: those selected, and files that asked to be skipped."""

    root: Root
    checks: list[CheckInfo] = field(default_factory=list)
    skipped: list[tuple[CheckInfo, str]] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    """The ids of all checks, selected or not."""

    @property
    def infos(self) -> list[CheckInfo]:
        """Everything that a finding is owed for."""
        return [*self.checks, *(info for info, _ in self.skipped)]

    @property
    def ids(self) -> list[str]:
        """All that a rule can be about, whether or not it was selected."""
        return [*self.known, *(info.id for info, _ in self.skipped)]

    def reduced(self, ids: Collection[str]) -> Part:
        """Return the part with none but the checks of these ids."""
        return replace(
            self,
            checks=[info for info in self.checks if info.id in ids],
            skipped=[(info, reason) for info, reason in self.skipped if info.id in ids],
        )

    def ruled(self, rules: Rules) -> Part:
        """Return the part with what ``rules`` let run, as grave as they say."""
        part = self.reduced([info.id for info in self.infos if rules.runs(info.id)])
        part.checks = [
            replace(info, severity=rules.severity(info.id, info.severity)) for info in part.checks
        ]
        return part


def collect(paths: Sequence[Path], keyword: str | None) -> list[Part]:
    """Collect every check in ``paths``, and see that there is something to run."""
    places: dict[tuple[Path, str], str] = {}
    ids: list[tuple[str, str]] = []
    suite: list[Part] = []
    for root in find_roots(paths):
        census = Census(Part(root), keyword, places, ids)
        ended = run_pytest(root, census, collect_only=True)
        if ended:
            raise ConfigError(f"{shown(root.folder)}: {ended}")
        suite.append(census.part)
    require_distinct(ids)
    if not any(part.infos for part in suite):
        total = sum(len(part.known) for part in suite)
        if total:
            raise ConfigError(f"-k {keyword} selects none of {total} checks")
        raise ConfigError(f"no checks in {', '.join(map(str, paths)) or 'nothing'}")
    return suite


def ruled(suite: Sequence[Part], rules: Rules) -> list[Part]:
    """Return what ``rules`` leave of a suite.

    Raises:
        ConfigError: a rule is about no check of the suite, or nothing is left.
    """
    rules.require_known([*(id_ for part in suite for id_ in part.ids)])
    left = [part.ruled(rules) for part in suite]
    if not any(part.infos for part in left):
        total = sum(len(part.infos) for part in suite)
        raise ConfigError(f"select and ignore leave none of {total} checks; {rules.sentence()}")
    return left


def find_roots(paths: Sequence[Path]) -> list[Root]:
    """Sort files and folders into pytest runs, one for each folder.

    Raises:
        ConfigError: a path is missing, or is neither a folder nor a Python file.
    """
    folders: dict[Path, list[Path]] = {}
    for path in paths:
        absolute = Path(path).absolute()
        if not absolute.exists():
            raise ConfigError(f"{path}: no such file or folder of checks")
        if absolute.is_file() and absolute.suffix != ".py":
            raise ConfigError(f"{path}: not a Python file")
        own = folders.setdefault(absolute if absolute.is_dir() else absolute.parent, [])
        if absolute not in own:
            own.append(absolute)
    return [Root(folder, tuple(files)) for folder, files in folders.items()]


class Census:
    """A pytest plugin that counts the checks of one folder."""

    def __init__(
        self,
        part: Part,
        keyword: str | None,
        places: dict[tuple[Path, str], str],
        ids: list[tuple[str, str]],
    ) -> None:
        self.part = part
        self._keyword = keyword
        self._places = places
        self._ids = ids

    def pytest_configure(self, config: pytest.Config) -> None:
        """Set ``-k`` past pytest's command line, where a leading dash would be an option."""
        config.option.keyword = self._keyword or ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Read every check's marker, and drop what another folder has already given."""
        new: list[pytest.Item] = []
        for item in items:
            info = check_info(item)
            # By file and name, as two paths can overlap.
            key = (item.path.resolve(), item.name)
            if key in self._places:
                continue
            self._places[key] = info.id
            self._ids.append((base_id(info), place(item)))
            item.extra_keyword_matches.add(info.id)
            new.append(item)
        items[:] = new
        self.part.known = [check_info(item).id for item in new]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note what ``-k`` has left."""
        self.part.checks = [check_info(item) for item in session.items]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Keep a file that skips itself from vanishing without a finding."""
        if report.skipped and isinstance(report.longrepr, tuple):
            name = report.nodeid or self.part.root.folder.name
            reason = first_line(report.longrepr[2]).removeprefix("Skipped: ")
            info = CheckInfo(id=Path(name).stem, check=name, title="", severity="medium")
            self.part.skipped.append((info, reason))


class Verdict:
    """Judges findings by the rules, and knows the one that the scan ends with."""

    def __init__(self, rules: Rules, sha256: str) -> None:
        self._rules = rules
        self._sha256 = sha256
        self._last: Finding | None = None

    def judge(self, finding: Finding) -> Finding:
        """Return what a finding comes to by the rules."""
        judged = self._rules.judge(finding, sha256=self._sha256)
        failed = judged.outcome is Outcome.FAILED and judged.counts
        if self._rules.fail_fast and failed and self._last is None:
            self._last = judged
        return judged

    def order(self, checks: Sequence[CheckInfo]) -> list[CheckInfo]:
        """Return checks in the order in which they run."""
        return sorted(checks, key=lambda info: info.cost) if self._rules.fail_fast else [*checks]

    def require_open(self) -> None:
        """Demand that the scan has not ended.

        Raises:
            CheckInconclusive: it has, with a failure.
        """
        if self._last is not None:
            raise CheckInconclusive(f"not run: {self._last.id} failed before, see --fail-fast")


def _run(part: Part, scan: Scan, verdict: Verdict) -> list[Finding]:
    """Run the checks of one folder: exactly those that were counted."""
    recorder = Recorder(verdict.order(part.checks), scan, verdict)
    try:
        ended = run_pytest(part.root, recorder) if part.checks else ""
    except ConfigError as error:
        # It could be collected before: the findings so far must not be lost to this.
        ended = str(error)
    findings = [*recorder.findings.values()]
    late = [not_reported(info, ended) for info in part.checks if info.id not in recorder.findings]
    if ended and not late:
        folder = shown(part.root.folder)
        late.append(not_reported(CheckInfo("pytest", folder, "", "medium"), ended))
    late += [
        Finding(info.id, info.check, info.severity, Outcome.INCONCLUSIVE, reason)
        for info, reason in part.skipped
    ]
    for finding in late:
        scan.listener.finished(finding)
    return [*findings, *late]


class Recorder:
    """A pytest plugin that turns what happens to each check into a finding."""

    def __init__(self, checks: Sequence[CheckInfo], scan: Scan, verdict: Verdict) -> None:
        self.findings: dict[str, Finding] = {}
        self._checks = {info.id: info for info in checks}
        self._scan = scan
        self._verdict = verdict

    def pytest_configure(self, config: pytest.Config) -> None:
        """Let the fixtures find the scan."""
        config.stash[SCAN] = self._scan

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the checks that were counted, each once and in the order in which they were."""
        found = {check_info(item).id: item for item in reversed(items)}
        items[:] = [found[id_] for id_ in self._checks if id_ in found]

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Time a check and conclude from its phases."""
        info = self._checks[check_info(item).id]
        phases = item.stash[PHASES] = []
        self._scan.listener.started(info)
        started = time.monotonic()
        result = yield
        if phases:
            seconds = time.monotonic() - started
            record = item.stash.get(RECORD, CheckRecord(info))
            finding = self._verdict.judge(conclude(info, record, phases, seconds))
            self.findings[info.id] = finding
            self._scan.listener.finished(finding)
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Run no check after the one that the scan ends with."""
        self._verdict.require_open()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Classify each phase of a check as pytest reports it."""
        report = yield
        item.stash[PHASES].append(judge(call, report))
        return report


PHASES = pytest.StashKey[list[Phase]]()
