"""The pages that repeat what the code says, made of the code."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

import encodercheck
from encodercheck.cli.ending import INTERRUPTED, NO_VERDICT, TERMINATED
from encodercheck.cli.main import app
from encodercheck.config.rules import NO_RULES
from encodercheck.memory import Memory
from encodercheck.render import json as render_json
from encodercheck.report import (
    NOTHING_KNOWN,
    Direction,
    Finding,
    Measurement,
    Outcome,
    Report,
    exit_code,
    overall,
)

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "encodercheck" / "report.schema.json"
# Of a command's help: what it says about how it ends.
ENDS = re.compile(r"[^.]*\bexit code\b[^.]*\.", re.IGNORECASE)
SECTION = re.compile(r"^(Args|Returns|Raises):$")


def command_line() -> str:
    """Return the page on the commands, in the order of ``encodercheck --help``."""
    parts = [
        "# Command line",
        "Made of the program's own help. `encodercheck COMMAND --help` has the same.",
        str(typer.main.get_command(app).epilog),
    ]
    for path, command, context in commands():
        parts += _command(path, command, context)
    return "\n\n".join(parts) + "\n"


def exit_codes() -> str:
    """Return the page on exit codes: those of a scan, computed, and those of every command."""
    parts = [
        "# Exit codes",
        "Only 0 lets a model in. The tables are made of the code.",
        "## A scan",
        "What the outcomes of its checks add up to. A failure that is waived, or of a severity "
        "that does not count, is left out before.",
        _markdown_table(
            ("checks that", "scan", "exit code", "with `--strict`"), map(_row, _MIXTURES)
        ),
        f"A scan that could not start, for want of a readable model or for bad usage, ends with "
        f"{NO_VERDICT}, and so does a bug. Interrupted with Ctrl-C, any command ends with "
        f"{INTERRUPTED}, and with {TERMINATED} on SIGTERM; a scan writes the reports that were "
        f"asked for, with what is known. What ends a scan before its verdict, as a crash in a "
        f"check, is {NO_VERDICT}, and so is output that cannot be written. Of several models the "
        f"worst counts: 1 where a check failed on one of them, else {NO_VERDICT} where there was "
        "no verdict on one.",
        "## Every command",
        f"What a command says of itself. The others end with 0, or with {NO_VERDICT} and one line "
        "that says why they could not do what they were asked for.",
        _markdown_table(("command", "exit code"), _ends()),
    ]
    return "\n\n".join(parts) + "\n"


def report() -> str:
    """Return the page on the JSON report: its schema, object by object, and a whole one."""
    schema = json.loads(SCHEMA.read_text())
    parts = [
        "# JSON report",
        schema["description"],
        "The schema is [report.schema.json](../report.schema.json); it is installed beside the "
        'package, as `importlib.resources.files("encodercheck") / "report.schema.json"`.',
    ]
    for name, definition in schema["$defs"].items():
        parts += [f"## {name}", definition["description"]]
        if "properties" in definition:
            parts.append(_fields(definition))
    parts += [
        "## A report in full",
        "Of a scan that never took place, with one check.",
        f"```json\n{render_json.render([_EXAMPLE]).strip()}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def python() -> str:
    """Return the page on the public names, with what they say of themselves."""
    parts = [
        "# Python",
        "The public names, as `encodercheck` has them. What is not here may change without notice.",
        "Checks have more to work with: [what a check can ask for]"
        "(../writing-checks.md#what-a-check-can-ask-for).",
    ]
    for name in sorted(encodercheck.__all__, key=lambda name: (name[0].isupper(), name)):
        thing = getattr(encodercheck, name)
        parts += [f"## {name}", _signature(name, thing), _prose(inspect.getdoc(thing) or "")]
        if inspect.isclass(thing):
            for member, what in _members(thing):
                parts += [f"### `{name}.{member}`", what]
    return "\n\n".join(parts) + "\n"


# The command line


def commands() -> Iterator[tuple[str, Any, Any]]:
    """Yield every command with what it is called and its context; groups themselves are none."""
    group = typer.main.get_command(app)
    yield from _within(group, "encodercheck", None)


def _within(group: Any, path: str, parent: Any) -> Iterator[tuple[str, Any, Any]]:
    context = group.context_class(group, info_name=path.rpartition(" ")[2], parent=parent)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _within(command, f"{path} {name}", context)
        else:
            own = command.context_class(command, info_name=name, parent=context)
            yield f"{path} {name}", command, own


def _command(path: str, command: Any, context: Any) -> list[str]:
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    parts = [f"## {path}", _escaped(command.help or ""), f"```text\n{usage}\n```"]
    for title, kind in (("argument", "argument"), ("option", "option")):
        records = [
            parameter.get_help_record(context)
            for parameter in command.params
            if parameter.param_type_name == kind
        ]
        rows = [(_names(what), _help(text)) for what, text in filter(None, records)]
        if rows:
            parts.append(_markdown_table((title, ""), rows))
    return parts


def _names(what: str) -> str:
    """Return an option's names and what it takes, each in a piece that is not broken."""
    name, _, takes = re.sub(r" <(?:list\[)?(?:str|path|bool)\]?>$", "", what).partition(" <")
    return f"`{name}`" + (f" `{takes.removesuffix('>')}`" if takes else "")


def _help(text: str) -> str:
    """Return an option's help, with what is in brackets behind it in words."""
    words, _, extra = text.rpartition("  [") if "  [" in text else ("", "", text)
    if not words and not text.startswith("["):
        return _escaped(text)
    notes = [_note(note.strip()) for note in extra.strip("[]").split(";")]
    return " ".join(filter(None, (_escaped(words), *notes)))


def _note(note: str) -> str:
    kind, colon, rest = note.partition(": ")
    if not colon:
        return "Required." if note == "required" else f"`{note.replace('x', 'N')}`."
    return f"{ {'env var': 'Environment'}.get(kind, kind.capitalize()) }: `{rest}`."


def _ends() -> Iterator[tuple[str, str]]:
    for path, command, _ in commands():
        text = (command.help or "").replace("\n\n", " ").replace("\n", " ")
        said = [sentence.strip() for sentence in ENDS.findall(text)]
        for parameter in command.params:
            help_ = getattr(parameter, "help", None) or ""
            # Not what a scan would end with.
            if "exit with" in help_:
                said.append(f"`{parameter.opts[0]}`: {help_}")
        if said:
            yield f"`{path}`", _escaped(" ".join(said))


# Exit codes

_PASSED, _FAILED, _ERROR, _UNDECIDED = (
    Outcome.PASSED,
    Outcome.FAILED,
    Outcome.ERROR,
    Outcome.INCONCLUSIVE,
)
_MIXTURES: Mapping[str, tuple[Outcome, ...]] = {
    "all passed": (_PASSED,),
    "passed, some were inconclusive": (_PASSED, _UNDECIDED),
    "were inconclusive, all of them": (_UNDECIDED,),
    "passed, one ended with an error": (_PASSED, _ERROR),
    "passed, one failed": (_PASSED, _FAILED),
    "failed, another ended with an error": (_FAILED, _ERROR),
    "did not run, none of them": (),
}


def _row(mixture: str) -> tuple[str, ...]:
    outcomes = _MIXTURES[mixture]
    codes = [str(exit_code(outcomes, strict=strict)) for strict in (False, True)]
    return mixture, f"`{overall(outcomes)}`", *codes


# The report


_EXAMPLE = Report(
    model={"path": "model.safetensors"}
    | NOTHING_KNOWN
    | {
        "sha256": "4e0c" * 16,
        "architecture": "torchvision:resnet18",
        "provenance": "the tensors",
        "image_size": 224,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "preprocessing": "torchvision's default",
        "embedding_dim": 512,
        "parameters": 11176512,
    },
    images={"source": "folder", "digest": "ef" * 32, "count": 352, "unreadable": 0},
    findings=(
        Finding(
            "ACME001",
            "check_acme.py::check_something",
            "high",
            Outcome.FAILED,
            "what was found, in a line",
            seconds=1.25,
            measurements=(
                Measurement("p_value", 0.0001),
                Measurement("gain", 0.96, 0.9, Direction.AT_MOST),
            ),
            witness="encodercheck-artifacts/model/ACME001/witness.safetensors",
            title="What holds for a good encoder.",
        ),
    ),
    seed=0,
    device="cpu",
    versions={"python": "3.12.0", "encodercheck": "0.1.0"},
    seconds=12.5,
    memory=Memory(weights_bytes=44706048),
    compared_with="5 clean encoders of torchvision:resnet18",
    rules=NO_RULES.describe(),
)


def _fields(definition: Mapping[str, Any]) -> str:
    required = definition.get("required", ())
    rows = []
    for name, schema in definition["properties"].items():
        there = "" if name in required else " May be missing."
        rows.append((f"`{name}`", _type(schema), schema["description"] + there))
    return _markdown_table(("field", "is", ""), rows)


def _type(schema: Mapping[str, Any]) -> str:
    """Return a type in words: "number or null", "array of [finding](#finding)"."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.replace(' ', '-')})"
    if "const" in schema:
        return f"`{json.dumps(schema['const'])}`"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(choice)}`" for choice in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if "items" in schema:
        return f"array of {_type(schema['items'])}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return " or ".join(kinds)


# Python


def _signature(name: str, thing: Any) -> str:
    parameters = inspect.signature(thing)
    arguments = [
        str(parameter.replace(annotation=_plain(parameter.annotation)))
        for parameter in parameters.parameters.values()
    ]
    back = parameters.return_annotation
    returns = "" if inspect.isclass(thing) or back in (None, "None") else f" -> {_plain(back)}"
    one = f"{name}({', '.join(arguments)}){returns}"
    if len(one) > 88:
        keywords = any(
            parameter.kind is parameter.KEYWORD_ONLY for parameter in parameters.parameters.values()
        )
        first = next(
            (n for n, p in parameters.parameters.items() if p.kind is p.KEYWORD_ONLY), None
        )
        lines = []
        for key, argument in zip(parameters.parameters, arguments, strict=True):
            lines += ["    *,"] if keywords and key == first else []
            lines.append(f"    {argument},")
        one = "\n".join([f"{name}(", *lines, f"){returns}"])
    return f"```python\n{one}\n```"


class _plain(str):  # noqa: N801 - stands for an annotation in a signature
    """An annotation as it is written: ``inspect`` shows text in quotes."""

    def __new__(cls, annotation: Any) -> Any:
        text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
        return super().__new__(cls, text)

    def __repr__(self) -> str:
        return str(self)


def _members(thing: type) -> Iterator[tuple[str, str]]:
    """Yield the documented methods and properties of a class that it has itself."""
    for name, value in vars(thing).items():
        call = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        text = inspect.getdoc(value) if not name.startswith("_") or name == "__call__" else None
        if text and isinstance(value, property):
            yield name, _prose(text)
        elif text and inspect.isfunction(call):
            yield name, f"{_signature(name, call)}\n\n{_prose(text)}"


def _prose(text: str) -> str:
    """Return a docstring as Markdown: its roles, its sections and its examples."""
    text = re.sub(r":\w+:`~?([^`]+)`", lambda role: f"`{role[1].rpartition('.')[2]}`", text)
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    lines: list[str] = []
    within = False
    for line in text.splitlines():
        section = SECTION.match(line)
        if section:
            within = True
            lines += ["", f"**{section[1]}**", ""]
        elif within and re.match(r" {4}\S", line):
            name, colon, rest = line.strip().partition(":")
            listed = colon and re.fullmatch(r"[\w, ]+", name)
            lines.append(f"- `{name}`:{rest}" if listed else line.strip())
        else:
            within = within and (not line or line.startswith(" "))
            lines.append(line)
    return re.sub(r"(?:^>>> .*\n?(?:^(?!$).*\n?)*)", _example, "\n".join(lines), flags=re.M)


def _example(found: re.Match[str]) -> str:
    return f"```pycon\n{found[0].strip()}\n```\n"


# Markdown


def _markdown_table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def _escaped(text: str) -> str:
    """Return text in which no character is markup, but for what stands in `backticks`."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([\\<>*_\[\]])", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)
