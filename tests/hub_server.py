"""A small Hugging Face Hub on this machine, as far as a download of model files needs one.

As on the real hub, weights (.safetensors) are redirected to another host, which serves them under
their hash and must not see the user's token.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

ID = r"(?P<id>[^/]+(?:/[^/]+)?)"
INFO = re.compile(rf"/api/models/{ID}(?:/revision/(?P<revision>[^/]+))?")
RESOLVE = re.compile(rf"/{ID}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")
STORE = re.compile(r"/store/(?P<sha256>[0-9a-f]{64})")
LARGE = ".safetensors"

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Request:
    """A request that the hub saw."""

    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Hub:
    """The hub; a context manager that serves ``repos`` while it is open.

    ``repos`` maps a repository to its revisions, and these to their files. ``tokens`` are what a
    private repository asks for. ``refusals`` answer every request for a repository with a status
    and an error code. ``faults`` break the download of a file: it is "gone", or said to be of
    another commit ("moved"); its body is "short", "cut" off half-way, or "stalls". ``commits``
    overrides the commit of a repository's revisions.
    ``page`` answers every request; ``stalled`` answers none. All may change while it is open.
    """

    repos: dict[str, dict[str, Files]]
    tokens: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    page: bytes | None = None
    stalled: bool = False
    requests: list[Request] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Hub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def commit(self, name: str, revision: str = "main") -> str:
        """Return the commit of a revision; the same files have the same one."""
        files = {path: _sha1(body) for path, body in self.repos[name][revision].items()}
        return self.commits.get(name) or _sha1(json.dumps([name, files]).encode())

    def seen(self) -> list[str]:
        """Return the requests so far, as "METHOD path", and forget them."""
        seen = [f"{request.method} {request.path}" for request in self.requests]
        self.requests.clear()
        return seen

    def revision(self, name: str, asked: str) -> str | None:
        """Return the revision that is asked for by its name or its commit."""
        for revision in self.repos[name]:
            if asked in (revision, self.commit(name, revision)):
                return revision
        return None

    def stored(self, sha256: str) -> tuple[str, bytes] | None:
        """Return the name and content of the file with this hash."""
        for revisions in self.repos.values():
            for files in revisions.values():
                for path, body in files.items():
                    if _sha256(body) == sha256:
                        return path, body
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *args: Any) -> None:
        self.hub = hub
        super().__init__(*args)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = urlsplit(self.path).path
        self.hub.requests.append(Request(self.command, path, dict(self.headers)))
        if self.hub.stalled:
            self._stall()
        elif self.hub.page is not None:
            self._send(200, self.hub.page, {"Content-Type": "text/html"})
        elif stored := STORE.fullmatch(path):
            self._store(stored["sha256"])
        elif asked := INFO.fullmatch(path) or RESOLVE.fullmatch(path):
            self._repo(*(unquote(part or "") for part in asked.groups()))
        else:
            self._send(404, b"no such page")

    def _repo(self, name: str, revision: str, path: str = "") -> None:
        if name in self.hub.refusals:
            return self._error(*self.hub.refusals[name])
        token = self.hub.tokens.get(name)
        allowed = token is None or self.headers.get("Authorization") == f"Bearer {token}"
        if name not in self.hub.repos or not allowed:
            return self._error(401 if not allowed else 404, "RepoNotFound")
        found = self.hub.revision(name, revision or "main")
        if found is None:
            return self._error(404, "RevisionNotFound")
        if not path:
            return self._info(name, found)
        if path not in self.hub.repos[name][found] or self.hub.faults.get(path) == "gone":
            return self._error(404, "EntryNotFound")
        return self._resolve(name, found, path)

    def _info(self, name: str, revision: str) -> None:
        siblings = [{"rfilename": path} for path in self.hub.repos[name][revision]]
        info = {"id": name, "sha": self.hub.commit(name, revision), "siblings": siblings}
        more = {"private": name in self.hub.tokens, "tags": [], "downloads": 0, "likes": 0}
        body = json.dumps({**info, **more}).encode()
        self._send(200, body, {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        body = self.hub.repos[name][revision][path]
        moved = self.hub.faults.get(path) == "moved"
        headers = {"X-Repo-Commit": "f" * 40 if moved else self.hub.commit(name, revision)}
        if not path.endswith(LARGE):
            blob = _sha1(b"blob %d\0" % len(body) + body)
            return self._send_file(path, body, {**headers, "ETag": f'"{blob}"'})
        sha256 = _sha256(body)
        headers |= {"X-Linked-Size": str(len(body)), "X-Linked-ETag": f'"{sha256}"'}
        store = f"http://localhost:{self.hub.port}/store/{sha256}"
        return self._send(302, b"", {**headers, "Location": store})

    def _store(self, sha256: str) -> None:
        stored = self.hub.stored(sha256)
        if stored is None:
            return self._send(404, b"no such file")
        return self._send_file(*stored, {"ETag": f'"{sha256}"'})

    def _send_file(self, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        fault = self.hub.faults.get(path) if self.command == "GET" else None
        if fault == "stalls":
            return self._stall()
        sent = body[: len(body) // 2] if fault in ("short", "cut") else body
        promised = sent if fault == "short" else body
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if start is None:
            return self._send(200, sent, headers, len(promised))
        first = int(start[1])
        if first >= len(promised):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(promised)}"})
        span = {"Content-Range": f"bytes {first}-{len(promised) - 1}/{len(promised)}"}
        return self._send(206, sent[first:], {**headers, **span}, len(promised) - first)

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"", {"X-Error-Code": code})

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str] = {}, length: int = -1
    ) -> None:
        """Answer with a body; with a greater ``length`` than it has, break off after it."""
        length = len(body) if length < 0 else length
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
            self.close_connection = len(body) < length

    def _stall(self) -> None:
        self.hub.closing.wait(60)
        self.close_connection = True


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
