"""What the site has beside the pages in ``docs/``; mkdocs calls the functions here.

Pages that repeat what the code says are made of the code, and tables that were measured are taken
from the pages that have them: nothing of either is typed twice.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import insets
import links
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
# Generated page: where its text comes from, or who writes it.
COPIED = {"check-packs.md": "examples/check-pack/README.md"}
WRITTEN = {
    "reference/cli.md": reference.command_line,
    "reference/exit-codes.md": reference.exit_codes,
    "reference/report.md": reference.report,
    "reference/python.md": reference.python,
}
SCHEMA = ROOT / "encodercheck" / "report.schema.json"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the navigation what is not written yet: tables that take days to measure.

    A page that is there under another name than the navigation's is one without a place in it,
    which mkdocs warns of.
    """
    pages = {*COPIED, *WRITTEN, *(file.name for file in Path(config.docs_dir).glob("*.md"))}
    config.nav = [entry for entry in map(partial(_present, pages), config.nav or []) if entry]
    return config


def _present(pages: set[str], entry: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of the navigation with what there is of it; nothing where that is nothing."""
    ((title, inside),) = entry.items()
    if isinstance(inside, str):
        return entry if inside in pages else {}
    kept = [one for one in (_present(pages, below) for below in inside) if one]
    return {title: kept} if kept else {}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the schema under the address that it names itself by."""
    for name, source in COPIED.items():
        text = links.moved((ROOT / source).read_text(), of=Path(source), to=Path("docs") / name)
        files.append(File.generated(config, name, content=text))
    for name, write in WRITTEN.items():
        files.append(File.generated(config, name, content=write()))
    files.append(File.generated(config, SCHEMA.name, content=SCHEMA.read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what a page has from elsewhere, and mend links that leave the site."""
    place = Path("docs") / page.file.src_uri
    markdown = insets.filled(markdown, ROOT, place)
    if page.parent is None:
        # Alone in its tab: a column for the others would be empty.
        page.meta.setdefault("hide", ["navigation"])
    return links.outward(markdown, place, ROOT, config.extra["repository"])
