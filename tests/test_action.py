"""The GitHub action, the workflows, the hook and the examples of docs/ci.md."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import models
import pytest
import yaml
from commands import environment, run

from encodercheck.config.reading import tomllib

ROOT = Path(__file__).parents[1]
ACTION = ROOT / ".github" / "actions" / "scan"
SCRIPTS = sorted(ACTION.glob("*.sh"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BIN = Path(sys.executable).parent
NEW = {"GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t", "GIT_CONFIG_GLOBAL": os.devnull}
# It notes its arguments, and ends and writes as it is told to.
FAKE = """#!{python}
import json, os, pathlib, sys
pathlib.Path("arguments.json").write_text(json.dumps(sys.argv[1:]))
options = dict(zip(sys.argv, sys.argv[1:]))
for name in os.environ.get("FAKE_WRITES", "").split():
    pathlib.Path(options["--" + name]).write_text("written by " + name)
sys.exit(int(os.environ.get("FAKE_CODE", "0")))
"""
INPUTS = {
    "INPUT_MODEL": "model.safetensors",
    **dict.fromkeys(
        (
            "INPUT_IMAGES",
            "INPUT_PROFILE",
            "INPUT_FAIL_ON",
            "INPUT_BASELINE",
            "INPUT_SEED",
            "INPUT_CONFIG",
            "INPUT_CONFIG_FROM",
            "BASE_SHA",
            "INPUT_EXTRA_ARGS",
            "INPUT_INSTALL",
            "INPUT_TORCH_INDEX",
        ),
        "",
    ),
    "INPUT_STRICT": "false",
    "INPUT_REPORT_DIR": "encodercheck-report",
    "INPUT_BADGE": "badge.json",
}
REPORTS = ("json", "junit", "sarif", "markdown", "html", "badge")


def validate(schema, *files):
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    ended = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout


def script(name, cwd, **extra):
    """Run a script of the action; return how it ended, its outputs and the summary."""
    output, summary = cwd / "output", cwd / "summary"
    output.touch()
    summary.touch()
    ended = subprocess.run(
        [ACTION / name],
        cwd=cwd,
        env=environment(
            **INPUTS
            | {
                "PATH": f"{cwd / 'bin'}:{BIN}:{os.environ['PATH']}",
                "GITHUB_ACTION_PATH": str(ACTION),
                "GITHUB_OUTPUT": str(output),
                "GITHUB_STEP_SUMMARY": str(summary),
                "RUNNER_TEMP": str(cwd),
                "RUNNER_OS": "Linux",
                "RUNNER_ARCH": "X64",
            }
            | extra
        ),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
    return ended, outputs, summary.read_text()


@pytest.fixture
def fake(tmp_path):
    """A folder with a program called encodercheck that does as it is told."""
    return program(tmp_path, "encodercheck", FAKE.format(python=sys.executable))


def program(folder, name, text):
    file = folder / "bin" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return folder


def scanned_with(folder):
    return json.loads((folder / "arguments.json").read_text())


# What the files say.


def test_scripts_are_clean_and_can_be_run():
    assert len(SCRIPTS) == 7
    shellcheck = BIN / "shellcheck"
    subprocess.run([shellcheck, "--enable=quote-safe-variables", *SCRIPTS], check=True)
    for file in SCRIPTS:
        assert file.stat().st_mode & stat.S_IXUSR, file
        head = file.read_text().splitlines()
        assert head[0] == "#!/usr/bin/env bash"
        assert "set -euo pipefail" in head


def test_the_action_and_the_workflows_are_what_github_takes():
    validate("github-actions", ACTION / "action.yml")
    validate("github-workflows", *WORKFLOWS)
    validate("github-issue-forms", *sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")))
    validate("dependabot", ROOT / ".github/dependabot.yml")
    validate("citation-file-format", ROOT / "CITATION.cff")


def test_what_is_cited_is_the_version_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(cited["version"]) == project["version"]
    assert cited["license"] == project["license"]


def test_no_input_is_ever_a_part_of_a_script():
    """``${{ }}`` in a script is text that whoever names a branch can write."""
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    jobs = [job for file in WORKFLOWS for job in yaml.safe_load(file.read_text())["jobs"].values()]
    steps = [*action["runs"]["steps"], *(step for job in jobs for step in job.get("steps", []))]
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) > 5
    assert not [text for text in scripts if "${{" in text]


def test_every_input_reaches_the_scripts_and_every_output_comes_from_them():
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    steps = action["runs"]["steps"]
    passed = {
        value: name
        for step in steps
        for name, value in step.get("env", {}).items()
        if name.startswith("INPUT_")
    }
    for name in action["inputs"].keys() - {"python-version", "cache"}:
        assert passed[f"${{{{ inputs.{name} }}}}"] == f"INPUT_{name.upper().replace('-', '_')}"
    assert set(action["outputs"]) == {"outcome", "exit-code", *REPORTS}
    for name, output in action["outputs"].items():
        assert output["value"] == f"${{{{ steps.scan.outputs.{name} }}}}"
    # The step that fails is the last one.
    assert "verdict.sh" in steps[-1]["run"]


def test_the_reusable_workflow_passes_on_inputs_that_the_action_has():
    action = yaml.safe_load((ACTION / "action.yml").read_text())
    workflow = yaml.safe_load((ROOT / ".github/workflows/scan.yml").read_text())
    (step,) = [s for s in workflow["jobs"]["scan"]["steps"] if s.get("id") == "scan"]
    assert step["with"].keys() <= action["inputs"].keys()
    # YAML takes "on" for a truth value.
    inputs = workflow[True]["workflow_call"]["inputs"]
    for text in re.findall(r"inputs\.([\w-]+)", (ROOT / ".github/workflows/scan.yml").read_text()):
        assert text in inputs


# scan.sh


def test_a_scan_gets_its_arguments_one_by_one(fake):
    evil = "$(touch evil) `touch evil`; touch evil"
    ended, outputs, _ = script(
        "scan.sh",
        fake,
        INPUT_MODEL=f"  a b.safetensors \n\n--json\n{evil}\nfixture:clean",
        INPUT_IMAGES="my photos",
        INPUT_PROFILE="quick",
        INPUT_STRICT="true",
        INPUT_FAIL_ON="high",
        INPUT_SEED="random",
        INPUT_BASELINE="base line.json",
        INPUT_CONFIG="encodercheck.toml",
        INPUT_EXTRA_ARGS="-k 'EC1 or EC2' --seed 3 '$(touch evil)' \"\"",
        INPUT_REPORT_DIR="re ports",
        INPUT_BADGE="badge.svg",
    )
    assert ended.returncode == 0, ended
    assert not list(fake.rglob("evil"))
    reports = ["json", "junit", "sarif", "markdown", "html", "badge", "artifacts"]
    names = ["report.json", "junit.xml", "report.sarif", "report.md", "report.html", "badge.svg"]
    written = zip(reports, [*names, "artifacts"], strict=True)
    assert scanned_with(fake) == [
        "scan",
        *(part for option, name in written for part in (f"--{option}", f"re ports/{name}")),
        *("--images", "my photos", "--profile", "quick", "--seed", "random"),
        *("--fail-on", "high"),
        *("--baseline", "base line.json", "--config", "encodercheck.toml", "--strict"),
        *("-k", "EC1 or EC2", "--seed", "3", "$(touch evil)", ""),
        *("--", "a b.safetensors", "--json", evil, "fixture:clean"),
    ]
    assert (outputs["outcome"], outputs["exit-code"]) == ("passed", "0")


def test_without_settings_the_configuration_decides(fake):
    script("scan.sh", fake)
    settings = {"--profile", "--strict", "--images", "--fail-on", "--baseline", "--config"}
    assert not settings & set(scanned_with(fake))


@pytest.mark.parametrize(
    ("code", "outcome"), [(0, "passed"), (1, "failed"), (2, "no-verdict"), (137, "no-verdict")]
)
def test_the_outputs_say_how_it_ended_and_the_last_step_ends_so(fake, code, outcome):
    writes = "json junit sarif markdown html badge"
    extra = {"FAKE_CODE": str(code), "FAKE_WRITES": writes}
    ended, outputs, summary = script("scan.sh", fake, **extra)
    assert ended.returncode == 0, ended
    assert outputs == {
        "outcome": outcome,
        "exit-code": str(code),
        "json": "encodercheck-report/report.json",
        "junit": "encodercheck-report/junit.xml",
        "sarif": "encodercheck-report/report.sarif",
        "markdown": "encodercheck-report/report.md",
        "html": "encodercheck-report/report.html",
        "badge": "encodercheck-report/badge.json",
    }
    assert summary == "written by markdown"
    last, _, _ = script("verdict.sh", fake, EXIT_CODE=outputs["exit-code"])
    assert last.returncode == code


def test_without_a_report_there_is_no_path_and_a_word_in_the_summary(fake):
    (fake / "encodercheck-report").mkdir()
    (fake / "encodercheck-report" / "report.json").write_text("of an earlier scan")
    _, outputs, summary = script("scan.sh", fake, FAKE_CODE="2")
    assert {outputs[name] for name in REPORTS} == {""}
    assert "no verdict, and no report (exit code 2)" in summary


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"INPUT_MODEL": " \n \n"}, "name one model a line"),
        ({"INPUT_EXTRA_ARGS": "-k 'EC1"}, "a quote is not closed"),
    ],
)
def test_bad_inputs_are_no_verdict(fake, extra, says):
    ended, outputs, _ = script("scan.sh", fake, **extra)
    assert says in ended.stdout
    assert (outputs["outcome"], outputs["exit-code"]) == ("no-verdict", "2")
    assert not (fake / "arguments.json").exists()


@pytest.fixture
def repository(fake):
    """A clone, as deep as a checkout, of a pull request that brings a configuration of its own."""
    origin = place(fake / "origin")
    git("init", "-q", "-b", "main", cwd=origin)
    (origin / "checks").mkdir()
    (origin / "encodercheck.toml").write_text('checks = ["checks"]\nprofile = "thorough"\n')
    (origin / "other.toml").write_text('profile = "quick"\n')
    base = committed(origin, "base")
    git("checkout", "-q", "-b", "request", cwd=origin)
    (origin / "encodercheck.toml").write_text('ignore = ["EC*"]\n')
    (origin / "mine.toml").write_text("")
    committed(origin, "request")
    git("clone", "-q", "--depth", "1", "--branch", "request", origin.as_uri(), "clone", cwd=fake)
    shutil.copytree(fake / "bin", fake / "clone" / "bin")
    return fake / "clone", base


def committed(folder, message):
    git("add", "-A", cwd=folder)
    git("commit", "-q", "--allow-empty", "-m", message, cwd=folder)
    return git("rev-parse", "HEAD", cwd=folder)


def configured_by(folder):
    """Return the text of the configuration that a scan was given; what it says where it is none."""
    arguments = scanned_with(folder)
    if "--config" not in arguments:
        return "--no-config" if "--no-config" in arguments else "found here"
    return (folder / arguments[arguments.index("--config") + 1]).read_text()


THOROUGH, QUICK = 'checks = ["checks"]\nprofile = "thorough"\n', 'profile = "quick"\n'


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, THOROUGH),
        ({"INPUT_CONFIG_FROM": "base"}, THOROUGH),
        ({"INPUT_CONFIG": "other.toml"}, QUICK),
        ({"INPUT_CONFIG_FROM": "main"}, THOROUGH),
        ({"INPUT_CONFIG_FROM": "here"}, "found here"),
        ({"INPUT_CONFIG_FROM": "here", "INPUT_CONFIG": "mine.toml"}, ""),
        ({"INPUT_CONFIG_FROM": "none"}, "--no-config"),
        ({"BASE_SHA": ""}, "found here"),
    ],
)
def test_a_pull_request_is_scanned_by_the_configuration_of_its_base(repository, extra, expected):
    folder, base = repository
    ended, outputs, _ = script("scan.sh", folder, **{"BASE_SHA": base} | extra)
    assert (ended.returncode, outputs["outcome"]) == (0, "passed"), ended
    assert configured_by(folder) == expected


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"BASE_SHA": "0" * 40}, f"{'0' * 40} cannot be fetched"),
        ({"INPUT_CONFIG_FROM": "--upload-pack=touch evil"}, "cannot be fetched"),
        ({"INPUT_CONFIG": "mine.toml"}, "there is no mine.toml in"),
        ({"INPUT_CONFIG": "mine.toml", "INPUT_CONFIG_FROM": "none"}, "exclude each other"),
    ],
)
def test_a_configuration_that_cannot_be_had_is_no_verdict(repository, extra, says):
    folder, base = repository
    ended, outputs, _ = script("scan.sh", folder, **{"BASE_SHA": base} | extra)
    assert says in ended.stderr
    assert (outputs["outcome"], outputs["exit-code"]) == ("no-verdict", "2")
    assert not (folder / "arguments.json").exists()
    assert not list(folder.rglob("evil"))


def test_where_the_base_has_no_configuration_there_is_none(repository):
    folder, _ = repository
    origin = folder.parent / "origin"
    git("checkout", "-q", "main", cwd=origin)
    git("rm", "-q", "encodercheck.toml", cwd=origin)
    (origin / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    script("scan.sh", folder, BASE_SHA=committed(origin, "without"))
    assert configured_by(folder) == "--no-config"
    (origin / "pyproject.toml").write_text("[tool.encodercheck]\nseed = 3\n")
    script("scan.sh", folder, BASE_SHA=committed(origin, "with"))
    assert configured_by(folder) == "[tool.encodercheck]\nseed = 3\n"


def test_scripts_import_nothing_from_the_checkout(fake):
    for name in ("shlex", "platform", "pip", "importlib", "encodercheck"):
        (fake / f"{name}.py").write_text("open('evil', 'w')\n")
    script("scan.sh", fake, INPUT_EXTRA_ARGS="-k EC1")
    script("plan.sh", fake)
    script("versions.sh", fake)
    assert not (fake / "evil").exists()


def test_a_missing_program_is_no_verdict(tmp_path):
    bash = Path(shutil.which("bash")).parent
    ended, outputs, _ = script("scan.sh", tmp_path, PATH=f"{bash}:/usr/bin:/bin")
    assert ended.returncode == 0, ended
    assert (outputs["outcome"], outputs["exit-code"]) == ("no-verdict", "127")
    assert script("verdict.sh", tmp_path)[0].returncode == 2


def test_no_path_sets_an_output(fake):
    _, outputs, _ = script(
        "scan.sh", fake, FAKE_WRITES="json", INPUT_REPORT_DIR="a\nexit-code=0\nb", FAKE_CODE="1"
    )
    assert outputs["exit-code"] == "1"


def test_a_real_scan_that_fails_writes_every_report(tmp_path):
    tensors = models.state()
    tensors["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    models.write(tmp_path / "nan.safetensors", tensors)
    ended, outputs, summary = script(
        "scan.sh",
        tmp_path,
        INPUT_MODEL="nan.safetensors",
        INPUT_PROFILE="quick",
        INPUT_EXTRA_ARGS="-k EC001",
        INPUT_BADGE="badge.svg",
    )
    assert ended.returncode == 0, ended
    assert (outputs["outcome"], outputs["exit-code"]) == ("failed", "1"), ended
    found = {name: tmp_path / outputs[name] for name in REPORTS}
    assert json.loads(found["json"].read_text())["exit_code"] == 1
    assert json.loads(found["sarif"].read_text())["version"] == "2.1.0"
    for name in ("junit", "badge"):
        assert ET.parse(found[name]).getroot() is not None
    assert "<html" in found["html"].read_text()
    assert summary == found["markdown"].read_text()
    assert "EC001" in summary


# What comes before the scan.


def test_the_plan_names_caches_by_what_is_installed(tmp_path):
    # Whoever runs the tests may keep a cache elsewhere.
    plain = {"ENCODERCHECK_CACHE": ""}
    outputs = [script("plan.sh", place(tmp_path / n), **plain, **extra)[1] for n, extra in PLANS]
    first, same, *others = [plan["pip-key"] for plan in outputs]
    assert first == same
    assert len({first, *others}) == 1 + len(others)
    assert outputs[0]["cache"] == str(tmp_path / "a" / "encodercheck-cache")
    assert outputs[0]["pip-cache"]


PLANS = [
    ("a", {}),
    ("b", {}),
    ("c", {"INPUT_INSTALL": "encodercheck==0.1.0"}),
    ("d", {"INPUT_TORCH_INDEX": "https://example.org/cpu"}),
    ("e", {"RUNNER_OS": "macOS"}),
]


def place(folder):
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("extra", "installs"),
    [
        ({}, [["--", str(ROOT)]]),
        (
            {"INPUT_INSTALL": " encodercheck[timm] == 0.1.0\n\n./my checks \n"},
            [["--", "encodercheck[timm] == 0.1.0", "./my checks"]],
        ),
        (
            {"INPUT_TORCH_INDEX": "https://example.org/cpu"},
            [
                ["--index-url", "https://example.org/cpu", "torch", "torchvision"],
                ["--", str(ROOT)],
            ],
        ),
    ],
)
def test_installing(tmp_path, extra, installs):
    log = tmp_path / "log"
    program(
        tmp_path,
        "python",
        f"#!{sys.executable}\nimport json, sys\n"
        f"open({str(log)!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n",
    )
    ended, _, _ = script("install.sh", tmp_path, **extra)
    assert ended.returncode == 0, ended
    pip = ["-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    ran = [json.loads(line) for line in log.read_text().splitlines()]
    assert ran == [[*pip, *arguments] for arguments in installs]


def test_what_was_computed_is_kept_by_version(tmp_path):
    ended, outputs, _ = script("versions.sh", tmp_path)
    assert ended.returncode == 0, ended
    assert re.fullmatch(
        r"encodercheck-cache-Linux-X64-encodercheck[\w.]+-torch[\w.]+-numpy[\w.]+", outputs["key"]
    )


# The badge.


def git(*arguments, cwd):
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment(**NEW), capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """A checkout, with a remote repository of its own beside it, and a badge in it."""
    git("init", "--quiet", "--bare", "-b", "main", tmp_path / "remote.git", cwd=tmp_path)
    git("clone", "--quiet", tmp_path / "remote.git", "checkout", cwd=tmp_path)
    folder = tmp_path / "checkout"
    (folder / "README.md").write_text("an encoder\n")
    git("checkout", "--quiet", "-b", "main", cwd=folder)
    git("add", "README.md", cwd=folder)
    git("commit", "--quiet", "-m", "one", cwd=folder)
    git("push", "--quiet", "origin", "main", cwd=folder)
    (folder / "badge.svg").write_text("<svg>passed</svg>")
    return folder


def publish(folder, **extra):
    return script("publish-badge.sh", folder, **{"BADGE_FILE": "badge.svg"} | NEW | extra)[0]


def on_remote(folder, *arguments):
    return git(*arguments, cwd=folder.parent / "remote.git")


def test_a_badge_is_published_on_a_branch_of_its_own(checkout):
    assert publish(checkout).stdout == "badges: badge.svg published\n"
    assert on_remote(checkout, "ls-tree", "--name-only", "badges") == "badge.svg"
    assert on_remote(checkout, "show", "badges:badge.svg") == "<svg>passed</svg>"
    assert on_remote(checkout, "rev-list", "--count", "badges") == "1"
    # Nothing of the checkout has changed.
    assert git("branch", "--show-current", cwd=checkout) == "main"
    assert git("diff", "--cached", "--name-only", cwd=checkout) == ""


def test_a_badge_that_has_not_changed_makes_no_commit(checkout):
    publish(checkout)
    assert publish(checkout).stdout == "badges: badge.svg is up to date\n"
    (checkout / "badge.svg").write_text("<svg>failed</svg>")
    publish(checkout)
    assert on_remote(checkout, "rev-list", "--count", "badges") == "2"
    assert on_remote(checkout, "show", "badges:badge.svg") == "<svg>failed</svg>"


def test_badges_share_a_branch_and_folders_in_it(checkout):
    publish(checkout)
    publish(checkout, BADGE_PATH="models/second.svg", BADGE_BRANCH="badges")
    names = on_remote(checkout, "ls-tree", "-r", "--name-only", "badges")
    assert names.split() == ["badge.svg", "models/second.svg"]


def test_somebody_elses_push_in_between_is_kept(checkout):
    """The first push is refused, because the branch has moved since it was read."""
    real = shutil.which("git")
    program(
        checkout,
        "git",
        f'#!/usr/bin/env bash\nif [[ $1 == push && ! -e "$PWD/raced" ]]; then\n'
        f'    touch "$PWD/raced"\n'
        f'    "{real}" push --quiet origin main:refs/heads/badges\nfi\nexec "{real}" "$@"\n',
    )
    ended = publish(checkout)
    assert ended.returncode == 0, ended
    names = on_remote(checkout, "ls-tree", "-r", "--name-only", "badges")
    assert names.split() == ["README.md", "badge.svg"]


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"BADGE_FILE": "nowhere.svg"}, "nowhere.svg: no such badge"),
        ({"BADGE_BRANCH": "two..dots"}, "two..dots: not a name for a branch"),
    ],
)
def test_a_badge_that_cannot_be_published_says_why(checkout, extra, says):
    ended = publish(checkout, **extra)
    assert ended.returncode == 2
    assert says in ended.stderr


# The hook of pre-commit.


@pytest.fixture
def hook():
    (found,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    return found


def test_the_manifest_is_one_of_pre_commit():
    command = [sys.executable, "-m", "pre_commit", "validate-manifest"]
    subprocess.run([*command, ROOT / ".pre-commit-hooks.yaml"], check=True)


def test_the_hook_runs_on_the_models_that_are_committed(fake, hook):
    """As pre-commit runs it, save that the program is the one that is installed here."""
    local = hook | {"language": "system"}
    config = {"repos": [{"repo": "local", "hooks": [local]}]}
    (fake / ".pre-commit-config.yaml").write_text(yaml.safe_dump(config))
    git("init", "--quiet", cwd=fake)
    for name in ("a model.safetensors", "b.safetensors", "notes.md"):
        (fake / name).write_text("content")
        git("add", name, cwd=fake)
    (fake / "not-added.safetensors").write_text("content")
    for code in (0, 1):
        ended = subprocess.run(
            [sys.executable, "-m", "pre_commit", "run"],
            cwd=fake,
            env=environment(
                **NEW,
                PATH=f"{fake / 'bin'}:{os.environ['PATH']}",
                PRE_COMMIT_HOME=str(fake / "home"),
                FAKE_CODE=str(code),
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == code, ended
    assert scanned_with(fake) == [
        "scan",
        "--profile",
        "quick",
        "--seed",
        "random",
        "--fail-fast",
        "a model.safetensors",
        "b.safetensors",
    ]


def test_the_hooks_entry_scans_several_models(tmp_path, hook):
    names = ["a.safetensors", "b.safetensors"]
    for name in names:
        models.write(tmp_path / name)
    program_, *command = hook["entry"].split()
    assert program_ == "encodercheck"
    ended = run(*command, *hook["args"], "-k", "EC001", *names, cwd=tmp_path)
    assert ended.returncode == 0, ended
    assert all(name in ended.stdout for name in names)


# docs/ci.md


def blocks(language):
    text = (ROOT / "docs" / "ci.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_every_example_is_what_its_service_takes(tmp_path):
    files = {"github": [], "gitlab": [], "pre-commit": []}
    for number, text in enumerate(blocks("yaml")):
        example = yaml.safe_load(text)
        kind = "github" if "jobs" in example else "pre-commit" if "repos" in example else "gitlab"
        files[kind].append(tmp_path / f"{number}.yml")
        files[kind][-1].write_text(text)
        if kind == "github":
            assert_inputs_exist(example)
        if kind == "gitlab":
            assert example["encodercheck"]["artifacts"]["reports"]["junit"]
    assert [len(found) for found in files.values()] == [3, 1, 1]
    validate("github-workflows", *files["github"])
    validate("gitlab-ci", *files["gitlab"])
    command = [sys.executable, "-m", "pre_commit", "validate-config"]
    subprocess.run([*command, *files["pre-commit"]], check=True)
    (pipeline,) = blocks("groovy")
    assert pipeline.count("{") == pipeline.count("}")
    assert pipeline.count("'''") == 2


def assert_inputs_exist(workflow):
    action = yaml.safe_load((ACTION / "action.yml").read_text())["inputs"]
    called = yaml.safe_load((ROOT / ".github/workflows/scan.yml").read_text())[True]
    for job in workflow["jobs"].values():
        if "uses" in job:
            assert job["with"].keys() <= called["workflow_call"]["inputs"].keys()
        for step in job.get("steps", []):
            if "actions/scan@" in step.get("uses", ""):
                assert step["with"].keys() <= action.keys()


def test_the_examples_options_are_those_of_the_scan(tmp_path):
    text = (ROOT / "docs" / "ci.md").read_text() + (ACTION / "scan.sh").read_text()
    wide = environment() | {"COLUMNS": "400"}
    command = [sys.executable, "-m", "encodercheck", "scan", "--help"]
    known = subprocess.run(
        command, cwd=tmp_path, env=wide, capture_output=True, text=True, check=True
    ).stdout
    used = set(re.findall(r"--(?:json|junit|sarif|markdown|html|badge|artifacts)\b", text))
    used |= {"--images", "--profile", "--strict", "--fail-on", "--baseline", "--config"}
    assert len(used) == 13
    assert not [option for option in used if not re.search(rf"{option}\b", known)]
