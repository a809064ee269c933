"""What happens to every check while pytest runs it, in a scan as in the user's own pytest."""

from __future__ import annotations

from collections.abc import Generator
from typing import NoReturn

import pytest

from encodercheck.errors import CheckFailed, CheckInconclusive, ConfigError
from encodercheck.harness.identity import check_info, is_check
from encodercheck.harness.isolation import isolated
from encodercheck.harness.record import RECORD, CheckRecord
from encodercheck.harness.state import SCAN

UNDECIDED = (CheckInconclusive, pytest.skip.Exception, pytest.xfail.Exception)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Open the check's record, give it random numbers of its own, and mend what it wrote into."""
    scan = item.config.stash[SCAN]
    if is_check(item):
        record = item.stash[RECORD] = CheckRecord(check_info(item))
        with isolated(scan.state.seed, record.info.id):
            result = yield
    else:
        result = yield
    # A test of the user's own can borrow the encoder too; those that do not pay nothing.
    if is_check(item) or scan.lender.lent:
        scan.lender.take_back(item.name)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Fail a check at its end with every measurement that fell short.

    The exception is raised here rather than by an ``assert``, which ``python -O`` removes.
    """
    record = pyfuncitem.stash.get(RECORD, None)
    if record is None:
        return (yield)
    try:
        result = yield
    except UNDECIDED as error:
        # What was measured stays measured, whatever the check could not decide after it.
        if record.shortfall:
            raise CheckFailed(record.shortfall) from error
        raise
    if record.fault is not None:
        raise record.fault
    if record.shortfall:
        raise CheckFailed(record.shortfall)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    """Keep a check from ending the run while its fixtures are set up."""
    try:
        return (yield)
    except pytest.exit.Exception as error:
        _refuse_exit(item, error)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Keep a check from ending the run."""
    try:
        return (yield)
    except pytest.exit.Exception as error:
        _refuse_exit(item, error)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Keep a check from ending the run while its fixtures are torn down."""
    try:
        return (yield)
    except pytest.exit.Exception as error:
        _refuse_exit(item, error)


def _refuse_exit(item: pytest.Item, error: Exception) -> NoReturn:
    """Make ``pytest.exit`` in a check an error: it could end the whole scan, with status 0."""
    if not is_check(item):
        raise error
    raise ConfigError("the check called pytest.exit(); one check cannot end the scan") from error
