"""`new-check`, `init` and shell completion: files that work as they are written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import models
import pytest
import yaml
from commands import environment, python, run

from encodercheck import config, scaffolding
from encodercheck.cli import completion
from encodercheck.cli.init import Service
from encodercheck.cli.options import SeverityName
from encodercheck.config.keys import KEYS
from encodercheck.errors import ConfigError
from encodercheck.severities import SEVERITIES

SCHEMAS = {
    ".github/workflows/encodercheck.yml": "vendor.github-workflows",
    ".gitlab/encodercheck.yml": "vendor.gitlab-ci",
}


def tool(name, *arguments, cwd):
    """Run a tool of the development environment."""
    command = [sys.executable, "-m", name, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def files_in(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


# new-check


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """An empty folder in which a check was started."""
    folder = tmp_path_factory.mktemp("new")
    ended = run("new-check", "corner_squares", "--id", "ACME001", cwd=folder)
    assert ended.returncode == 0, ended
    assert set(files_in(folder)) == {"check_corner_squares.py", "test_check_corner_squares.py"}
    assert "encodercheck scan MODEL --checks check_corner_squares.py" in ended.stdout
    return folder


def test_a_new_check_says_what_it_is(written):
    command = ["checks", "--json", "--checks", "check_corner_squares.py"]
    check = json.loads(run(*command, cwd=written).stdout)["checks"][-1]
    assert (check["id"], check["severity"]) == ("ACME001", "medium")
    assert check["function"] == "check_corner_squares"
    assert check["catches"] == ["badencoder"]
    assert check["title"]


@pytest.mark.slow
def test_a_new_check_runs_in_a_scan(written):
    options = ["--checks", "check_corner_squares.py", "-k", "ACME001", "--profile", "quick"]
    ended = run("scan", "fixture:badencoder", *options, cwd=written)
    assert ended.returncode == 1, ended
    assert "ACME001   failed" in ended.stdout


@pytest.mark.slow
def test_a_new_checks_test_passes(written):
    command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=."]
    ended = python(*command, "test_check_corner_squares.py", cwd=written)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


@pytest.mark.parametrize("name", ["a", "corner_squares", "a" * scaffolding.LONGEST])
def test_new_checks_are_clean_for_ruff(tmp_path, name):
    texts = scaffolding.check_files(name, "ID-" + "9" * 37, "critical")
    scaffolding.write_new({tmp_path / file: text for file, text in texts.items()}, way_out="")
    assert tool("ruff", "format", "--isolated", "--check", ".", cwd=tmp_path).returncode == 0
    rules = "E,F,W,I,B,UP,SIM,RET,PTH,RUF,N,C4"
    checked = tool("ruff", "check", "--isolated", "--select", rules, ".", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["Squares"], "'Squares': not a name for a check; use lower-case letters"),
        (["two words"], "not a name"),
        (["../escape"], "not a name"),
        (["check_"], "not a name"),
        (["_"], "not a name"),
        (["x" * 41], "longer than 40"),
        (["fine", "--id", "two words"], "--id 'two words'"),
        (["fine", "--id", 'a"b'], "--id"),
        (["fine", "--id", "x" * 41], "--id"),
        (["fine", "--id", "EC101"], "check id EC101: taken by"),
        (["fine", "--dir", "file"], "file: file exists"),
    ],
    ids=str,
)
def test_what_cannot_be_a_check_is_one_line_and_two(tmp_path, arguments, says):
    (tmp_path / "file").touch()
    ended = run("new-check", *arguments, cwd=tmp_path)
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert set(files_in(tmp_path)) == {"file"}


@pytest.mark.parametrize("existing", ["check_mine.py", "test_check_mine.py"])
def test_a_new_check_overwrites_nothing(tmp_path, existing):
    (tmp_path / existing).write_text("mine")
    ended = run("new-check", "check_mine", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == (
        f"encodercheck: {existing}: exists already; choose another NAME or --dir\n"
    )
    assert files_in(tmp_path) == {existing: "mine"}


def test_an_id_in_the_same_folder_is_taken(tmp_path):
    assert run("new-check", "first", "--id", "A1", "--dir", "sub", cwd=tmp_path).returncode == 0
    ended = run("new-check", "second", "--id", "A1", "--dir", "sub", cwd=tmp_path)
    assert ended.stderr == (
        "encodercheck: check id A1: taken by sub/check_first.py; choose another with --id\n"
    )


def test_new_check_offers_every_severity():
    assert tuple(name.value for name in SeverityName) == SEVERITIES


# init


@pytest.mark.parametrize("ci", list(Service))
def test_init_writes_what_it_says(tmp_path, ci):
    model = "models/my model.safetensors"
    ended = run("init", "--ci", ci.value, "--model", model, "--pre-commit", cwd=tmp_path)
    assert ended.returncode == 0, ended
    files = files_in(tmp_path)
    assert set(files) == {
        line.removeprefix("wrote ") for line in ended.stdout.splitlines() if "wrote " in line
    }
    assert {"encodercheck.toml", ".pre-commit-config.yaml"} <= set(files)
    assert len(files) == (2 if ci is Service.none else 3)
    assert "encodercheck scan 'models/my model.safetensors'" in ended.stdout
    for name, text in files.items():
        assert "%%" not in text
        if name.endswith((".yml", ".yaml")):
            assert yaml.safe_load(text)
        if name in SCHEMAS:
            checked = tool(
                "check_jsonschema", "--builtin-schema", SCHEMAS[name], name, cwd=tmp_path
            )
            assert checked.returncode == 0, checked.stdout
        assert name == "encodercheck.toml" or name[:4] == ".pre" or model in text
    hooks = tool("pre_commit", "validate-config", ".pre-commit-config.yaml", cwd=tmp_path)
    assert hooks.returncode == 0, hooks.stdout


def test_inits_configuration_is_one_as_it_is_and_with_every_example(tmp_path):
    text = scaffolding.fill("encodercheck.toml")
    (tmp_path / "encodercheck.toml").write_text(text)
    found = config.read(tmp_path / "encodercheck.toml")
    assert dict(found.values) == {"profile": "standard", "strict": False}
    examples = [
        line.removeprefix("# ")
        for line in text.splitlines()
        if not line.startswith("# ") or line[2:3] in '["' or " = " in line
    ]
    sample = "\n".join(examples).replace("sha256:...", "sha256:" + "0" * 64)
    (tmp_path / "encodercheck.toml").write_text(sample)
    assert set(config.read(tmp_path / "encodercheck.toml").values) == set(KEYS)


def test_a_scan_goes_by_inits_configuration(tmp_path):
    assert run("init", "--ci", "none", cwd=tmp_path).returncode == 0
    toml = tmp_path / "encodercheck.toml"
    toml.write_text(toml.read_text().replace('profile = "standard"', 'profile = "quick"'))
    model = models.write(tmp_path / "model.safetensors")
    ended = run("scan", model, "-k", "EC101", "--json", "report.json", cwd=tmp_path)
    assert ended.returncode == 0, ended
    assert json.loads((tmp_path / "report.json").read_text())["profile"] == "quick"


def test_init_overwrites_nothing_unless_forced(tmp_path):
    (tmp_path / "encodercheck.toml").write_text("mine")
    ended = run("init", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr == (
        "encodercheck: encodercheck.toml: exists already; --force overwrites it\n"
    )
    assert files_in(tmp_path) == {"encodercheck.toml": "mine"}
    assert run("init", "--force", cwd=tmp_path).returncode == 0
    assert config.read(tmp_path / "encodercheck.toml").values["profile"] == "standard"


def test_init_never_overwrites_other_hooks(tmp_path):
    (tmp_path / ".pre-commit-config.yaml").write_text("repos: []\n")
    ended = run("init", "--pre-commit", "--force", cwd=tmp_path)
    assert ended.returncode == 0, ended
    assert (tmp_path / ".pre-commit-config.yaml").read_text() == "repos: []\n"
    assert "add to .pre-commit-config.yaml:" in ended.stdout
    assert "- id: encodercheck" in ended.stdout


def test_init_names_the_way_out(tmp_path):
    for options, says in (
        (["nowhere"], "nowhere: no such folder"),
        (["--model", "a\nb"], "--model"),
        (["--model", "$(evil)"], "--model"),
        (["--model", "it's"], "--model"),
        (["--repository", "none"], "--repository 'none': write OWNER/NAME"),
    ):
        ended = run("init", *options, cwd=tmp_path)
        assert ended.returncode == 2
        assert says in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    assert files_in(tmp_path) == {}


def test_every_service_has_a_template():
    assert {service.value for service in Service} == {*scaffolding.CI_FILES, "none"}


def test_templates_are_filled_completely():
    with pytest.raises(KeyError):
        scaffolding.fill("check.py", name="a")
    with pytest.raises(ConfigError):
        scaffolding.check_files("1", None, "low")


# Neither these nor completion wait for torch.


@pytest.mark.parametrize(
    "arguments", [["init", "--ci", "none"], ["new-check", "quick_one"], ["init", "--help"]], ids=str
)
def test_nothing_here_imports_torch(tmp_path, arguments):
    assert_no_torch(*arguments, cwd=tmp_path)


def assert_no_torch(*arguments, cwd, **extra):
    code = (
        "import sys; from encodercheck.cli.main import main\n"
        "sys.argv[0] = 'encodercheck'\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules, 'torch'"
    )
    ended = python("-c", code, *arguments, cwd=cwd, **extra)
    assert ended.returncode == 0, ended
    return ended.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_show_completion(tmp_path, shell):
    extra = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = assert_no_torch("--show-completion", shell, cwd=tmp_path, **extra)
    assert "_ENCODERCHECK_COMPLETE=complete_" + shell in script


def test_show_completion_takes_bash_for_granted_in_bash(tmp_path):
    program = shutil.which("encodercheck", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("the package is installed without its program")
    # After another command bash stays, as the parent process that is looked for.
    command = ["bash", "-c", f'"{program}" --show-completion; exit $?']
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended
    assert "complete -o default -F" in ended.stdout


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("scan fixture:badencoder-ref", "fixture:badencoder-references"),
        ("identify fixture:text", "fixture:text-on-pair"),
        ("scan fix", "fixture:clean"),
        ("scan m.safetensors --profile th", "thorough"),
        ("scan m.safetensors --device cp", "cpu"),
        ("scan m.safetensors -k EC30", "EC301"),
        ("verify --fixtures clean,drup", "clean,drupe"),
        ("fixtures build clean-v", "clean-vit"),
        ("init --ci git", "github"),
        ("new-check a --severity cri", "critical"),
        ("new-", "new-check"),
    ],
)
def test_tab(tmp_path, typed, first):
    words = ["encodercheck", *typed.split()]
    extra = {
        "_ENCODERCHECK_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    assert assert_no_torch(cwd=tmp_path, **extra).split()[0] == first


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("scan fixture:badencoder-ref", r"fixture\\:badencoder-references"),
        ("scan m.safetensors --profile th", "thorough"),
        ("new-", "new-check"),
    ],
)
def test_tab_in_zsh(tmp_path, typed, first):
    words = f"encodercheck {typed}"
    zsh = {"_ENCODERCHECK_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": words}
    assert first in assert_no_torch(cwd=tmp_path, **zsh)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["fixture", ":", "text"], ["text-on-pair"]),
        (["fixture", ":"], ["clean", "clean-moco"]),
        (["model.saf"], []),
        (["m"], []),
    ],
    ids=str,
)
def test_bash_takes_a_colon_for_a_word(tmp_path, words, offered):
    extra = {
        "_ENCODERCHECK_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(["encodercheck", "scan", *words]),
        "COMP_CWORD": str(1 + len(words)),
    }
    assert assert_no_torch(cwd=tmp_path, **extra).split()[:2] == offered


def test_check_ids_are_all_of_the_built_in_suite():
    assert completion.check_ids("") == [
        *("EC001", "EC101", "EC102", "EC201", "EC202", "EC203", "EC204", "EC205", "EC301")
    ]
