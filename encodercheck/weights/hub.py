"""Models on the Hugging Face Hub: the few files that are needed, in huggingface_hub's own cache."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from json import JSONDecodeError
from pathlib import Path
from types import ModuleType

from encodercheck.errors import ConfigError, LoadError
from encodercheck.weights.header import located, os_reason, quoted, reason

SCHEME = "hf://"
EXPECTED = "expected hf://org/name or hf://org/name@revision"
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
COMMIT = re.compile(r"[0-9a-f]{40}")
# What git refuses in the name of a branch or a tag, and what would leave the cache's folders.
NOT_IN_REVISIONS = frozenset(" ~^:?*[\\")
MAX_REVISION = 200

LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
# By the names of huggingface_hub's exceptions: their bases and modules differ between versions.
FAULTS: Mapping[str, str] = {
    "GatedRepoError": f"gated; ask for access on its page, then {LOG_IN}",
    "DisabledRepoError": "disabled on the hub; choose another model",
    "RepositoryNotFoundError": (
        f"no such repository on the hub; check the name; for a private one {LOG_IN}"
    ),
    "RevisionNotFoundError": "no such revision; check the branch, tag or commit after the @",
    "EntryNotFoundError": "listed, but the hub does not have it; try again",
}
HTTP_LIBRARIES = frozenset({"requests", "urllib3", "httpx", "httpx2", "httpcore"})
BUSY = frozenset({408, 429})
Choose = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True)
class Snapshot:
    """A local folder with the wanted files of one commit of a repository."""

    folder: Path
    commit: str


@dataclass(frozen=True)
class _Repo:
    name: str
    revision: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}" + (f"@{self.revision}" if self.revision else "")

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit already."""
        return COMMIT.fullmatch(self.revision) is not None


class _UnreachableError(LoadError):
    """The hub does not answer, so that a copy in the cache would do."""

    def __init__(self, fault: str, way_out: str) -> None:
        super().__init__(f"{fault}; {way_out}")
        self.fault = fault
        self.way_out = way_out


def is_hub(model: str) -> bool:
    """Tell whether ``model`` names a repository on the hub."""
    return model.startswith(SCHEME)


def fetch(model: str, choose: Choose) -> Snapshot:
    """Download files of ``hf://org/name[@revision]`` and return the folder they lie in.

    ``choose`` gets the names of the repository's files and returns those to download; no other
    file is. Where the hub cannot be reached, it chooses from the files in the cache instead.

    Raises:
        LoadError: the name is malformed, the hub refuses, or a download fails. Errors of
            ``choose`` pass through.
        ConfigError: huggingface_hub is not installed.
    """
    repo = _parse(model)
    hub = _library()
    try:
        commit, names = _list(hub, repo)
    except _UnreachableError as error:
        return _from_cache(hub, repo, choose, error)
    folder = _download(hub, repo, commit, _chosen(repo, choose, names))
    _remember(repo, commit, folder)
    return Snapshot(folder, commit)


def _parse(model: str) -> _Repo:
    name, at, revision = model.removeprefix(SCHEME).partition("@")
    parts = name.split("/")
    if not is_hub(model) or len(parts) > 2 or not all(map(_is_name, parts)):
        raise LoadError(f"{located(model)}: not the name of a repository; {EXPECTED}")
    if at and not _is_revision(revision):
        raise LoadError(
            f"{located(model)}: '{quoted(revision)}' is no branch, tag or commit; {EXPECTED}"
        )
    return _Repo(name, revision)


def _is_name(part: str) -> bool:
    # The cache joins the parts with "--".
    return (
        NAME.fullmatch(part) is not None
        and "--" not in part
        and ".." not in part
        and not part.endswith(".git")
    )


def _is_revision(revision: str) -> bool:
    return (
        len(revision) <= MAX_REVISION
        and revision.isprintable()
        and NOT_IN_REVISIONS.isdisjoint(revision)
        and ".." not in revision
        and "@{" not in revision
        and not revision.endswith(".")
        and all(
            part and not part.startswith(".") and not part.endswith(".lock")
            for part in revision.split("/")
        )
    )


def _library() -> ModuleType:
    """Import huggingface_hub, only now: it is an extra, and takes time."""
    with _silence():
        try:
            hub = import_module("huggingface_hub")
            import_module("huggingface_hub.hf_api")
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == "huggingface_hub":
                fault = "is not installed: pip install encodercheck[hub]"
            else:
                fault = f"cannot be imported ({reason(error)}); are its HF_ variables right?"
            raise ConfigError(f"huggingface_hub {fault}") from error
    return hub


def _list(hub: ModuleType, repo: _Repo) -> tuple[str, list[str]]:
    """Return the commit that the revision stands for now, and the names of its files."""
    with _calling(hub, repo):
        info = hub.HfApi().repo_info(
            repo.name,
            revision=repo.revision or None,
            timeout=hub.constants.HF_HUB_ETAG_TIMEOUT,
        )
        commit = str(info.sha)
        names = [str(sibling.rfilename) for sibling in info.siblings or []]
    if not COMMIT.fullmatch(commit) or (repo.is_pinned and commit != repo.revision):
        raise LoadError(
            f"{repo}: the hub names '{quoted(commit)}' as its commit; is HF_ENDPOINT right?"
        )
    return commit, sorted(names)


def _chosen(repo: _Repo, choose: Choose, names: Sequence[str]) -> list[str]:
    chosen = list(choose(names))
    if not chosen:
        raise LoadError(f"{repo}: no file of use among its {len(names)}; choose another model")
    for name in chosen:
        if not _stays_inside(name):
            raise LoadError(
                f"{repo}: lists a file named '{quoted(name)}', which could be written outside the "
                "cache; nothing was downloaded; do not use this repository"
            )
    return chosen


def _stays_inside(name: str) -> bool:
    """Tell whether a name is a plain relative path, on Windows too."""
    return (
        name.isprintable()
        and not {"\\", ":"} & set(name)
        and {"", ".", ".."}.isdisjoint(name.split("/"))
    )


def _download(hub: ModuleType, repo: _Repo, commit: str, names: Sequence[str]) -> Path:
    """Bring the files into the cache, as far as they are not there, and return their folder."""
    folders = set()
    for name in names:
        with _calling(hub, repo, name):
            path = Path(hub.hf_hub_download(repo.name, name, revision=commit))
        folders.add(path.parents[name.count("/")])
    folder = folders.pop()
    if folders or folder.name != commit:
        raise LoadError(f"{repo}: the hub sent files of different commits; try again")
    return folder


def _remember(repo: _Repo, commit: str, folder: Path) -> None:
    """Note in the cache which commit the revision stands for, as the library itself does.

    It does so only when it is asked for a branch, not for the commit it was resolved to.
    """
    if repo.is_pinned:
        return
    ref = _ref(folder.parents[1], repo)
    part = ref.with_name(f"{ref.name}.{os.getpid()}.tmp")
    # A cache that cannot be written serves all the same.
    with suppress(OSError, ValueError):
        ref.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(commit, encoding="ascii")
        part.replace(ref)


def _ref(storage: Path, repo: _Repo) -> Path:
    return storage / "refs" / (repo.revision or "main")


def _from_cache(
    hub: ModuleType, repo: _Repo, choose: Choose, unreachable: _UnreachableError
) -> Snapshot:
    """Return what an earlier download left of the revision, if that suffices."""
    cache = Path(hub.constants.HF_HUB_CACHE).expanduser().resolve()
    storage = cache / "--".join(["models", *repo.name.split("/")])
    commit = _cached_commit(storage, repo)
    folder = storage / "snapshots" / commit
    names = _files(folder) if commit else []
    if not names:
        raise LoadError(
            f"{unreachable.fault}, and no copy of it is in {located(cache)}; {unreachable.way_out}"
        ) from unreachable
    try:
        _chosen(repo, choose, names)
    except LoadError as error:
        raise LoadError(
            f"{unreachable.fault}, and its copy in {located(cache)} is incomplete ({error}); "
            f"{unreachable.way_out}"
        ) from error
    return Snapshot(folder, commit)


def _cached_commit(storage: Path, repo: _Repo) -> str:
    """Return the commit the revision stood for last; empty where the cache does not know."""
    if repo.is_pinned:
        return repo.revision
    try:
        commit = _ref(storage, repo).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""
    return commit if COMMIT.fullmatch(commit) else ""


def _files(folder: Path) -> list[str]:
    """Return the names of the files below a folder, without links whose file is gone."""
    try:
        found = [path for path in folder.rglob("*") if path.is_file()]
    except OSError:
        return []
    return sorted(path.relative_to(folder).as_posix() for path in found)


@contextmanager
def _calling(hub: ModuleType, repo: _Repo, file: str = "") -> Iterator[None]:
    """Call huggingface_hub: in silence, without telemetry, and with errors fit for the user.

    Its progress bars need no care: they appear on a terminal only.
    """
    constants = hub.constants
    telemetry = constants.HF_HUB_DISABLE_TELEMETRY
    # Or it would tell, and ask for, more than a download needs.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        with _silence():
            yield
    except Exception as error:
        raise _translated(repo, file, error) from error
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = telemetry


@contextmanager
def _silence() -> Iterator[None]:
    """Keep logs and warnings off the console; what matters in them is raised as well."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _translated(repo: _Repo, file: str, error: BaseException) -> LoadError:
    """Return the error for the user: of which repository and file, the fault, the way out."""
    while type(error).__name__ == "LocalEntryNotFoundError" and error.__cause__:
        error = error.__cause__  # it wraps whatever went wrong
    subject = f"{repo}: {quoted(file)}" if file else str(repo)
    status = getattr(getattr(error, "response", None), "status_code", None)
    for kind in type(error).__mro__:
        if kind.__name__ in FAULTS:
            return LoadError(f"{subject}: {FAULTS[kind.__name__]}")
    if type(error).__name__ == "OfflineModeIsEnabled":
        return _UnreachableError(f"{subject}: HF_HUB_OFFLINE is set", "unset it to download")
    if isinstance(status, int):
        return _refused(subject, status)
    if _is_network(error):
        return _UnreachableError(
            f"{subject}: the connection to the hub failed ({_said(_deepest(error))})",
            "offline? is HF_ENDPOINT right?",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return LoadError(
            f"{subject}: {located(error.filename or 'the cache')}: {os_reason(error)}; make room "
            "or allow writing there, or set HF_HOME to another folder"
        )
    if file:
        return LoadError(f"{subject}: the download failed ({_said(error)}); try again")
    return LoadError(
        f"{subject}: asking the hub failed ({_said(error)}); are HF_ENDPOINT and HF_TOKEN right?"
    )


def _refused(subject: str, status: int) -> LoadError:
    if status in BUSY or status >= 500:
        return _UnreachableError(f"{subject}: the hub answers {status}", "try again later")
    if status in (401, 403):
        return LoadError(
            f"{subject}: the hub refuses access ({status}); {LOG_IN}, with a token that may read it"
        )
    return LoadError(f"{subject}: the hub answers {status}; is HF_ENDPOINT right?")


def _is_network(error: BaseException) -> bool:
    if isinstance(error, JSONDecodeError):
        return False  # though requests derives its own from its base
    modules = {kind.__module__.partition(".")[0] for kind in type(error).__mro__}
    return isinstance(error, (ConnectionError, TimeoutError)) or bool(modules & HTTP_LIBRARIES)


def _deepest(error: BaseException) -> BaseException:
    """Return the operating system's error below those of the HTTP library, where there is one."""
    chain = [error]
    while (below := chain[-1].__cause__ or chain[-1].__context__) and below not in chain:
        chain.append(below)
    return next((part for part in reversed(chain) if isinstance(part, OSError)), error)


def _said(error: BaseException) -> str:
    """Return the first line of a library's error, with its type and without the user's token."""
    line = str(error).strip().partition("\n")[0]
    line = re.sub("Bearer .*", "Bearer ***", line)
    return quoted(f"{type(error).__name__}: {line}", limit=200)
