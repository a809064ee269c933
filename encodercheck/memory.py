"""How much memory this process has used."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from encodercheck.encoder import Encoder

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Memory:
    """What a scan used, in bytes.

    The peaks are those of the process since it began, None where there is no telling.
    ``device_peak_bytes`` is on the CUDA device where the weights are, None if they are elsewhere.
    """

    weights_bytes: int = 0
    peak_bytes: int | None = None
    device_peak_bytes: int | None = None

    def to_dict(self) -> dict[str, int | None]:
        """Return the numbers as the report's JSON has them."""
        return asdict(self)


def used_with(encoder: Encoder) -> Memory:
    """Return what this process has used so far, and which part of it are the encoder's weights."""
    import torch

    device = encoder.device
    on_cuda = device.type == "cuda"
    return Memory(
        weights_bytes=sum(parameter.nbytes for parameter in encoder.module.parameters()),
        peak_bytes=peak_resident(),
        device_peak_bytes=torch.cuda.max_memory_allocated(device) if on_cuda else None,
    )


def peak_resident(status: Path = STATUS) -> int | None:
    """Return the most memory that this process held at any time, in bytes; None if unknown."""
    # Linux alone has this file. There getrusage would count the process that started this one too.
    try:
        found = re.search(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)
    except OSError:
        found = None
    return int(found[1]) * 1024 if found else _by_getrusage()


def _by_getrusage() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
