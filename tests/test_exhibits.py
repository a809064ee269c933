"""What the harness records for reports that can draw, and that nothing else depends on it."""

import io
import json
import textwrap

import pytest
import torch
from PIL import Image
from torch import nn

from encodercheck.encoder import Encoder
from encodercheck.exhibits import Comparison, Cosines, Gallery, Note
from encodercheck.harness import exhibiting, pictures, runner
from encodercheck.harness.listener import CheckInfo
from encodercheck.harness.record import CheckRecord
from encodercheck.harness.state import ScanState
from encodercheck.images import procedural
from encodercheck.images.split import CleanImages
from encodercheck.methods.dede import Dede
from encodercheck.nulls import CleanEncoder, Nulls
from encodercheck.preprocessing import Preprocessing
from encodercheck.profiles import Profile
from encodercheck.report import Outcome
from encodercheck.trigger import Trigger

TOY = Profile(
    "toy", 8, 16, 8, restarts=2, steps=2, decree_steps=2, battery_images=2, decoder_images=300
)
WITNESS = """
    trigger = Trigger(torch.ones(1, 16, 16), torch.zeros(3, 16, 16))
    measure("gain", 0.99, at_most=0.9)
    artifacts.witness(Witness(trigger, cosine=0.99, base=0.5, count=16))
"""


@pytest.fixture
def state():
    module = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    encoder = Encoder(module, preprocessing=Preprocessing(image_size=16))
    images = procedural.images(24, size=16, seed=3)
    return ScanState(encoder, CleanImages.of(images, TOY.search), 7, TOY)


def run(state, folder, body, fixtures="measure, artifacts"):
    """Run one check whose body this is."""
    imports = (
        "import pytest, torch\nfrom encodercheck.trigger import Trigger\n"
        "from encodercheck.witness import Witness\n"
    )
    head = f'@pytest.mark.check("X1")\ndef check_x({fixtures}):\n'
    (folder / "check_x.py").write_text(
        imports + head + textwrap.indent(textwrap.dedent(body), "    ")
    )
    (finding,) = runner.run_suite(state, paths=[folder])
    return finding


def kinds(finding):
    return [type(exhibit) for exhibit in finding.exhibits]


def opened(picture):
    image = Image.open(io.BytesIO(picture.png))
    assert image.size == (picture.width, picture.height)
    return image


def test_a_witness_is_shown_where_artifacts_are_not_kept(state, tmp_path):
    finding = run(state, tmp_path, WITNESS)
    assert (finding.outcome, finding.witness) == (Outcome.FAILED, None)
    gallery, cosines = finding.exhibits
    captions = [picture.caption for picture in gallery.rows[0]]
    assert captions == ["mask", "pattern", "image", "stamped", "stamped", "stamped"]
    assert all(picture.alt for picture in gallery.rows[0])
    assert opened(gallery.rows[0][3]).getextrema() == ((0, 0),) * 3  # all black
    assert cosines.images == exhibiting.COSINE_IMAGES
    assert len(cosines.clean) == len(cosines.stamped) == 120
    assert cosines.stamped == pytest.approx([1.0] * 120, abs=1e-5)
    assert min(cosines.clean) < 0.999


def test_the_last_witness_is_shown(state, tmp_path):
    body = "artifacts.picture(torch.ones(1, 2, 2), caption='a', alt='b')\n"
    finding = run(state, tmp_path, body + textwrap.dedent(WITNESS) * 2)
    assert kinds(finding) == [Gallery, Cosines, Gallery]


def test_what_is_compared_is_shown_with_its_null(state, tmp_path):
    def clean(number):
        return CleanEncoder("", 16, "clean", f"{number:064x}", {"X1.gain": 0.1 * number}, "toy")

    state.nulls = Nulls("toy", encoders=tuple(map(clean, range(1, 5))))
    finding = run(state, tmp_path, "compare('gain', 0.25)", fixtures="compare")
    (shown,) = finding.exhibits
    assert isinstance(shown, Comparison)
    assert shown.clean == pytest.approx((0.1, 0.2, 0.3, 0.4))
    assert (shown.name, shown.value, shown.scale) == ("gain", 0.25, "gain")
    assert "4 clean encoders" in shown.source
    assert shown.p_value == finding.measurements[0].value


def test_a_check_shows_pictures_of_its_own(state, tmp_path):
    body = "artifacts.picture(torch.rand(3, 8, 8), caption='a map', alt='Where it looks')"
    finding = run(state, tmp_path, body)
    assert finding.outcome is Outcome.PASSED
    ((picture,),) = finding.exhibits[0].rows
    assert (picture.caption, picture.alt) == ("a map", "Where it looks")
    assert opened(picture).size == (8, 8)


def test_a_check_cannot_swell_the_report(state, tmp_path):
    body = """
    for _ in range(100):
        artifacts.picture(torch.rand(3, 400, 400), caption="a", alt="b")
    """
    finding = run(state, tmp_path, body)
    note, gallery = finding.exhibits
    assert "at most 24" in note.text
    assert sum(len(picture.png) for picture in gallery.rows[0]) < 300_000


@pytest.mark.parametrize(
    "picture", ["torch.rand(3)", "'no tensor'", "torch.rand(5, 5, 5)", "torch.rand(3, 0, 0)"]
)
def test_a_picture_that_cannot_be_shown_fails_no_check(state, tmp_path, picture):
    finding = run(state, tmp_path, f"artifacts.picture({picture}, caption='a', alt='b')")
    assert finding.outcome is Outcome.PASSED
    (note,) = finding.exhibits
    assert note.text.startswith("the picture 'a' cannot be shown: ")


@pytest.mark.parametrize(
    "error",
    [ValueError("broken"), SystemExit(3), MemoryError(), pytest.fail.Exception("no")],
    ids=repr,
)
def test_a_crash_changes_no_verdict(state, tmp_path, monkeypatch, error):
    def crash(*_):
        raise error

    bare = run(state, tmp_path, WITNESS)
    monkeypatch.setattr(pictures, "of_trigger", crash)
    finding = run(state, tmp_path, WITNESS)
    assert finding == type(finding)(**{**vars(bare), "seconds": finding.seconds})
    (note,) = finding.exhibits
    assert isinstance(note, Note)


def test_stopping_a_scan_stops_it_here_too(state, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(pictures, "of_trigger", stop)
    with pytest.raises(KeyboardInterrupt):
        run(state, tmp_path, WITNESS)


def test_an_encoder_that_fails_on_the_exhibit_changes_no_verdict(state, tmp_path):
    class Broken(nn.Module):
        def forward(self, images):
            pytest.exit("gone", returncode=0)

    state.encoder.module = Broken()
    finding = run(state, tmp_path, WITNESS)
    assert finding.outcome is Outcome.FAILED
    assert kinds(finding) == [Gallery, Note]


def test_exhibits_leave_random_numbers_alone(state, tmp_path, monkeypatch):
    body = WITNESS + "    measure('draw', torch.rand(()))\n"
    shown = run(state, tmp_path, body)
    monkeypatch.setattr(exhibiting, "witness", lambda *_: None)
    bare = run(state, tmp_path, body)
    assert json.dumps(shown.to_dict()["measurements"]) == json.dumps(bare.to_dict()["measurements"])


def test_reconstructions_come_in_rows_on_one_scale(state):
    dede = Dede(nn.Flatten()).fit(procedural.images(400, size=16, seed=1))
    record = CheckRecord(CheckInfo("X1", "check_x.py::check_x", "", "high"))
    corner = torch.zeros(1, 16, 16)
    corner[:, :6, :6] = 1
    triggers = [
        Trigger(torch.zeros(1, 16, 16), torch.zeros(3, 16, 16)),
        Trigger(corner, torch.ones(3, 16, 16)),
    ]
    exhibiting.reconstructions(record, state, dede, triggers)
    without, with_it = record.shown
    for gallery in (without, with_it):
        assert len(gallery.rows) == exhibiting.RECONSTRUCTED_IMAGES
        captions = {tuple(picture.caption for picture in row) for row in gallery.rows}
        assert captions == {("image", "decoded", "error")}
    # The trigger that does something is the one that is shown.
    stamped = opened(with_it.rows[0][0])
    assert stamped.getpixel((0, 0)) == (255, 255, 255)
    brightest = [opened(row[2]).getextrema()[1] for g in (without, with_it) for row in g.rows]
    assert max(brightest) == 255


@pytest.mark.parametrize(
    ("shape", "size", "mode"),
    [
        ((3, 32, 32), (32, 32), "RGB"),
        ((1, 5, 7), (7, 5), "L"),
        ((4, 9, 9), (9, 9), "RGBA"),
        ((3, 224, 224), (96, 96), "P"),
        ((3, 1000, 10), (1, 96), "P"),
    ],
)
def test_pictures_are_small(shape, size, mode):
    image = opened(pictures.picture(torch.rand(shape), caption="", alt=""))
    assert (image.size, image.mode) == (size, mode)


def test_what_is_no_number_is_white():
    image = opened(pictures.picture(torch.full((1, 2, 2), torch.nan), caption="", alt=""))
    assert image.getextrema() == (255, 255)


def test_a_single_pixel_is_not_lost_in_a_large_mask():
    mask = torch.zeros(1, 224, 224)
    mask[0, 3, 3] = 1
    assert opened(pictures.picture(mask, caption="", alt="")).getextrema()[1] > 20


def test_a_faint_trigger_is_shown_at_full_contrast():
    faint = Trigger(torch.full((1, 8, 8), 0.1), torch.ones(3, 8, 8), additive=True)
    gallery = pictures.of_trigger(faint, torch.full((1, 3, 8, 8), 0.5))
    pattern = opened(gallery.rows[0][1])
    assert pattern.getpixel((0, 0)) == (255, 255, 255, 255)


def test_an_empty_trigger_can_be_shown():
    nothing = Trigger(torch.zeros(1, 8, 8), torch.zeros(3, 8, 8))
    assert len(pictures.of_trigger(nothing, torch.zeros(0, 3, 8, 8)).rows[0]) == 2
