"""The pictures of the README: a real failing scan, and its witness.

    python -m benchmarks.picture

writes docs/scan.svg and docs/witness.png.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from encodercheck import scanning
from encodercheck.cache import atomic_write_text
from encodercheck.cli.live import header, listening
from encodercheck.render import console as render
from encodercheck.witness import PICTURE_NAME

DOCS = Path(__file__).parents[1] / "docs"
MODEL = "fixture:badencoder"
# Fonts from the web would be fetched by every viewer.
WEB_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        state = scanning.prepare(MODEL, artifacts=Path("encodercheck-artifacts/badencoder"))
        console = Console(record=True, width=124, force_terminal=False, highlight=False)
        console.print(Text(f"$ encodercheck scan {MODEL}\n", style="bold"))
        console.print(header(state))
        with listening(console) as listener:
            report = scanning.run(state, listener=listener)
        console.print(render.verdict(report))
        picture = WEB_FONTS.sub("", console.export_svg(title="encodercheck"))
        atomic_write_text(DOCS / "scan.svg", picture)
        witness = next(found.witness for found in report.findings if found.witness)
        shutil.copy(Path(witness).with_name(PICTURE_NAME), DOCS / PICTURE_NAME)


if __name__ == "__main__":
    main()
