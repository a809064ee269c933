"""The bar for the whole scan: how much of it is done, and how long the rest takes."""

import io
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from encodercheck.cli import live
from encodercheck.cli.live import LEAST_DONE, Remaining
from encodercheck.harness.listener import CheckInfo
from encodercheck.report import Finding, Outcome

COSTS = st.dictionaries(st.text(max_size=3), st.floats(0, 100), max_size=8)


@given(costs=COSTS, parts=st.lists(st.floats(0, 1), max_size=30))
def test_what_is_done_only_grows_and_ends_at_all(costs, parts):
    scan = Remaining(costs, now=0.0)
    seen = [scan.done]
    for check in costs:
        scan.started(check)
        for part in parts:
            scan.moved(part)
            seen.append(scan.done)
        scan.finished(check)
        seen.append(scan.done)
    assert all(before <= after + 1e-9 for before, after in itertools.pairwise(seen))
    assert seen[-1] == pytest.approx(1)
    if sum(costs.values()) > 0:
        assert scan.seconds(now=10.0) == pytest.approx(0, abs=1e-6)


def test_a_check_that_does_several_things_is_never_done_before_it_ends():
    scan = Remaining({"A": 1.0}, now=0.0)
    scan.started("A")
    done = []
    for _ in range(5):
        for part in (0.2, 1.0):
            scan.moved(part)
        done.append(scan.done)
    assert done == pytest.approx([0.5, 0.75, 0.875, 0.9375, 0.96875])


def test_the_time_left_follows_from_the_part_that_is_done():
    scan = Remaining({"A": 1.0, "B": 99.0}, now=100.0)
    assert scan.seconds(now=101.0) is None
    scan.finished("A")
    assert scan.done < LEAST_DONE
    assert scan.seconds(now=101.0) is None
    scan.started("B")
    scan.moved(1.0)
    assert scan.seconds(now=150.5) == pytest.approx(50.5 * (1 - scan.done) / scan.done)


def test_a_terminal_shows_the_whole_scan_beside_the_check(monkeypatch):
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr(live.time, "monotonic", lambda: next(clock))
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    checks = [CheckInfo(id_, "check.py", "A title", "high", cost=2.0) for id_ in ("A1", "A2")]
    with live.listening(screen) as listener:
        listener.collected(checks)
        listener.started(checks[0])
        listener.progress(checks[0], 1, 2, "best 0.5")
        listener.finished(Finding("A1", "check.py", "high", Outcome.PASSED))
        listener._progress.refresh()
    shown = screen.file.getvalue()
    assert "the scan" in shown
    assert "50/100" in shown
    assert "min left" in shown or "s left" in shown
