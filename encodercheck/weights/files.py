"""From what the user typed to one .safetensors file on disk."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NoReturn

from encodercheck.errors import LoadError
from encodercheck.weights.header import listed, located, os_reason

SUFFIX = ".safetensors"
PICKLE_SUFFIXES = frozenset({".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".tar"})
CONVERT = (
    'python -c "import torch; from safetensors.torch import save_file; '
    "d = torch.load('model.pt', map_location='cpu', weights_only=True); "
    "save_file(d.get('state_dict', d), 'model.safetensors')\""
)
# Protocols 2 to 5; the older ones have no mark of their own.
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
CHUNK = 2**20


def resolve(model: str | Path) -> Path:
    """Return the .safetensors file that ``model`` names.

    ``model`` is the file itself or a folder: its ``model.safetensors``, or else the only
    .safetensors file in it.

    Raises:
        LoadError: there is no such file, more than one, or a pickle.
    """
    if str(model).startswith("hf://"):
        raise LoadError(
            f"{located(model)}: hf:// is not supported yet; download the model first and pass "
            "its .safetensors file"
        )
    path = Path(model)
    try:
        if path.is_dir():
            path = _in_folder(path)
        if not path.exists():
            raise LoadError(f"{located(path)}: no such file or folder; check the path")
        if not path.is_file():
            raise LoadError(f"{located(path)}: not a regular file; pass a .safetensors file")
        _refuse_other_formats(path)
    except (OSError, ValueError) as error:
        raise LoadError(f"{located(path)}: cannot be read: {os_reason(error)}") from error
    return path


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        LoadError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise LoadError(f"{located(path)}: cannot be read: {os_reason(error)}") from error
    return digest.hexdigest()


def _in_folder(folder: Path) -> Path:
    preferred = folder / f"model{SUFFIX}"
    if preferred.is_file():
        return preferred
    names = sorted(entry.name for entry in folder.iterdir())
    found = [name for name in names if name.lower().endswith(SUFFIX)]
    if any(name.lower().endswith(f"{SUFFIX}.index.json") for name in names):
        raise LoadError(
            f"{located(folder)}: sharded weights are not supported yet; merge the "
            f"{len(found)} files into one model{SUFFIX}"
        )
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise LoadError(
            f"{located(folder)}: {len(found)} .safetensors files ({listed(found)}); pass one of "
            "them"
        )
    pickles = [name for name in names if Path(name).suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        _refuse_pickle(folder / pickles[0])
    raise LoadError(f"{located(folder)}: no .safetensors file in this folder; pass one")


def _refuse_other_formats(path: Path) -> None:
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(40)
    if suffix in PICKLE_SUFFIXES or _is_pickle(start):
        _refuse_pickle(path)
    if start.startswith(b"version https://git-lfs"):
        raise LoadError(
            f"{located(path)}: a Git LFS pointer, not the weights; fetch them with `git lfs pull`"
        )
    if suffix != SUFFIX:
        raise LoadError(f"{located(path)}: not a .safetensors file; save the weights as one")


def _is_pickle(start: bytes) -> bool:
    """Recognise torch's zip files and bare pickles by their first bytes."""
    # A header's length may begin with the same bytes, but then its JSON follows.
    if start[8:9] == b"{":
        return False
    return start.startswith((b"PK\x03\x04", *PICKLE_STARTS))


def _refuse_pickle(path: Path) -> NoReturn:
    raise LoadError(
        f"{located(path)}: a pickle, which can run code when it is loaded, so encodercheck reads "
        f".safetensors only; convert it where you trust it: {CONVERT}"
    )
