"""Screened images on the terminal, as CSV, and as a contact sheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from encodercheck.render.console import STYLES, number, printable
from encodercheck.report import Outcome

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from encodercheck.screening import Sample, Samples

COLUMNS = ("rank", "score", "p_value", "flagged", "file")
TILE = 96
GAP = 8
CAPTION = 14


def table(samples: Samples) -> Table:
    """Return the most suspicious images, worst first."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title, side in (("", "right"), ("score", "right"), ("p", "right"), ("", "left")):
        made.add_column(title, justify="right" if side == "right" else "left")
    made.add_column("file", overflow="fold")
    for rank, sample in enumerate(samples.worst, start=1):
        made.add_row(
            str(rank),
            f"{sample.score:.3f}",
            number(sample.p_value),
            Text("flagged", style="bold red") if sample.flagged else "",
            printable(sample.file),
        )
    return made


def verdict(samples: Samples) -> Text:
    """Say whether more images are flagged than clean ones would be, and what that means."""
    text = Text()
    outcome = samples.outcome
    label = outcome.value.upper() if outcome is not Outcome.INCONCLUSIVE else "NO VERDICT"
    text.append(label, style=f"{STYLES[outcome]} reverse")
    text.append(
        f"  {samples.flagged} of {samples.screened} images flagged, about "
        f"{samples.expected:.0f} expected of clean ones (p {number(samples.p_value)})",
        style=STYLES[outcome],
    )
    text.append(f"  in {samples.seconds:.1f} s", style="dim")
    for line in _remarks(samples):
        text.append(f"\n{line}")
    return text


def _remarks(samples: Samples) -> Iterable[str]:
    if samples.unreadable:
        shown = ", ".join(printable(file) for file in samples.unreadable[:3])
        more = ", ..." if len(samples.unreadable) > 3 else ""
        files = "1 file" if len(samples.unreadable) == 1 else f"{len(samples.unreadable)} files"
        yield f"{files} cannot be read: {shown}{more}"
    if samples.passed_over:
        yield f"not screened: {printable(samples.passed_over)}; name these folders to screen them"
    alike = f"cosine {number(samples.alike)}, clean images {number(samples.clean_alike)}"
    if samples.another_kind:
        yield (
            f"Most images are flagged, and their embeddings are not alike ({alike}): they are "
            "of another kind than the clean ones. Bring clean images of their kind with --clean."
        )
    elif samples.outcome is Outcome.FAILED:
        yield (
            f"What is flagged embeds with {alike}. A trigger makes images alike; where they are "
            "not, these may merely be unlike the clean ones: see --clean."
        )


def write_csv(samples: Iterable[Sample], file: io.TextIOBase) -> None:
    """Write every sample, the most suspicious first."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for rank, sample in enumerate(samples, start=1):
        writer.writerow((rank, sample.score, sample.p_value, int(sample.flagged), sample.file))


def sheet(shown: list[tuple[Sample, Tensor, Tensor, Tensor]]) -> Image.Image:
    """Draw, for each sample, the original, its reconstruction and the map of errors.

    Each comes with two images (3, H, W) in [0, 1] and errors (side, side); all error maps share one
    scale, black for none and white for the largest.
    """
    from PIL import Image, ImageDraw

    from encodercheck.witness import tile

    # What cannot be reconstructed at all, from an embedding that is not finite, is white.
    finite = [errors[errors.isfinite()] for *_, errors in shown]
    largest = max((float(errors.max()) for errors in finite if len(errors)), default=1.0) or 1.0
    width = GAP + 3 * (TILE + GAP)
    height = CAPTION + GAP + len(shown) * (TILE + CAPTION + GAP)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(("image", "reconstructed", "error")):
        draw.text((GAP + column * (TILE + GAP), 2), title, fill="black")
    for row, (sample, image, reconstructed, errors) in enumerate(shown):
        top = CAPTION + GAP + row * (TILE + CAPTION + GAP)
        heat = (errors / largest).expand(3, -1, -1)
        for column, pixels in enumerate((image, reconstructed, heat)):
            canvas.paste(tile(pixels.nan_to_num(1.0), TILE), (GAP + column * (TILE + GAP), top))
        name = printable(sample.file)
        name = name if len(name) <= 36 else f"...{name[-33:]}"
        colour = "red" if sample.flagged else "black"
        draw.text((GAP, top + TILE), f"{sample.score:.2f}  {name}", fill=colour)
    return canvas
