"""The verdict as a badge: what shields.io draws one from, and a drawing of our own."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Sequence
from xml.sax.saxutils import escape, quoteattr

from encodercheck.render import words
from encodercheck.render.words import cut
from encodercheck.report import Outcome, Report

LABEL = "encodercheck"
# In shields.io's words, and as it draws them.
COLOURS = {
    "brightgreen": "#4c1",
    "green": "#97ca00",
    "red": "#e05d44",
    "lightgrey": "#9f9f9f",
}
MOST_IDS, LONGEST_ID = 3, 24
# Verdana's widths in 2048ths of the size, by character; other fonts are stretched to them.
VERDANA = {
    562: "ijl",
    720: " f",
    807: "t!'.,",
    930: 'rIJ()[]/\\-:;|"',
    1076: "csz",
    1177: "?FL",
    1230: "aekvxy",
    1302: "bdghnopqu0123456789_$`*{}EPTYZ",
    1430: "ABCKRSVX",
    1612: "DGHNOQU",
    1676: "#+<=>^~w",
    1726: "M&",
    2048: "Wm@",
    2204: "%",
}
WIDTHS = {character: width / 2048 for width, all_ in VERDANA.items() for character in all_}
WIDEST = 1.0
SIZE, PADDING = 11, 6


def endpoint(reports: Sequence[Report]) -> str:
    """Return the JSON that shields.io's endpoint badge is made from."""
    message, colour = summary(reports)
    badge = {
        "schemaVersion": 1,
        "label": LABEL,
        "message": message,
        "color": colour,
        # No setting may paint green what is no pass.
        "isError": words.overall_exit_code(reports) != 0,
    }
    return json.dumps(badge, indent=2) + "\n"


def svg(reports: Sequence[Report]) -> str:
    """Return a drawing that needs nothing else: no network, and no font in particular."""
    message, colour = summary(reports)
    left, right = box(LABEL), box(message)
    title = f"{LABEL}: {message}"
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" \
aria-label={quoteattr(title)}>
  <title>{escape(title)}</title>
  <clipPath id="round"><rect width="{left + right}" height="20" rx="3" fill="#fff"/></clipPath>
  <g clip-path="url(#round)">
    <rect width="{left}" height="20" fill="#555"/>
    <rect x="{left}" width="{right}" height="20" fill="{COLOURS[colour]}"/>
  </g>
  <g fill="#fff" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" font-size="{SIZE}" \
aria-hidden="true">
    <text x="{PADDING}" y="14" textLength="{left - 2 * PADDING}">{escape(LABEL)}</text>
    <text x="{left + PADDING}" y="14" textLength="{right - 2 * PADDING}">{escape(message)}</text>
  </g>
</svg>
"""


def summary(reports: Sequence[Report]) -> tuple[str, str]:
    """Return a few words on how a scan ended, and the colour that they have."""
    code = words.overall_exit_code(reports)
    if code == 2:
        undecided = all(words.is_undecided(report) for report in reports if report.exit_code)
        why = f": {words.UNDECIDED}" if reports and undecided else ""
        return f"no verdict{why}", "lightgrey"
    if code == 1:
        return f"failed: {_failed(reports)}", "red"
    if len(reports) > 1:
        return f"passed {len(reports)}/{len(reports)} models", "brightgreen"
    findings = reports[0].findings
    passed = sum(f.outcome is Outcome.PASSED for f in findings)
    excused = Counter(words.excused(f) for f in findings if not f.counts)
    told = [f"{excused[word]} {word}" for word in words.EXCUSED if excused[word]]
    message = ", ".join([f"passed {passed}/{len(findings)}", *told])
    return message, "brightgreen" if passed == len(findings) else "green"


def _failed(reports: Sequence[Report]) -> str:
    if len(reports) > 1:
        failed = sum(report.exit_code == 1 for report in reports)
        return f"{failed}/{len(reports)} models"
    findings = reports[0].findings
    ids = [f.id for f in findings if f.outcome is Outcome.FAILED and f.counts]
    if len(ids) > MOST_IDS:
        return f"{len(ids)} of {len(findings)} checks"
    return ", ".join(cut(id_, LONGEST_ID) for id_ in ids)


def box(text: str) -> int:
    """Return the width of text with room on both sides, in whole pixels."""
    return round(SIZE * sum(map(_width, text))) + 2 * PADDING


def _width(character: str) -> float:
    """Return the width of a character as a part of the font's size."""
    known = WIDTHS.get(character)
    if known is None and unicodedata.combining(character):
        return 0.0
    return WIDEST if known is None else known
