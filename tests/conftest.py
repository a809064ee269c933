"""Settings that every test shares."""

import os

import pytest
from hypothesis import HealthCheck, settings

# As the command line does, and before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # There is a worker for every core.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# The machines that run these tests are shared: a slow first call is no fault of the code's.
settings.register_profile(
    "encodercheck",
    deadline=None,
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("encodercheck")

# Minutes each, with few tests: left to the end, where xdist puts these, one worker waits for them.
LONGEST = ("test_verdicts.py", "test_verify.py", "test_zoo_scan.py")


def pytest_configure(config: pytest.Config) -> None:
    """Have xdist keep the order of the files."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
