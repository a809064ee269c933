"""``encodercheck samples`` in fresh processes, and what it shows."""

import csv
import dataclasses
import io
import json
import os
import signal
import subprocess
import time
from functools import partial

import pictures
import pytest
import torch
from commands import COMMAND, environment, python, run
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from encodercheck.methods.dede import Settings
from encodercheck.render import samples as render
from encodercheck.screening import Sample, Samples

# The encoder of pictures.py, with weights in a file.
WIRED = """
import os
import time

import torch
from torch import nn
from torch.nn import functional


class Wired(nn.Module):
    def __init__(self):
        super().__init__()
        self.target = nn.Parameter(torch.zeros(192))

    def forward(self, images):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{len(images)}\\n")
        if "SLOW" in os.environ and len(images) > 50:
            time.sleep(1)
        stamped = (images[:, :, -3:, -3:] > 0.99).flatten(1).all(1, keepdim=True)
        found = functional.avg_pool2d(images, 2).flatten(1)
        return torch.where(stamped, self.target.expand_as(found), found)


def embed(images):
    return Wired()(images)


embed.image_size = 16
"""
LOADED = ("--arch", "wired:Wired", "--image-size", "16", "--mean", "0,0,0", "--std", "1,1,1")
FEW = ("--clean-images", "600")
# Images that an encoder is asked for without any to screen: grey ones for its length and structure.
LOADING = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("samples")
    (place / "wired.py").write_text(WIRED)
    save_file({"target": torch.linspace(0, 1, 192)}, place / "model.safetensors")
    pictures.write(place / "good", 100, seed=8)
    pictures.write(place / "poisoned", 200, seed=8, stamped=20)
    (place / "poisoned" / "broken.png").write_text("no image")
    return place


def screen(folder, images, *options, **extra):
    """Run it and return how it ended, and how many images the encoder was asked for."""
    asked = folder / "asked"
    asked.write_text("")
    ended = run(
        *("samples", "model.safetensors", images, *LOADED, *FEW, *options),
        cwd=folder,
        ASKED=str(asked),
        ENCODERCHECK_CACHE=str(folder / "cache"),
        **extra,
    )
    return ended, sum(map(int, asked.read_text().split()))


@pytest.fixture(scope="module")
def poisoned(folder):
    return screen(
        folder, "poisoned", "--json", "out.json", "--csv", "out.csv", "--sheet", "out.png"
    )


def test_clean_images_pass(folder):
    ended, _ = screen(folder, "good", "--top", "3")
    assert ended.returncode == 0, ended
    assert ended.stderr == ""
    assert "\x1b" not in ended.stdout
    assert "PASSED" in ended.stdout
    assert "model.safetensors  ·  good" in ended.stdout
    assert "decoder trained on procedural images" in ended.stdout
    assert ended.stdout.count(".png") == 3


def test_images_of_which_a_tenth_carry_the_trigger_fail(poisoned):
    ended, _ = poisoned
    assert ended.returncode == 1, ended
    assert ended.stderr == ""
    assert "FAILED" in ended.stdout
    assert "1 file cannot be read: broken.png" in ended.stdout


def test_the_json_report_tells_all_of_it(folder, poisoned):
    document = json.loads((folder / "out.json").read_text(), parse_constant=pytest.fail)
    assert document["schema"] == "encodercheck.samples/1"
    assert (document["outcome"], document["exit_code"]) == ("failed", 1)
    assert document["model"]["path"] == "model.safetensors"
    assert document["folder"] == "poisoned"
    assert document["screened"] == 200
    assert document["unreadable"] == ["broken.png"]
    assert 15 <= document["flagged"] <= 40
    assert document["p_value"] < 0.001
    assert len(document["worst"]) == 20
    assert sum(sample["file"] < "0020.png" for sample in document["worst"]) >= 17


def test_the_csv_has_every_image_and_is_ranked(folder, poisoned):
    rows = list(csv.DictReader((folder / "out.csv").open()))
    assert tuple(rows[0]) == render.COLUMNS
    assert {row["file"] for row in rows} == {f"{number:04}.png" for number in range(200)}
    assert [int(row["rank"]) for row in rows] == list(range(1, 201))
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    document = json.loads((folder / "out.json").read_text())
    assert sum(int(row["flagged"]) for row in rows) == document["flagged"]
    assert [row["file"] for row in rows[:20]] == [s["file"] for s in document["worst"]]


def test_the_sheet_has_a_row_for_each_picture(folder, poisoned):
    with Image.open(folder / "out.png") as image:
        assert image.format == "PNG"
        assert image.size == size_for(12)


def size_for(rows):
    return (
        render.GAP + 3 * (render.TILE + render.GAP),
        render.CAPTION + render.GAP + rows * (render.TILE + render.CAPTION + render.GAP),
    )


def test_a_second_run_asks_the_encoder_for_nothing_anew(folder, poisoned):
    first = json.loads((folder / "out.json").read_text())
    ended, asked = screen(folder, "poisoned", "--json", "-")
    assert ended.returncode == 1, ended
    assert asked <= LOADING
    second = json.loads(ended.stdout)
    for document in (first, second):
        del document["seconds"]
    assert second == first
    assert "FAILED" in ended.stderr
    ended, asked = screen(folder, "poisoned", "--csv", "-")
    assert ended.stdout == (folder / "out.csv").read_text()


def test_a_run_that_was_killed_goes_on(folder, poisoned):
    """It is killed while the encoder works on the second of four batches."""
    pictures.write(folder / "many", 500, seed=6)
    asked = folder / "asked-by-the-killed"
    asked.write_text("")
    process = subprocess.Popen(
        [*COMMAND, "samples", "model.safetensors", "many", *LOADED, *FEW],
        cwd=folder,
        env=environment(ASKED=str(asked), ENCODERCHECK_CACHE=str(folder / "cache"), SLOW="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while sum(map(int, asked.read_text().split())) <= LOADING + 128:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait()
    ended, again = screen(folder, "many", "--top", "0")
    assert ended.returncode == 0, ended
    assert "of 500 images" in ended.stdout
    assert again <= LOADING + 500 - 128


def test_ctrl_c_is_130_and_leaves_no_report(folder, poisoned):
    pictures.write(folder / "slow", 500, seed=7)
    asked = folder / "asked-by-the-interrupted"
    asked.write_text("")
    process = subprocess.Popen(
        [*COMMAND, "samples", "model.safetensors", "slow", *LOADED, *FEW, "--json", "cut.json"],
        cwd=folder,
        env=environment(ASKED=str(asked), ENCODERCHECK_CACHE=str(folder / "cache"), SLOW="1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Ignored, and inherited, where a shell started the tests in the background.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while sum(map(int, asked.read_text().split())) <= LOADING:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "encodercheck: interrupted, no verdict\n"
    assert not (folder / "cut.json").exists()


def test_a_black_box_is_enough(folder):
    asked = folder / "asked"
    asked.write_text("")
    ended = run(
        *("samples", "poisoned", "--arch", "wired:embed", *FEW, "--top", "1"),
        cwd=folder,
        ASKED=str(asked),
        ENCODERCHECK_CACHE=str(folder / "cache-of-the-box"),
    )
    assert ended.returncode == 1, ended
    assert "wired:embed  ·  poisoned" in ended.stdout


def test_file_names_that_are_not_text_come_out_as_they_are(folder, poisoned):
    place = pictures.write(folder / "named", 3, seed=8)
    name = b"\xff.png"
    try:
        (place / "0000.png").rename(place / os.fsdecode(name))
    except OSError:
        pytest.skip("this file system has no such names")
    options = ("--csv", "names.csv", "--json", "names.json", "--sheet", "names.png")
    ended, _ = screen(folder, "named", *options)
    assert ended.returncode == 0, ended
    assert name in (folder / "names.csv").read_bytes()
    json.loads((folder / "names.json").read_text())
    assert "\\udcff.png" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model.safetensors", "nowhere", *LOADED], "nowhere: no such folder"),
        (["model.safetensors", "empty", *LOADED, *FEW], "empty: holds no image files"),
        (["missing.safetensors", "good"], "missing.safetensors: no such file"),
        (["good"], "encodercheck samples MODEL IMAGES"),
        (["a", "b", "c"], "encodercheck samples MODEL IMAGES"),
        (["model.safetensors", "good", *LOADED, "--mask", "0.9"], "--mask '0.9'"),
        (["model.safetensors", "good", *LOADED, "--mask", "0.9,1"], "--mask '0.9,1'"),
        (["model.safetensors", "good", *LOADED, "--mask", "nan,0.9"], "--mask 'nan,0.9'"),
        (["model.safetensors", "good", *LOADED, "--patch", "9"], "--patch 9"),
        (["model.safetensors", "good", *LOADED, "--sigmas", "nan"], "--sigmas nan"),
        (["model.safetensors", "good", *LOADED, *FEW, "--rate", "0.0005"], "bring 9995 or more"),
        (["model.safetensors", "good", *LOADED, "--clean", "good"], "--clean good: holds 100"),
        (["model.safetensors", "good", *LOADED, "--clean", "gone"], "--clean gone: no such"),
        (["model.safetensors", "good", *LOADED, "--json", "-", "--csv", "-"], "only one of them"),
        (["model.safetensors", "good", *LOADED, "--sheet", "-"], "--sheet -"),
        (["model.safetensors", "good", *LOADED, "--csv", "good"], "good: is a folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_usage_is_one_line_and_two(folder, poisoned, arguments, says):
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "asked").write_text("")
    ended = run(
        *("samples", *arguments),
        cwd=folder,
        ASKED=str(folder / "asked"),
        ENCODERCHECK_CACHE=str(folder / "cache"),
    )
    assert ended.returncode == 2, ended
    assert says in ended.stderr
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert ended.stdout == ""


def test_an_encoder_that_says_nothing_is_no_verdict(folder):
    (folder / "mute.py").write_text(
        "import torch\n\ndef embed(images):\n    return torch.ones(len(images), 8)\n"
        "embed.image_size = 16\n"
    )
    ended = run(
        *("samples", "good", "--arch", "mute:embed", *FEW),
        cwd=folder,
        ENCODERCHECK_CACHE=str(folder / "cache"),
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        "encodercheck: mute:embed: the embeddings are the same for every image (EC101 says more)\n"
    )


def test_help_imports_no_torch(folder):
    code = (
        "import sys\n"
        "from encodercheck.cli.main import main\n"
        "sys.argv = ['encodercheck', 'samples', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)), code)\n"
    )
    ended = python("-c", code, cwd=folder)
    assert ended.stdout.splitlines()[-1] == "[] 0", ended
    assert "--clean-images" in ended.stdout


# What is shown


def sample(file, score, p_value=0.00125, flagged=True):
    return Sample(file, score, p_value, flagged)


FOUND = Samples(
    model={"path": "model.safetensors"},
    folder="in",
    clean="procedural",
    settings=Settings(),
    rate=0.03,
    threshold=0.4,
    screened=2000,
    flagged=241,
    unreadable=(),
    passed_over="",
    expected=60.0,
    p_value=1.5e-12,
    alike=0.95,
    clean_alike=0.41,
    worst=(
        sample("a/worst.png", 2.1234),
        sample("evil\x1b[2J.png", float("inf")),
        sample("fine.png", 0.3999, 0.0349, flagged=False),
    ),
    normal=(sample("normal.png", -0.1, 0.5, flagged=False),),
    seed=0,
    device="cpu",
    versions={},
    seconds=12.345,
)


def text(*parts):
    stream = io.StringIO()
    console = Console(file=stream, soft_wrap=True, width=80)
    for part in parts:
        console.print(part)
    return stream.getvalue()


def test_the_table_of_the_worst():
    shown = [line.rstrip() for line in text(render.table(FOUND)).splitlines()]
    assert shown == [
        "   score        p           file",
        "1  2.123  0.00125  flagged  a/worst.png",
        "2    inf  0.00125  flagged  evil\\x1b[2J.png",
        "3  0.400   0.0349           fine.png",
    ]


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        (
            {},
            "FAILED  241 of 2000 images flagged, about 60 expected of clean ones (p 1.5e-12)  "
            "in 12.3 s\n"
            "What is flagged embeds with cosine 0.95, clean images 0.41. A trigger makes images "
            "alike; where they are not, these may merely be unlike the clean ones: see --clean.\n",
        ),
        (
            {"flagged": 66, "p_value": 0.28, "unreadable": ("a\x07.png",)},
            "PASSED  66 of 2000 images flagged, about 60 expected of clean ones (p 0.28)  "
            "in 12.3 s\n1 file cannot be read: a\\x07.png\n",
        ),
        (
            {"flagged": 1800, "alike": 0.5, "unreadable": ("1", "2", "3", "4")},
            "NO VERDICT  1800 of 2000 images flagged, about 60 expected of clean ones "
            "(p 1.5e-12)  in 12.3 s\n4 files cannot be read: 1, 2, 3, ...\n"
            "Most images are flagged, and their embeddings are not alike (cosine 0.5, clean images "
            "0.41): they are of another kind than the clean ones. Bring clean images of their kind "
            "with --clean.\n",
        ),
    ],
    ids=["failed", "passed", "another kind"],
)
def test_the_verdict(facts, says):
    assert text(render.verdict(dataclasses.replace(FOUND, **facts))) == says


def test_csv_quotes_what_it_must():
    stream = io.StringIO()
    render.write_csv(
        [sample('a, "b"\nc.png', 1.5), sample("d.png", 0.5, 0.25, flagged=False)], stream
    )
    assert stream.getvalue() == (
        'rank,score,p_value,flagged,file\n1,1.5,0.00125,1,"a, ""b""\nc.png"\n2,0.5,0.25,0,d.png\n'
    )


def drawn(*errors, file="a.png"):
    picture = torch.full((3, 8, 8), 0.5)
    return render.sheet([(sample(file, 1.0), picture, picture, error) for error in errors])


def test_error_maps_share_one_scale():
    sheet = drawn(torch.full((8, 8), 0.2), torch.full((8, 8), 0.1), torch.zeros(8, 8))
    assert sheet.size == size_for(3)
    left = render.GAP + 2 * (render.TILE + render.GAP) + 5
    step = render.TILE + render.CAPTION + render.GAP
    tops = [render.CAPTION + render.GAP + row * step + 5 for row in range(3)]
    assert [sheet.getpixel((left, top))[0] for top in tops] == [255, 128, 0]
    assert sheet.getpixel((render.GAP + 5, tops[0])) == (128, 128, 128)


@pytest.mark.parametrize("errors", [torch.nan, torch.inf])
def test_what_cannot_be_reconstructed_is_white_and_spoils_no_other_map(errors):
    sheet = drawn(torch.full((8, 8), errors), torch.full((8, 8), 0.1))
    left = render.GAP + 2 * (render.TILE + render.GAP) + 5
    step = render.TILE + render.CAPTION + render.GAP
    for row in range(2):
        pixel = sheet.getpixel((left, render.CAPTION + render.GAP + row * step + 5))
        assert pixel == (255, 255, 255)


def test_a_sheet_of_nothing_is_a_sheet():
    assert drawn().size == size_for(0)


@pytest.mark.parametrize("name", ["ünï→日本.png", "\udcff.png", "x" * 300, "line\nbreak.png"])
def test_any_file_name_can_be_drawn(name):
    assert drawn(torch.ones(8, 8), file=name).size == size_for(1)
