"""A section of our own in a model card, README.md: everything around it stays as it is.

Byte for byte: the metadata on top are edited as text and never written anew, which would lose their
comments, their order and their quotes.
"""

from __future__ import annotations

import re

BEGIN = "<!-- encodercheck:begin -->"
END = "<!-- encodercheck:end -->"
TAG = "encodercheck"

# As the Hugging Face Hub finds the metadata: between two lines of dashes, before anything else.
METADATA = re.compile(r"\A(\ufeff?\s*---\r?\n)(.*?)^---(?:\r?\n|\Z)", re.S | re.M)
TAGS = re.compile(r"""^(["']?)tags\1[ \t]*:[ \t]*(?P<value>[^\r\n]*)\r?\n""", re.M)
IN_BRACKETS = re.compile(rf"""(?<![\w-]){TAG}(?![\w-])""")
AS_ITEM = re.compile(rf"""^[ ]*-[ ]+(["']?){TAG}\1[ \t]*(?:#.*)?\r?$""", re.M)
NOTHING = r"(?:[ \t]*(?:#[^\r\n]*)?\r?\n)*"
FIRST_ITEM = re.compile(rf"{NOTHING}(?P<item>(?P<indent>[ ]*)-[ ])")
NO_ITEM = re.compile(rf"{NOTHING}(?:\Z|(?=[^\s-]))")
NEXT_KEY = re.compile(r"^[^\s#-]", re.M)
# What a key can be added after by somebody who does not parse YAML: lines that are keys, items,
# comments or closing brackets, or are indented.
KEY = re.compile(r"""[\w"'][^\r\n]*:(?:\s.*)?""")
PLAIN = re.compile(rf"""{KEY.pattern}|-(?:\s.*)?|#.*|[\]}}],?|\s.*|""")


class UnbalancedMarkers(ValueError):  # noqa: N818 - reads as what it is
    """The markers of the section do not come as one pair."""


def updated(card: str, section: str) -> str:
    """Return the card with ``section`` between the markers, at the end where there are none.

    Where it has metadata they get our tag. Lines end as they do in the card.

    Raises:
        UnbalancedMarkers: the markers are not there once each and in order.
    """
    newline = "\r\n" if "\r\n" in card else "\n"
    whole = f"{BEGIN}\n{section.strip()}\n{END}".replace("\n", newline)
    return tagged(_with_section(card, whole, newline), newline)


def tagged(card: str, newline: str = "\n") -> str:
    """Return the card with our tag in its metadata; as it is where that cannot be done safely.

    >>> tagged("---\\ntags: [vision]\\n---\\n")
    '---\\ntags: [encodercheck, vision]\\n---\\n'
    """
    found = METADATA.match(card)
    if found is None:
        return card
    start, end = found.span(2)
    return card[:start] + _tagged(card[start:end], newline) + card[end:]


def _with_section(card: str, section: str, newline: str) -> str:
    begin, end = card.find(BEGIN), card.find(END)
    counts = card.count(BEGIN), card.count(END)
    if counts == (0, 0):
        ended = card + ("" if not card or card.endswith("\n") else newline)
        return f"{ended}{newline if ended else ''}{section}{newline}"
    if counts != (1, 1) or end < begin:
        raise UnbalancedMarkers(
            f"{counts[0]} times {BEGIN} and {counts[1]} times {END}, not one pair in this order"
        )
    return card[:begin] + section + card[end + len(END) :]


def _tagged(metadata: str, newline: str) -> str:
    found = TAGS.search(metadata)
    if found is None:
        return _with_tags(metadata, newline)
    if found["value"].startswith("["):
        return _in_brackets(metadata, found.start("value") + 1)
    if found["value"] and not found["value"].startswith("#"):
        return metadata
    return metadata[: found.end()] + _in_list(metadata[found.end() :], newline)


def _with_tags(metadata: str, newline: str) -> str:
    lines = metadata.splitlines()
    first = next((line for line in lines if line.strip() and line.lstrip()[0] != "#"), "key:")
    if not KEY.fullmatch(first) or not all(map(PLAIN.fullmatch, lines)):
        return metadata
    return f"{metadata}tags:{newline}- {TAG}{newline}"


def _in_brackets(metadata: str, start: int) -> str:
    inside, bracket, _ = metadata[start:].partition("]")
    if not bracket or IN_BRACKETS.search(inside):
        return metadata
    return f"{metadata[:start]}{TAG}{', ' if inside.strip() else ''}{metadata[start:]}"


def _in_list(rest: str, newline: str) -> str:
    """Return what comes after the line ``tags:``, with our tag as the first item."""
    first = FIRST_ITEM.match(rest)
    if first is None:
        return f"- {TAG}{newline}{rest}" if NO_ITEM.match(rest) else rest
    start = first.start("item")
    following = NEXT_KEY.search(rest, start)
    if AS_ITEM.search(rest, start, following.start() if following else len(rest)):
        return rest
    return f"{rest[:start]}{first['indent']}- {TAG}{newline}{rest[start:]}"
