"""What a check may change of the whole process, put back as it was.

A check file that seeds a generator or sets up logging would otherwise change what the next check
measures, and the notebook that a scan runs in.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Setting:
    """Something of the process that can be read and written."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    comparable: bool = True

    def restore(self, value: Any) -> None:
        """Write ``value`` unless it is there: some settings cost time, or can be made only once."""
        if not self.comparable or self.read() != value:
            self.write(value)


@contextmanager
def restored_ambience() -> Iterator[None]:
    """Put the settings of Python, and of the libraries that are loaded, back at the end."""
    saved = [(setting, setting.read()) for setting in _settings()]
    try:
        yield
    finally:
        for setting, value in saved:
            setting.restore(value)


def _settings() -> Iterator[Setting]:
    yield from _python()
    # What is not loaded yet has no settings to keep, and takes seconds to load.
    if (numpy := sys.modules.get("numpy")) is not None:
        yield from _numpy(numpy)
    if (torch := sys.modules.get("torch")) is not None:
        yield from _torch(torch)


def _python() -> Iterator[Setting]:
    root = logging.getLogger()
    yield Setting(random.getstate, random.setstate)
    yield Setting(lambda: dict(os.environ), _restore_environment)
    yield Setting(_folder, _return_to)
    yield Setting(lambda: list(root.handlers), lambda handlers: _refill(root.handlers, handlers))
    yield Setting(lambda: root.level, root.setLevel)
    yield Setting(lambda: root.manager.disable, logging.disable)
    yield Setting(lambda: list(sys.argv), lambda argv: _refill(sys.argv, argv))
    yield Setting(sys.getrecursionlimit, sys.setrecursionlimit)
    yield Setting(lambda: sys.dont_write_bytecode, _setter(sys, "dont_write_bytecode"))
    for name in ("excepthook", "unraisablehook", "displayhook", "breakpointhook"):
        yield Setting(lambda name=name: getattr(sys, name), _setter(sys, name))  # type: ignore[misc]
    yield Setting(_umask, os.umask)
    # Nobody else may set them.
    if threading.current_thread() is threading.main_thread():
        for number in signal.valid_signals():
            if signal.getsignal(number) is not None:
                yield _signal(number)


def _numpy(numpy: ModuleType) -> Iterator[Setting]:
    yield Setting(numpy.random.get_state, numpy.random.set_state, comparable=False)
    yield Setting(numpy.geterr, lambda errors: numpy.seterr(**errors))
    yield Setting(numpy.get_printoptions, lambda options: numpy.set_printoptions(**options))


def _torch(torch: ModuleType) -> Iterator[Setting]:
    yield Setting(torch.get_rng_state, torch.set_rng_state, comparable=False)
    if torch.cuda.is_initialized():
        yield Setting(torch.cuda.get_rng_state_all, torch.cuda.set_rng_state_all, comparable=False)
    yield Setting(torch.is_grad_enabled, torch.set_grad_enabled)
    yield Setting(torch.get_default_dtype, torch.set_default_dtype)
    yield Setting(torch.get_default_device, lambda device: _set_default_device(torch, device))
    yield Setting(torch.get_num_threads, torch.set_num_threads)
    yield Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision)
    yield Setting(torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly)
    yield Setting(
        torch.get_deterministic_debug_mode,
        torch.set_deterministic_debug_mode,
    )
    for name in ("benchmark", "deterministic"):
        yield Setting(
            lambda name=name: getattr(torch.backends.cudnn, name),  # type: ignore[misc]
            _setter(torch.backends.cudnn, name),
        )


def _signal(number: int) -> Setting:
    return Setting(lambda: signal.getsignal(number), lambda handler: signal.signal(number, handler))


def _setter(module: ModuleType, name: str) -> Callable[[Any], None]:
    return lambda value: setattr(module, name, value)


def _refill(live: list[Any], values: list[Any]) -> None:
    live[:] = values


def _restore_environment(variables: dict[str, str]) -> None:
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)


def _folder() -> Path | None:
    """Return the working directory; None where it is gone."""
    try:
        return Path.cwd()
    except OSError:
        return None


def _return_to(folder: Path | None) -> None:
    if folder is not None:
        os.chdir(folder)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _set_default_device(torch: ModuleType, device: Any) -> None:
    # None is no context at all; one for the CPU would slow every call down.
    torch.set_default_device(None if device.type == "cpu" else device)
