"""Run Python programs without waiting, each time, for torch to be imported.

A server imports what a scan needs, once for every worker of pytest, and forks for each program. The
fork goes on as ``python -m MODULE`` or ``python SCRIPT`` would: a process of its own with its own
folder, environment, arguments and output, that ends as the program ends.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

# What nothing reads before the program begins, the tests' own included; and what a fork sees to.
LATE = ("ENCODERCHECK_", "PYTEST_", "XDG_", "HF_", "NO_PROXY", "ASKED", "EMBEDDING_URL")
LATE += ("PYTHONPATH",)
# Where the tests have the package from: what the server imports, its forks have imported.
OWN_PATH = os.environ.get("PYTHONPATH")
LARGEST = 1 << 20


class Interpreter:
    """A Python that has imported torch and encodercheck, started when it is first needed."""

    def __init__(self) -> None:
        self._server: _Server | None = None

    def can_run(self, arguments: Sequence[str], extra: Iterable[str]) -> bool:
        """Tell whether a fork would do the same as a fresh process with these variables set.

        Some change how Python starts, or what a library does when it is imported.
        """
        program = arguments[0] == "-m" or arguments[0].endswith(".py")
        return sys.platform == "linux" and program and all(map(_late, extra))

    def run(
        self, arguments: Sequence[str], *, cwd: Path, env: dict[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python ARGUMENTS`` and return its exit code and output.

        Raises:
            subprocess.TimeoutExpired: it took longer.
        """
        # A test, or a library that one has imported, may have changed the rest since.
        early = {name: value for name, value in env.items() if not _late(name)}
        early |= {"PYTHONPATH": OWN_PATH} if OWN_PATH else {}
        if self._server and self._server.env != early:
            self._server.stop()
            self._server = None
        self._server = self._server or _Server(early)
        job = {"arguments": arguments, "cwd": str(cwd), "env": env}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            code = self._server.run(job, out, err, timeout)
            if code is None:
                self._server = None
                raise subprocess.TimeoutExpired(arguments, timeout, _text(out), _text(err))
            return subprocess.CompletedProcess(arguments, code, _text(out), _text(err))


def _late(name: str) -> bool:
    return name.startswith(LATE)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode().replace("\r\n", "\n")


class _Server:
    def __init__(self, env: dict[str, str]) -> None:
        self.env = env
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        atexit.register(self.stop)

    def run(self, job: Any, out: IO[bytes], err: IO[bytes], timeout: float) -> int | None:
        """Return the exit code; None, and end everything, where it takes too long."""
        text = json.dumps(job).encode() + b"\n"
        socket.send_fds(self._socket, [text], [out.fileno(), err.fileno()])
        answered, _, _ = select.select([self._socket], [], [], timeout)
        if not answered:
            self.stop()
            return None
        return int(self._socket.recv(64))

    def stop(self) -> None:
        """End the server, and what it runs."""
        atexit.unregister(self.stop)
        self._socket.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for each job; return it in the fork."""
    while True:
        text, fds, _, _ = socket.recv_fds(connection, LARGEST, 2)
        while text and not text.endswith(b"\n"):
            text += connection.recv(LARGEST)
        if not text:
            sys.exit()
        child = os.fork()
        if not child:
            connection.close()
            for fd, stream in zip(fds, (1, 2), strict=True):
                os.dup2(fd, stream)
                os.close(fd)
            return json.loads(text)
        for fd in fds:
            os.close(fd)
        _, status = os.waitpid(child, 0)
        connection.sendall(b"%d" % os.waitstatus_to_exitcode(status))


def _become(arguments: list[str], cwd: str, env: dict[str, str]) -> None:
    """Run a program as the main one of this process, to its end."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    tempfile.tempdir = None
    sys.path[1:1] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    program, *rest = arguments
    code: object = None
    try:
        if program == "-m":
            sys.argv, sys.path[0] = rest, cwd
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[0] = arguments, str(Path(program).parent)
            runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        code = end.code
        if not isinstance(code, int | None):
            raise
    # Python would now take all modules apart, for a second; and do this before it.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


if __name__ == "__main__":
    import safetensors.torch  # noqa: F401
    import torchvision  # noqa: F401

    import encodercheck.cli.live
    import encodercheck.cli.main
    import encodercheck.render.console
    import encodercheck.render.html.page
    import encodercheck.scanning  # noqa: F401

    # Some versions of Typer have it.
    with suppress(ImportError):
        import pydantic.type_adapter  # noqa: F401

    assert "huggingface_hub" not in sys.modules, "it reads the environment when it is imported"
    # Nothing of it is garbage: a fork need not look.
    gc.freeze()
    _become(**_serve(socket.socket(fileno=int(sys.argv[1]))))
