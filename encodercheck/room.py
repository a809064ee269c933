"""Whether images of the size that a model claims fit into memory, before any of them is made."""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from encodercheck.errors import LoadError
from encodercheck.weights.header import located

if TYPE_CHECKING:
    from encodercheck.encoder import Encoder

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
# A pixel of a clean image is kept as three floats, and as three bytes beside them.
BYTES_PER_PIXEL = 3 * (4 + 1)
# Below it no encoder takes more for one image than what is found out when it is tried.
SMALL = 512
WAY_OUT = "try --profile quick, --max-memory, or the right --image-size"
RAN_OUT = ("out of memory", "can't allocate memory")


def require_for_one(encoder: Encoder) -> None:
    """Demand that the encoder can work on one image.

    Raises:
        LoadError: a forward and backward pass of one takes more memory than there is.
    """
    if encoder.image_size > SMALL and (needed := encoder.expected_bytes()) is not None:
        _require(encoder, needed, "a pass of one {0}x{0} image", on_device=True)


def require_for(encoder: Encoder, count: int) -> None:
    """Demand that ``count`` images of the encoder's size fit into memory.

    Raises:
        LoadError: they do not.
    """
    needed = count * BYTES_PER_PIXEL * encoder.image_size**2
    _require(encoder, needed, f"{count:,} images of {{0}}x{{0}} pixels", on_device=False)


def ran_out(error: BaseException) -> bool:
    """Tell whether an error means that there was not enough memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(sign in text for sign in RAN_OUT)


def available(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int | None:
    """Return how many bytes of memory this process could still take; None if unknown."""
    found = [_of_machine(meminfo), _of_cgroup(cgroup), _of_limit()]
    return min((room for room in found if room is not None), default=None)


def _require(encoder: Encoder, needed: int, what: str, *, on_device: bool) -> None:
    on_device = on_device and encoder.device.type == "cuda"
    there = _of_device(encoder) if on_device else available()
    if there is None or needed <= there:
        return
    size, source = encoder.image_size, encoder.preprocessing.source_of("image_size")
    where = f"on {encoder.device}" if on_device else "here"
    raise LoadError(
        f"{located(encoder.provenance.path)}: {what.format(size)} ({source}): "
        f"{needed / 1e9:.1f} GB of memory, of which {there / 1e9:.1f} GB are free {where}; "
        "name the right size with --image-size, or scan it where there is more memory"
    )


def _of_device(encoder: Encoder) -> int:
    import torch

    free, _ = torch.cuda.mem_get_info(encoder.device)
    return int(free)


def _of_machine(meminfo: Path) -> int | None:
    with suppress(OSError):
        found = re.search(r"^MemAvailable:\s*(\d+) kB$", meminfo.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    return None


def _of_cgroup(cgroup: Path) -> int | None:
    """Return what is left of a container's limit; what it keeps of files can be given up."""
    with suppress(OSError, ValueError):
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        kept = re.search(r"^file (\d+)$", (cgroup / "memory.stat").read_text(), re.MULTILINE)
        return max(0, limit - used + (int(kept[1]) if kept else 0))
    return None


def _of_limit() -> int | None:
    """Return what is left of the limit on the addresses of this process."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    used = 0
    with suppress(OSError, ValueError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return max(0, limit - used)
