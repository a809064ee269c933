"""Ray clusters of several machines, all of them on this one, and what kills one of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from encodercheck.report import Outcome, Report
from encodercheck.zoo.rows import Row
from encodercheck.zoo.running import SilentWatcher


@contextmanager
def two_nodes() -> Iterator[Callable[[], None]]:
    """Connect to a cluster of two machines of one core; yield what kills one of them."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    nodes = Cluster()
    try:
        _added(nodes, include_dashboard=False)
        victim = _added(nodes)
        ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
        yield lambda: nodes.remove_node(victim, allow_graceful=False)
    finally:
        ray.shutdown()
        nodes.shutdown()


class Killer(SilentWatcher):
    """Kills once so many models are done, and demands that each has a verdict."""

    def __init__(self, kill: Callable[[], None], after: int) -> None:
        self._kill, self.after = kill, after
        self._done, self.killed = 0, False

    def finished(self, row: Row, report: Report) -> None:
        """Count a model."""
        assert row.outcome in (Outcome.PASSED, Outcome.FAILED, Outcome.INCONCLUSIVE), row
        self._done += 1
        if self._done == self.after:
            self.killed = True
            self._kill()


def _added(nodes: Any, **options: Any) -> Any:
    """Return a node; on a busy machine one may not be up in time."""
    for _ in range(2):
        with suppress(Exception):
            return nodes.add_node(num_cpus=1, **options)
    return nodes.add_node(num_cpus=1, **options)
