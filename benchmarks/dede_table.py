"""docs/dede.md, from the rows of benchmarks/dede.py."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks import zoo
from benchmarks.rows import Row
from encodercheck.cache import atomic_write_text
from encodercheck.intervals import RESAMPLES, area, share, surprise

PAGE = Path(__file__).parents[1] / "docs" / "dede.md"
KINDS = (*zoo.PATCHES, *zoo.OTHERS)
# The paper's ablation: true and false positives, in percent, by masks in training and test.
PUBLISHED = {
    (0.5, 0.75): ("72.3", "8.1"),
    (0.75, 0.9): ("84.6", "5.7"),
    (0.9, 0.95): ("89.2", "4.3"),
    (0.9, 0.99): ("93.1", "3.2"),
}
# What screening is scored by: the score, what the decoder gets, and which patches count.
COLUMNS = (
    ("relative", "embedding", "whole"),
    ("relative", "embedding", "untouched"),
    ("error", "embedding", "whole"),
    ("error", "embedding", "untouched"),
    ("relative", "direction", "whole"),
    ("error", "direction", "whole"),
)


def write(rows: list[Row]) -> None:
    """Write the page."""
    samples, ablation, drift, triggers = (
        [row for row in rows if row["what"] == what and "refused" not in row]
        for what in ("samples", "ablation", "drift", "triggers")
    )
    lines = [
        "# DeDe, measured",
        "",
        "Made by `python -m benchmarks.dede` from [dede.json](dede.json); its head has the",
        "commands. Encoders are those of [inversion.md](inversion.md), trained on the world",
        "*clouds*; settings were chosen on even seeds and everything here is about odd ones. Rates",
        "are means over encoders with a 95 % bootstrap interval over encoders, then the worst of",
        "them; the threshold allows 3 % of clean images. *Relative* is our score, *error* the",
        "published one. *Whole* is scored on all patches, *untouched* on those the trigger leaves:",
        "a decoder that never saw a white square cannot draw it, whatever the encoder. *Direction*",
        "gives the decoder embeddings of length one: BadEncoder leaves the length of an embedding",
        "alone, on the two ResNets it grows tenfold under the trigger, and that gives images away.",
        "",
        "## Images with the trigger that the encoder was poisoned with",
        *(line for world in ("procedural", "clouds") for line in screened(samples, world)),
        "",
        "## Images on clean encoders",
        "",
        "Here nothing should be flagged beyond 3 %: these triggers mean nothing to the encoder.",
        *(line for world in ("procedural", "clouds") for line in other_stamps(samples, world)),
        "",
        "## A filter before a classifier",
        "",
        *filtered(samples),
        "",
        "## Settings",
        "",
        *settings(ablation),
        "",
        "## Encoders: EC301",
        "",
        *encoders(drift),
        "",
        *by_trigger(triggers),
        "",
        "## Time",
        "",
        *times(samples),
    ]
    atomic_write_text(PAGE, "\n".join([*lines, ""]))


def mean(values: Sequence[float], *, worst: Callable[[Iterable[float]], float]) -> str:
    """Return "0.98 (0.96 to 0.99), worst 0.91": the mean over encoders, and its interval."""
    if not values:
        return "-"
    generator = random.Random(0)
    drawn = sorted(
        statistics.fmean(generator.choices(values, k=len(values))) for _ in range(RESAMPLES)
    )
    low, high = drawn[int(0.025 * RESAMPLES)], drawn[int(0.975 * RESAMPLES)]
    return f"{statistics.fmean(values):.3f} ({low:.3f} to {high:.3f}), {worst(values):.3f}"


def head(first: str) -> list[str]:
    """Return the head of a table of screened images."""
    titles = [f"{score}, {ways}, {where}" for score, ways, where in COLUMNS]
    return [
        "",
        f"| {' | '.join([first, 'encoders', *titles])} |",
        f"|{' --- |' * (len(COLUMNS) + 2)}",
    ]


def counted(row: Row, world: str, column: tuple[str, str, str]) -> Iterator[tuple[str, float]]:
    """Yield the name of each trigger with the part of the images that is flagged."""
    score, ways, where = column
    found = row["worlds"][world].get(ways)
    for name, flagged in (found[score][where] if found else {}).items():
        if flagged is not None:
            yield name, flagged / found[score]["n"]


def screened(samples: list[Row], world: str) -> list[str]:
    """Return the table of true positives by attack, with the false positives below."""
    lines = ["", f"Scanned with *{world}* images.", *head("attack")]
    poisoned = [row for row in samples if row["kind"] != "clean"]
    groups = {kind: [row for row in poisoned if row["kind"] == kind] for kind in KINDS}
    for architecture in zoo.PRETRAINING:
        groups[f"patches, {architecture}"] = [
            row
            for row in poisoned
            if row["architecture"] == architecture and row["kind"] in zoo.PATCHES
        ]
    groups["all patches"] = [row for row in poisoned if row["kind"] in zoo.PATCHES]
    for title, own in groups.items():
        if own:
            cells = [
                mean([rate for row in own for _, rate in counted(row, world, c)], worst=min)
                for c in COLUMNS
            ]
            lines.append(f"| {' | '.join([title, str(len(own)), *cells])} |")
    lines.append(f"| {' | '.join(['no trigger', str(len(poisoned)), *clean(poisoned, world)])} |")
    return lines


def clean(rows: list[Row], world: str) -> list[str]:
    """Return the false positives on images without a trigger, for each column."""
    cells = []
    for score, ways, where in COLUMNS:
        found = [row["worlds"][world][ways][score] for row in rows if ways in row["worlds"][world]]
        rates = [one["clean"] / one["n"] for one in found]
        cells.append(mean(rates, worst=max) if where == "whole" else "")
    return cells


def other_stamps(samples: list[Row], world: str) -> list[str]:
    """Return what is flagged on clean encoders, where no trigger means anything."""
    own = [row for row in samples if row["kind"] == "clean"]
    lines = ["", f"Scanned with *{world}* images.", *head("stamp")]
    lines.append(f"| {' | '.join(['none', str(len(own)), *clean(own, world)])} |")
    names = dict.fromkeys(name for row in own for name, _ in counted(row, world, COLUMNS[0]))
    for wanted in names:
        cells = [
            mean(
                [rate for row in own for name, rate in counted(row, world, c) if name == wanted],
                worst=max,
            )
            for c in COLUMNS
        ]
        lines.append(f"| {' | '.join([wanted, str(len(own)), *cells])} |")
    return lines


def filtered(samples: list[Row]) -> list[str]:
    """Return attack success and accuracy before and after filtering."""
    lines = [
        "A linear classifier on the encoder; flagged inputs are dropped, which is no attack",
        "success and no right answer. In percent. The paper has attack success fall from 99.9 to",
        "1.3, 97.8 to 3.7, 98.5 to 0.5 and 96.3 to 4.2, at 0.5 to 1.5 of clean accuracy.",
        "",
        "| attack | triggers | success | filtered | worst | accuracy | filtered | of the kept |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        own = [row["filter"] for row in samples if row["kind"] == kind]
        found = [trigger for one in own for trigger in one["triggers"]]
        if own:
            numbers = (
                statistics.fmean(t["success"] for t in found),
                statistics.fmean(t["success_filtered"] for t in found),
                max(t["success_filtered"] for t in found),
                statistics.fmean(one["accuracy"] for one in own),
                statistics.fmean(one["accuracy_filtered"] for one in own),
                statistics.fmean(one["accuracy_kept"] for one in own),
            )
            cells = [kind, str(len(found)), *(f"{100 * number:.1f}" for number in numbers)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def settings(ablation: list[Row]) -> list[str]:
    """Return true and false positives by masks, decoder and what the encoder sees."""
    if not ablation:
        return ["Not measured."]
    lines = [
        f"Patch attacks on {len(ablation)} encoders, *procedural* images, whole frame, in percent;",
        "true and false positives at the 3 % threshold, and at mean + 2 standard deviations with",
        "the published score. The paper's are its own, on CIFAR-10.",
        "",
        "| variant | masks | relative | error | error, 2 sigma | paper | fit, s |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for number, first in enumerate(ablation[0]["settings"]):
        own = [(row["settings"][number], row["n"]) for row in ablation]
        paper = PUBLISHED.get(tuple(first["masks"])) if first["variant"] == "conv" else None
        cells = [
            first["variant"],
            "/".join(f"{ratio:g}" for ratio in first["masks"]),
            _rates([(one["relative"], n) for one, n in own]),
            _rates([(one["error"], n) for one, n in own]),
            _rates([(one["error"]["sigma"], n) for one, n in own]),
            f"{paper[0]} / {paper[1]}" if paper else "",
            f"{statistics.median(one['fit_seconds'] for one, _ in own):.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _rates(found: list[tuple[Row, int]]) -> str:
    true = statistics.fmean(count / n for one, n in found for count in one["flagged"])
    false = statistics.fmean(one["clean"] / n for one, n in found)
    return f"{100 * true:.1f} / {100 * false:.1f}"


def encoders(drift: list[Row]) -> list[str]:
    """Return what EC301 says of encoders."""
    if not drift:
        return ["Not measured."]
    lines = [
        "Against the shipped clean encoders, of even seeds. Areas rank by p-value. *Large* is a",
        "patch of a quarter of the image, of which the 3 % that are stamped leave too little.",
        "",
        "| encoders | clean that failed | patch attacks that failed | AUROC | "
        "AUROC without large | other attacks that failed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for title in (*zoo.PRETRAINING, "all"):
        lines.append(_verdicts(title, [r for r in drift if title in ("all", r["architecture"])]))
    titles = ("encoder", "outcome", "drift", "random triggers", "p")
    lines += ["", f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    for row in sorted(drift, key=lambda r: (r["architecture"], r["kind"] != "clean", r["kind"])):
        numbers = [row["values"].get(name) for name in ("drift", "random_drift", "p_value")]
        shown = ["" if number is None else f"{number:.3g}" for number in numbers]
        name = f"{row['architecture']}, {row['kind']}, {row['seed']}"
        lines.append(f"| {' | '.join([name, row['outcome'], *shown])} |")
    return lines


def _verdicts(title: str, own: list[Row]) -> str:
    """Return a line on how often encoders fail, by kind."""
    kinds: tuple[Sequence[str], ...] = (("clean",), zoo.PATCHES, zoo.OTHERS)
    clean, patches, others = ([row for row in own if row["kind"] in kind] for kind in kinds)
    smaller = [row for row in patches if row["kind"] != "large"]

    def failed(rows: list[Row]) -> str:
        return share(sum(row["outcome"] == "failed" for row in rows), len(rows))

    def ranked(rows: list[Row]) -> list[float]:
        return [surprise(row["values"].get("p_value")) for row in rows]

    cells = (
        title,
        failed(clean),
        failed(patches),
        area(ranked(patches), ranked(clean)),
        area(ranked(smaller), ranked(clean)),
        failed(others),
    )
    return f"| {' | '.join(cells)} |"


def by_trigger(triggers: list[Row]) -> list[str]:
    """Return how far each kind of trigger takes clean encoders, and poisoned ones."""
    if not triggers:
        return ["Not measured."]
    kinds = {"battery": "the battery's best", "small": "3 %, EC202", "large": "12 %, EC204"}
    titles = ("encoders", "poisoned with", "n", *kinds.values())
    lines = [
        "Why EC301 leaves the rectangles on 12 % alone: they take some clean encoders as far",
        "as poisoned ones. Encoders of even seeds; excess drift, least to most.",
        "",
        f"| {' | '.join(titles)} |",
        f"|{' --- |' * len(titles)}",
    ]
    others = tuple(kind for kind in zoo.PATCHES if kind != "large")
    groups = {"nothing": ("clean",), "large": ("large",), "other patches": others}
    for architecture in zoo.PRETRAINING:
        alike = [row for row in triggers if row["architecture"] == architecture]
        for title, attacks in groups.items():
            own = [row for row in alike if row["kind"] in attacks]
            cells = [_range([row[name]["excess"] for row in own]) for name in kinds]
            lines.append(f"| {' | '.join([architecture, title, str(len(own)), *cells])} |")
    return lines


def _range(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}" if values else "-"


def times(samples: list[Row]) -> list[str]:
    """Return how long fitting and scoring took."""
    found = [
        one["embedding"] | {"threads": row["threads"]}
        for row in samples
        for one in row["worlds"].values()
    ]
    if not found:
        return ["Not measured."]
    seconds = statistics.median(one["fit_seconds"] for one in found)
    speed = statistics.median(one["images_per_second"] for one in found)
    return [
        f"Fitting to 4,000 images of 32 pixels took {seconds:.0f} s in the median, embedding them",
        f"included, and scoring went at {speed:,.0f} images a second, with {found[0]['threads']}",
        "thread a process and two processes side by side on two shared cores.",
    ]
