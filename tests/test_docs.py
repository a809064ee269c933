"""The documentation: it builds, its links lead somewhere, and what it shows is so.

Its longer examples are run in test_docs_examples.py.
"""

from __future__ import annotations

import copy
import functools
import html
import http.server
import json
import math
import os
import re
import shlex
import subprocess
import sys
import threading
from html.parser import HTMLParser

import pytest
import shown
import typer
from docs_pages import PAGES, ROOT, all_blocks, commands, inline_commands
from jsonschema import Draft202012Validator, FormatChecker
from reports import WAIVED, report
from test_html_browser import BROWSER, QUIET

import encodercheck
from encodercheck import config
from encodercheck.cli.main import app
from encodercheck.config.keys import KEYS
from encodercheck.config.reading import tomllib
from encodercheck.harness.runner import list_checks, suite
from encodercheck.known import baseline
from encodercheck.profiles import PROFILES
from encodercheck.render import json as render_json
from encodercheck.replaying import REPRODUCED_SHARE
from encodercheck.report import NOTHING_KNOWN, Direction, Outcome, Report
from encodercheck.severities import SEVERITIES

SCHEMA = json.loads((ROOT / "encodercheck" / "report.schema.json").read_text())
SNAPSHOTS = sorted((ROOT / "tests" / "snapshots").glob("*/report.json"))
BLOCKS = all_blocks()
VERSIONS = {"python": "3", "encodercheck": "0"}
LIMITS = {"EC101.effective_rank": -math.inf}
# Words in prose that stand for several arguments, or for none.
ELLIPSIS = "..."


# The site


class Page(HTMLParser):
    """What a page asks for, and what can be linked to on it."""

    def __init__(self, file):
        super().__init__()
        self.loads, self.links, self.anchors, self.text = [], [], set(), []
        self.feed(file.read_text())

    def handle_starttag(self, tag, attrs):
        """Collect addresses and anchors."""
        attributes = dict(attrs)
        self.anchors.add(attributes.get("id"))
        if tag in ("script", "img", "iframe", "source"):
            self.loads.append(attributes.get("src") or "")
        elif tag == "link" and attributes.get("rel") in ("stylesheet", "icon", "preconnect"):
            self.loads.append(attributes["href"])
        elif tag == "a":
            self.links.append(attributes.get("href") or "")

    def handle_data(self, data):
        """Collect what is read."""
        self.text.append(data)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """How building the site ended, as CI builds it, and where it is."""
    folder = tmp_path_factory.mktemp("site")
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return ended, folder


@pytest.fixture(scope="module")
def site(built):
    """The site, which is there although mkdocs may have warned."""
    ended, folder = built
    assert (folder / "index.html").exists(), ended.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    return {file: Page(file) for file in site.rglob("*.html")}


def text_of(pages, site, name):
    return "".join(pages[site / name / "index.html"].text)


def test_the_site_is_built_without_a_warning(built):
    ended, _ = built
    assert ended.returncode == 0, ended.stderr


def test_nothing_is_loaded_from_elsewhere(pages, site):
    assert len(pages) > 20
    loaded = [address for page in pages.values() for address in page.loads]
    assert not [a for a in loaded if "://" in a or a.startswith("//")]
    styles = "".join(file.read_text() for file in site.rglob("*.css"))
    assert not re.findall(r"@import|url\(\s*[\"']?https?:", styles)


def test_links_within_the_site_lead_somewhere(pages, site):
    """As mkdocs has it, and those that it does not look at: pages that were put together."""
    broken = []
    for file, page in pages.items():
        if file.name == "404.html":
            continue
        for link in page.links:
            path, _, anchor = link.partition("#")
            if "://" in link or link.startswith("mailto:"):
                continue
            there = (file.parent / path).resolve() if path else file
            there = there / "index.html" if there.is_dir() else there
            if not there.exists() or (anchor and anchor not in pages[there].anchors):
                broken.append(f"{file.relative_to(site)}: {link}")
    assert not broken


def test_links_to_the_repository_lead_to_files_that_there_are(pages):
    home = "https://github.com/encodercheck/encodercheck"
    paths = {
        link.removeprefix(home).partition("#")[0]
        for page in pages.values()
        for link in page.links
        if re.match(rf"{home}/(?:blob|tree)/main/", link)
    }
    assert paths
    assert not [path for path in paths if not (ROOT / path.split("/main/")[1]).exists()]


def test_links_of_the_files_as_they_are_lead_somewhere():
    """They are read in the repository as well."""
    generated = {"check-packs.md"}
    broken = []
    for page in PAGES:
        # Not those in code.
        text = re.sub(r"^```.*?^```$|`[^`\n]+`", "", page.read_text(), flags=re.DOTALL | re.M)
        for link in re.findall(r"\]\(([^)\s]+)\)", text):
            path, _, anchor = link.partition("#")
            there = (page.parent / path).resolve() if path else page
            if "://" in link or there.name in generated or "reference" in there.parts:
                continue
            if not there.exists() or (anchor and anchor not in anchors(there)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken


def anchors(page):
    """Return the anchors of a Markdown file, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(scope="module")
def served(site):
    """The address of the site, from this machine."""
    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Says nothing of every request."""

    def log_message(self, *_):
        """Do nothing."""


@pytest.mark.skipif(not BROWSER, reason="no Chromium is installed; see test_html_browser.py")
def test_a_browser_asks_nobody_else_and_finds_what_is_searched_for(served):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=list(QUIET))
        for width, scheme in ((1280, "light"), (360, "dark")):
            context = browser.new_context(
                viewport={"width": width, "height": 800}, color_scheme=scheme
            )
            page = context.new_page()
            asked, complaints = [], []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("pageerror", lambda error, heard=complaints: heard.append(str(error)))
            for name in ("", "tutorial/", "reference/cli/", "inversion/", "faq/"):
                page.goto(served + name)
                assert page.evaluate("document.documentElement.scrollWidth") == width, name
            page.goto(f"{served}?q=waivers")
            page.locator(".md-search-result__item").first.wait_for(state="attached")
            assert not [url for url in asked if not url.startswith((served, "data:", "blob:"))]
            assert not complaints
        browser.close()


# Everything has its place in it


def test_every_check_is_documented(pages, site):
    ids = [info.id for info in list_checks(suite([]))]
    assert len(ids) > 7
    headings = re.findall(r"^## (\w+)", (ROOT / "docs" / "checks.md").read_text(), re.MULTILINE)
    assert [heading for heading in headings if heading.startswith("EC")] == ids
    readme = (ROOT / "README.md").read_text()
    assert not [id_ for id_ in ids if f"| {id_} " not in readme]
    assert not [id_ for id_ in ids if id_ not in text_of(pages, site, "")]


@pytest.mark.parametrize("what", ["Catches", "Cannot see", "The limit", "When it fails"])
def test_every_check_has_every_part(what):
    parts = re.split(r"^## ", (ROOT / "docs" / "checks.md").read_text(), flags=re.MULTILINE)
    checks = [part for part in parts if part.startswith("EC")]
    assert not [part.split()[0] for part in checks if f"- **{what}" not in part]


def test_every_command_and_option_is_documented(pages, site):
    shown_ = text_of(pages, site, "reference/cli")
    missing = [
        f"{path} {option}"
        for path, command in leaves()
        for option in ["", *(o for p in command.params for o in p.opts if o.startswith("-"))]
        if f"{path}" not in shown_ or option not in shown_
    ]
    assert not missing


def test_every_key_is_documented():
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert not [name for name in KEYS if not re.search(rf"`\[*{name}\]*`", page)]


def test_every_exit_code_is_documented(pages, site):
    page = text_of(pages, site, "reference/exit-codes")
    for code in ("0", "1", "2", "130", "143"):
        assert re.search(rf"\b{code}\b", page)
        assert f"| {code} |" in (ROOT / "docs" / "ci.md").read_text()
    # What commands say of themselves has been found.
    for command in ("scan", "samples", "replay", "card", "verify"):
        assert f"encodercheck {command}" in page


def test_every_public_name_is_documented(pages, site):
    page = pages[site / "reference" / "python" / "index.html"]
    assert {name.lower() for name in encodercheck.__all__} <= page.anchors


def test_every_field_of_a_report_is_documented(pages, site):
    page = text_of(pages, site, "reference/report")
    names = {name for part in SCHEMA["$defs"].values() for name in part.get("properties", {})}
    assert len(names) > 50
    assert not [name for name in names if name not in page]


def test_questions_are_answered_with_measured_tables(pages, site):
    rows = re.findall(r"^\| (whole suite) \|.*$", (ROOT / "docs/inversion.md").read_text(), re.M)
    assert rows
    for name in ("faq", ""):
        assert "whole suite" in text_of(pages, site, name)
        assert "<!-- table" not in (site / name / "index.html").read_text()


def test_what_replay_asks_for_is_what_the_questions_say():
    assert f"asks for {REPRODUCED_SHARE} of the gain" in (ROOT / "docs" / "faq.md").read_text()


# The schema of reports


def strict(schema):
    """Return the schema without room for fields that it does not name."""
    schema = copy.deepcopy(schema)
    for definition in schema["$defs"].values():
        if "properties" in definition:
            definition["additionalProperties"] = False
            # All of them are always there, so that readers need not ask.
            assert sorted(definition["required"]) == sorted(definition["properties"])
    return schema


def validate(document):
    Draft202012Validator(strict(SCHEMA), format_checker=FormatChecker()).validate(document)


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["title"] == SCHEMA["$defs"]["report"]["properties"]["schema"]["const"]
    assert SCHEMA["$defs"]["reports"]["properties"]["schema"]["const"] == render_json.SEVERAL


def filled(document):
    """Return a report of a scan that never took place, with the facts that it leaves out."""
    known = NOTHING_KNOWN | document["model"]
    return document | {"model": known, "versions": VERSIONS | document["versions"]}


@pytest.mark.parametrize("file", SNAPSHOTS, ids=lambda file: file.parent.name)
def test_saved_reports_are_valid(file):
    document = json.loads(file.read_text())
    if "reports" in document:
        validate(document | {"reports": [filled(one) for one in document["reports"]]})
    else:
        validate(filled(document))


def test_reports_with_everything_are_valid():
    difference = baseline.between(report(WAIVED), shown.EVERYTHING, "old.json")
    assert {change.kind for change in difference.changes} >= {baseline.Kind.NEW}
    for one in (shown.EVERYTHING, Report.unreadable("gone.safetensors", "no such file")):
        document = filled(json.loads(render_json.render([one])))
        validate(document | {"baseline": difference.to_dict()})


def test_the_report_in_the_reference_is_valid(site):
    page = (site / "reference" / "report" / "index.html").read_text()
    code = page.rpartition("<code>")[2].partition("</code>")[0]
    validate(json.loads(html.unescape(re.sub(r"<[^>]+>", "", code))))


def test_a_real_report_is_valid(tmp_path):
    import models

    path = models.write(tmp_path / "model.safetensors")
    scanned = encodercheck.scan(path, profile="quick", keyword="EC001 or EC101", limits=LIMITS)
    validate(json.loads(render_json.render([scanned])))


@pytest.mark.parametrize(
    ("where", "choices"),
    [
        (("outcome",), [outcome.value for outcome in Outcome]),
        (("severity",), list(SEVERITIES)),
        (("change", "properties", "kind"), [kind.value for kind in baseline.Kind]),
        (("report", "properties", "profile"), list(PROFILES)),
        (("measurement", "properties", "direction"), [*(d.value for d in Direction), None]),
    ],
)
def test_the_schemas_choices_are_those_of_the_code(where, choices):
    part = SCHEMA["$defs"]
    for name in where:
        part = part[name]
    assert part["enum"] == choices


@pytest.mark.parametrize("fault", ["outcome", "findings", "schema"])
def test_what_is_no_report_is_refused(fault):
    document = json.loads(SNAPSHOTS[0].read_text())
    del document[fault]
    assert list(Draft202012Validator(SCHEMA).iter_errors(document))


# What is shown


def leaves(group=None, path="encodercheck"):
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def parse(text):
    """Let the real parser read a command line; nothing is run.

    Raises:
        Exception: it would refuse it.
    """
    words = shlex.split(text, comments=True)[1:]
    # In prose: MODEL..., and an option that stands for itself.
    words = [word.removesuffix(ELLIPSIS) for word in words if word != ELLIPSIS]
    command, context = typer.main.get_command(app), None
    path = "encodercheck"
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        context = command.context_class(command, info_name=path, parent=context)
        path = words.pop(0)
        assert path in command.commands, f"there is no command {path}"
        command = command.commands[path]
    return command, words, context


def refuse_unknown(text, *, whole):
    """Complain of a command line that would be refused; in prose arguments may be left out."""
    command, words, parent = parse(text)
    if hasattr(command, "commands"):
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {"--install-completion", "--show-completion", "--help"}
        assert all(word in known for word in words), text
        return
    known = {o: p for p in command.params for o in (*p.opts, *p.secondary_opts)}
    if not whole and [w for w in words if w.startswith("-")] and words[-1] in known:
        # `encodercheck scan --json`: the option is what is spoken of.
        words = [*words, *([] if getattr(known[words[-1]], "is_flag", False) else ["1"])]
    context = command.make_context(
        command.name, list(words), parent=parent, resilient_parsing=not whole
    )
    if not whole:
        options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
        assert all(option in known or option == "--help" for option in options), text
    context.close()


FULL = sorted({command for block in BLOCKS for command in commands(block)})
SPOKEN = sorted({command for page in PAGES for command in inline_commands(page)})


@pytest.mark.parametrize("text", FULL)
def test_every_command_line_is_one(text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    refuse_unknown(text, whole=True)


@pytest.mark.parametrize("text", SPOKEN)
def test_every_command_in_the_prose_is_one(text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    refuse_unknown(text, whole=False)


def test_there_are_commands_to_look_at():
    assert len(FULL) > 30
    assert len(SPOKEN) > 10


@pytest.mark.parametrize(
    "text",
    [
        "encodercheck scna model.safetensors",
        "encodercheck scan model.safetensors --jsno F",
        "encodercheck scan model.safetensors --profile fast",
        "encodercheck replay",
        "encodercheck waive report.json EC102 --reason why --expires soon",
        "encodercheck fixtures bild badencoder",
    ],
)
def test_a_wrong_command_line_would_be_seen(text, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"(?i)no such|not one of|missing|no command|does not"):
        refuse_unknown(text, whole=True)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=str)
def test_python_compiles(block):
    # A fragment of a function's body does not, but for what stands around it.
    text = block.text if not block.text.startswith("yield") else f"def _():\n {block.text}"
    compile(text, str(block), "exec", dont_inherit=True)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "toml"], ids=str)
def test_configurations_are_read(block, tmp_path):
    table = tomllib.loads(block.text)
    if "project" in table:
        return
    file = tmp_path / ("pyproject.toml" if "tool" in table else "encodercheck.toml")
    file.write_text(block.text)
    assert config.read(file).values


def test_what_is_not_run_says_why():
    left_out = [block for block in BLOCKS if "not run" in block.notes]
    assert all(len(block.notes["not run"]) > 10 for block in left_out)
    assert len([block for block in BLOCKS if block.runs]) > 10
