"""The pages of the documentation, and the code that stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "examples" / "check-pack" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
)
# Comments above a block say how it is to be taken.
BLOCK = re.compile(
    r"(?P<notes>(?:^<!-- [^\n]* -->\n)*)^(?P<fence>```+)(?P<language>[\w-]*)[^\n]*\n"
    r"(?P<text>.*?)^(?P=fence)$",
    re.DOTALL | re.MULTILINE,
)
NOTE = re.compile(r"<!-- (?P<what>not run|exit|file): (?P<how>.+) -->")
INLINE = re.compile(r"(?<!`)`(encodercheck [^`]+)`(?!`)")
RUN = ("sh", "python")


@dataclass(frozen=True)
class Block:
    """A fenced block, with what the comments above it say: not run, exit, or file."""

    page: Path
    line: int
    language: str
    text: str
    notes: dict[str, str]

    @property
    def runs(self) -> bool:
        """Whether it is to be executed: shell and Python are, unless a reason is given."""
        return self.language in RUN and not {"not run", "file"} & self.notes.keys()

    @property
    def exit_code(self) -> int:
        """What it is to end with."""
        return int(self.notes.get("exit", 0))

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text()
    return [
        Block(
            page,
            text.count("\n", 0, found.start("fence")) + 1,
            found["language"],
            found["text"],
            {note["what"]: note["how"] for note in NOTE.finditer(found["notes"])},
        )
        for found in BLOCK.finditer(text)
    ]


def all_blocks() -> list[Block]:
    """Return the fenced blocks of all pages."""
    return [block for page in PAGES for block in blocks(page)]


def commands(block: Block) -> Iterator[str]:
    """Yield the lines of a block that call encodercheck, put together where they are continued."""
    for line in re.sub(r"\\\n\s*", " ", block.text).splitlines():
        for part in re.split(r" && | \|\| ", line):
            found = re.match(r"\s*(?:\$ )?(?:\.venv/bin/)?(encodercheck (?!:).*)$", part)
            if found:
                yield found[1]


def inline_commands(page: Path) -> Iterator[str]:
    """Yield the commands in a page's prose, each of the choices in ``a|b`` by itself."""
    # In a table a choice is written with a backslash.
    prose = BLOCK.sub("", page.read_text()).replace("\\|", "|")
    for found in INLINE.finditer(prose):
        command = " ".join(found[1].split())
        choice = re.search(r"[\w.]+(?:\|[\w.]+)+", command)
        if choice is None:
            yield command
        else:
            yield from (command.replace(choice[0], one) for one in choice[0].split("|"))
