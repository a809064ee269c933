"""Text from anywhere, made inert in Markdown."""

from __future__ import annotations

import re

from encodercheck.render.words import printable

# What opens markup, HTML, entities and mathematics, and what GitHub links without being asked:
# @names, #numbers and addresses. Line beginnings need no care, since no text gets to one.
ACTIVE = re.compile(r"[\\`*_\[\]~<>&|$@#]|(?:https?|ftp)(?=://)|www(?=\.)|GH(?=-)", re.IGNORECASE)
ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;", "|": "&#124;", "$": "&#36;"}
# A space of no width parts what is linked from what it is linked by.
APART = "&#8203;"


def markdown(text: object) -> str:
    r"""Return text as Markdown shows it, within a line or a table's cell.

    >>> markdown("a|b *c* @team <img>")
    'a&#124;b \\*c\\* @&#8203;team &lt;img&gt;'
    """
    return ACTIVE.sub(_inert, printable(text))


def fenced(line: str) -> str:
    """Return a line of a shell as a block of code, out of which it cannot break."""
    runs = re.findall("`+", line)
    fence = "`" * max(3, *(len(run) + 1 for run in runs), 3)
    return f"{fence}sh\n{printable(line)}\n{fence}"


def _inert(found: re.Match[str]) -> str:
    text = found[0]
    if text in ENTITIES:
        return ENTITIES[text]
    return f"\\{text}" if text in "\\`*_[]~" else f"{text}{APART}"
