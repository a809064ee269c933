"""Screening a folder: which images are read, what is kept on disk, and what is concluded."""

import contextlib
import copy
import json
import math
import os
import sqlite3
from dataclasses import replace

import models
import pictures
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from encodercheck import decoder_cache, screening
from encodercheck.errors import ConfigError, ImagesError, OutputError
from encodercheck.images import folder, procedural, source
from encodercheck.images.source import Further
from encodercheck.ledger import Ledger, Row, state_of
from encodercheck.methods.dede import Settings
from encodercheck.render import samples as render
from encodercheck.report import Outcome

SIZE = pictures.SIZE
QUICK = Settings(epochs=8, batch=32)
CLEAN = 600
FURTHER = Further(None, CLEAN, SIZE, 0, option="--clean ")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    path = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENCODERCHECK_CACHE", str(path))
        yield path


def prepare(images, encoder=None, **options):
    given = {"clean_images": CLEAN, "settings": QUICK, **options}
    return screening.prepare(encoder or pictures.encoder(), images, **given)


def watched(encoder):
    """Return the encoder and a list that grows with the number of images it is asked for."""
    asked, forward = [], encoder._forward

    def counting(images):
        asked.append(len(images))
        return forward(images)

    encoder._forward = counting
    return encoder, asked


# Clean images


def known(images):
    return {image.numpy().tobytes() for image in images}


@pytest.mark.parametrize("after", [0, 60])
def test_further_images_are_none_of_the_scan_s(tmp_path, after):
    place = str(pictures.write(tmp_path, 100, seed=1))
    first = source.collect(place, 60, size=SIZE, seed=3).images
    further = torch.cat(list(Further(place, 30, SIZE, 3, after=after).parts()))
    assert len(further) == 30
    assert len(known(first) & known(further)) == (0 if after else 30)


def test_further_procedural_images_are_none_of_the_scan_s():
    first = procedural.images(300, size=8, seed=0)
    parts = list(Further(None, 600, 8, 0, after=300).parts())
    assert [len(part) for part in parts] == [250, 250, 100]
    assert len(known(first) | known(torch.cat(parts))) == 900


def test_the_first_further_images_are_the_same_however_many_are_wanted(tmp_path):
    place = str(pictures.write(tmp_path, 40, seed=1))
    for origin in (place, None):
        few, many = (torch.cat(list(Further(origin, n, 8, 5).parts())) for n in (10, 30))
        assert torch.equal(few, many[:10])


def test_a_folder_may_hold_fewer_further_images_than_wanted(tmp_path):
    place = pictures.write(tmp_path, 20, seed=1)
    (place / "broken.png").write_text("no image")
    assert [len(part) for part in Further(str(place), 900, 8, 0, after=5).parts()] == [15]
    assert list(Further(str(place), 9, 8, 0, after=50).parts()) == []


def test_further_images_are_told_apart_by_their_files(tmp_path):
    place = pictures.write(tmp_path, 5, seed=1)
    further = Further(str(place), 4, 8, 0)
    before = further.identity()
    assert further.identity() == before
    assert Further(str(place), 4, 8, 1).identity() != before
    assert Further(None, 4, 8, 0).identity() != before
    pictures.write(tmp_path, 6, seed=1)
    assert further.identity() != before


def test_too_few_clean_files_name_the_option(tmp_path):
    place = pictures.write(tmp_path / "clean", 12, seed=1)
    with pytest.raises(ImagesError, match=r"--clean .*clean: holds 12 image files.* 300"):
        prepare(place, clean=str(place))
    with pytest.raises(ImagesError, match="--clean nowhere: no such folder"):
        prepare(place, clean="nowhere")


def test_clean_files_that_cannot_be_read_are_too_few_images(tmp_path):
    place = tmp_path / "clean"
    place.mkdir()
    for number in range(300):
        (place / f"{number}.png").write_text("no image")
    with pytest.raises(ImagesError, match=r"--clean .*clean: 0 clean images are held back"):
        prepare(place, clean=str(place))


# Reading


def test_files_are_read_in_order_and_damaged_ones_are_none(tmp_path):
    place = pictures.write(tmp_path, 150, seed=1)
    for number in (0, 70, 149):
        (place / f"{number:04}.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    files = folder.listing(place)
    read = list(folder.read_all(iter(files), 8))
    assert [file for file, _ in read] == files
    assert [i for i, (_, image) in enumerate(read) if image is None] == [0, 70, 149]
    for file, image in read[1:20]:
        assert torch.equal(image, folder.read(file, 8))


def test_links_to_folders_are_not_followed_and_said(tmp_path):
    place = pictures.write(tmp_path / "in", 3, seed=1)
    (place / "0001.png").rename(place / "0001.PNG")
    (place / "0002.png").rename(place / ".0002.png")
    for link in ("one", "two"):
        (place / link).symlink_to(".")
    files, passed_over = folder.looked_through(place)
    # A trigger behind a dot is one as well.
    assert [file.name for file in files] == [".0002.png", "0000.png", "0001.PNG"]
    assert passed_over == f"2 links to folders ({place}/one, {place}/two)"
    (tmp_path / "link").symlink_to("in")
    assert len(folder.listing(tmp_path / "link")) == 3


def test_a_folder_of_too_many_files_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "MOST_FILES", 2)
    with pytest.raises(ImagesError, match=r"--images .*: more than 2 files and folders"):
        folder.listing(pictures.write(tmp_path, 3, seed=1))


def test_who_asks_for_no_more_has_no_more_read(tmp_path):
    files = folder.listing(pictures.write(tmp_path, 3, seed=1))
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield files[0]

    reading = folder.read_all(endless(), 8)
    for _ in range(5):
        next(reading)
    reading.close()
    assert len(taken) <= folder.AHEAD + 6


def test_a_file_that_is_gone_or_makes_a_decoder_stumble_is_none(tmp_path, monkeypatch):
    assert folder.read(tmp_path / "gone.png", 8) is None
    file = pictures.save(tmp_path / "a.png", torch.rand(3, 8, 8))

    def stumble(*_):
        raise TypeError("'float' object cannot be interpreted as an integer")

    monkeypatch.setattr(folder.Image, "open", stumble)
    assert folder.read(file, 8) is None


# The ledger


def rows(*scores):
    return [Row(f"{i}.png", "new", score) for i, score in enumerate(scores)]


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "made" / "ledger.sqlite", "first")
    yield made
    with contextlib.suppress(sqlite3.ProgrammingError):  # closed already
        made.close()


def reopened(ledger, run):
    ledger.close()
    return Ledger(ledger._path, run)


def test_a_ledger_ranks_and_counts(ledger):
    ledger.add(rows(0.5, 2.0, None, float("inf"), -1.0, 2.0))
    assert list(ledger.ranked()) == [
        ("3.png", float("inf")), ("1.png", 2.0), ("5.png", 2.0), ("0.png", 0.5), ("4.png", -1.0),
    ]  # fmt: skip
    assert list(ledger.ranked(limit=1)) == [("3.png", float("inf"))]
    assert ledger.unreadable() == ["2.png"]
    assert ledger.scored() == 5
    assert [ledger.above(limit) for limit in (-2.0, 0.5, 2.0, float("inf"))] == [5, 3, 1, 0]
    assert [file for file, _ in ledger.median(1)] == ["5.png"]
    assert len(ledger.median(20)) == 5


def test_an_empty_ledger_has_nothing(ledger):
    assert list(ledger.ranked()) == ledger.median(4) == ledger.unreadable() == []
    assert ledger.scored() == ledger.above(0) == 0


def test_a_later_run_takes_over_what_has_not_changed(ledger):
    ledger.add(rows(1.0, 2.0, None))
    later = reopened(ledger, "second")
    assert later.scored() == 0
    assert later.has("0.png", "new")
    assert later.has("2.png", "new")
    assert not later.has("1.png", "changed")
    assert not later.has("3.png", "new")
    later.add([Row("1.png", "changed", 7.0)])
    assert list(later.ranked()) == [("1.png", 7.0), ("0.png", 1.0)]
    assert later.unreadable() == ["2.png"]
    later.close()


def test_what_is_not_taken_over_does_not_count(ledger):
    ledger.add(rows(1.0, 2.0))
    later = reopened(ledger, "second")
    assert later.has("1.png", "new")
    assert list(later.ranked()) == [("1.png", 2.0)]
    later.forget()
    assert not later.has("1.png", "new")
    later.close()


def test_a_killed_run_leaves_what_was_added(ledger):
    ledger.add(rows(1.0, 2.0))
    ledger._database.execute("DELETE FROM images")
    ledger._database.close()
    later = Ledger(ledger._path, "second")
    assert later.has("0.png", "new")
    later.close()


def test_embeddings_of_flagged_images_are_kept_as_directions(ledger):
    vectors = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    ledger.add([Row(f"{i}.png", "", float(i), vector) for i, vector in enumerate(1e30 * vectors)])
    ledger.add([Row("none.png", "", 9.0)])
    kept = torch.stack(list(ledger.embeddings(0.5)))
    expected = torch.nn.functional.normalize(vectors[1:], dim=1)
    torch.testing.assert_close(kept, expected, atol=1e-3, rtol=0)


def test_file_names_need_not_be_text(ledger):
    names = ["ünï→日本.png", os.fsdecode(b"\xff\xfe.png"), "line\nbreak.png"]
    ledger.add([Row(name, "", float(i)) for i, name in enumerate(names)])
    assert [file for file, _ in ledger.ranked()] == names[::-1]
    assert ledger.has(names[1], "")


@pytest.mark.parametrize("damage", ["text", "header", "middle", "short"])
def test_a_damaged_ledger_is_begun_anew(ledger, damage):
    ledger.add([Row(f"{i:05}.png", "x" * 100, float(i)) for i in range(500)])
    ledger.close()
    path = ledger._path
    data = bytearray(path.read_bytes())
    if damage == "text":
        data = bytearray(b"this is no database" * 300)
    elif damage == "header":
        data[:200] = bytes(200)
    elif damage == "middle":
        data[4096:16384] = bytes(12288)
    else:
        data = data[: len(data) // 2]
    path.write_bytes(data)
    again = Ledger(path, "second")
    assert not again.has("00000.png", "x" * 100)
    again.add(rows(1.0))
    assert again.scored() == 1
    again.close()


def test_a_ledger_that_cannot_be_made_says_what_to_set(tmp_path):
    (tmp_path / "a-file").write_text("")
    (tmp_path / "a-folder.sqlite").mkdir()
    for place in (tmp_path / "a-file" / "ledger.sqlite", tmp_path / "a-folder.sqlite"):
        with pytest.raises(OutputError, match="ENCODERCHECK_CACHE"):
            Ledger(place, "first")


def test_a_ledger_that_cannot_be_written_to_says_so(ledger):
    ledger.add(rows(1.0))
    ledger._database.execute("PRAGMA query_only = ON")
    with pytest.raises(OutputError, match="cannot be written"):
        ledger.add(rows(2.0))


def test_the_state_of_a_file_changes_with_it(tmp_path):
    file = tmp_path / "a.png"
    assert state_of(file) == ""
    file.write_text("one")
    first = state_of(file)
    assert state_of(file) == first != ""
    file.write_text("three")
    assert state_of(file) != first


# Decoders that are kept


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ENCODERCHECK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


SHORT = replace(QUICK, epochs=4)
FEW = Further(None, 400, SIZE, 0)


def fit(encoder=None, settings=SHORT, **options):
    steps = []
    found = decoder_cache.fit(
        encoder or pictures.encoder(),
        FEW,
        settings,
        progress=lambda *_: steps.append(1),
        **{"rate": 0.03, **options},
    )
    return found, len(steps)


@pytest.mark.parametrize("name", ["conv", "transformer"])
def test_a_decoder_is_trained_once(fresh_cache, name):
    chosen = replace(SHORT, decoder=name, patch=4)
    images = procedural.images(20, size=SIZE, seed=4)
    first, steps = fit(settings=chosen)
    before = torch.random.get_rng_state()
    second, none = fit(settings=chosen)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (steps > 0, none) == (True, 0)
    assert torch.equal(first.score(images), second.score(images))
    assert first.threshold == second.threshold
    assert len(list((fresh_cache / "dede").iterdir())) == 1


def test_one_decoder_serves_every_score_and_rate_but_no_other_setting(fresh_cache):
    fit()
    assert fit(settings=replace(SHORT, score="error"))[1] == 0
    assert fit(rate=0.1)[1] == 0
    assert fit(sigmas=3.0)[1] == 0
    assert fit(settings=replace(SHORT, seed=1))[1] > 0
    assert fit(pictures.encoder("another"))[1] > 0


def _read_as(part, **facts):
    encoder = pictures.encoder()
    encoder.module = nn.Sequential(encoder.module, part)
    encoder.provenance = replace(encoder.provenance, **facts)
    return encoder.module.eval() and encoder


def test_what_one_file_is_read_as_has_a_decoder_for_each_reading():
    scale = torch.nn.utils.skip_init(nn.BatchNorm1d, 192)
    scale.load_state_dict(nn.BatchNorm1d(192).state_dict())
    shifted = copy.deepcopy(scale)
    shifted.running_mean += 1
    weighed = copy.deepcopy(scale)
    weighed.weight.data *= 2
    readings = [
        _read_as(scale),
        _read_as(shifted),
        _read_as(weighed),
        _read_as(scale, architecture="another"),
        _read_as(nn.Sequential(scale, nn.ReLU())),
        _read_as(nn.Sequential(scale, nn.Tanh())),
    ]
    keys = [decoder_cache.key(encoder, FEW, SHORT) for encoder in readings]
    assert len(set(keys)) == len(readings)
    assert decoder_cache.key(_read_as(copy.deepcopy(scale)), FEW, SHORT) == keys[0]


def test_two_architectures_of_one_file_share_no_decoder(tmp_path):
    from encodercheck.loading import load

    path = models.write(tmp_path / "model.safetensors")
    pooled = [
        load(path, arch=f"resnet,stem_stride=2,maxpool={value}", device="cpu")
        for value in (True, False)
    ]
    assert pooled[0].provenance.sha256 == pooled[1].provenance.sha256
    further = Further(None, 400, pooled[0].image_size, 0)
    assert len({decoder_cache.key(encoder, further, SHORT) for encoder in pooled}) == 2


def test_a_rate_that_the_kept_images_are_too_few_for_is_refused(fresh_cache):
    fit()
    with pytest.raises(ValueError, match="80 clean images are held back"):
        fit(rate=0.001)


@pytest.mark.parametrize("damage", ["empty", "short", "foreign"])
def test_a_damaged_decoder_is_trained_again(fresh_cache, damage):
    first, _ = fit()
    (file,) = (fresh_cache / "dede").iterdir()
    data = file.read_bytes()
    if damage == "foreign":
        save_file({"grid": torch.tensor([8, 2]), "centre": torch.zeros(3)}, file)
    else:
        file.write_bytes(b"" if damage == "empty" else data[:-100])
    again, steps = fit()
    assert steps > 0
    assert again.threshold == first.threshold
    assert file.read_bytes() == data


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("ENCODERCHECK_CACHE", str(tmp_path / "cache"))
    assert fit()[1] > 0


def test_the_decoder_of_an_encoder_without_a_file_is_not_kept(fresh_cache):
    assert [fit(pictures.encoder(""))[1] > 0 for _ in range(2)] == [True, True]
    assert not fresh_cache.exists()


# Whole folders


def test_a_clean_folder_passes(tmp_path):
    found = prepare(pictures.write(tmp_path / "in", 150, seed=8)).run()
    assert found.outcome is Outcome.PASSED
    assert found.exit_code == 0
    assert found.screened == 150
    assert found.expected == pytest.approx(150 * found.rate)
    assert found.rate <= 0.03
    assert found.flagged < 15
    assert [s.score for s in found.worst] == sorted((s.score for s in found.worst), reverse=True)
    assert len(found.worst) == 20


def test_a_folder_with_triggers_fails_and_they_come_first(tmp_path):
    screen = prepare(pictures.write(tmp_path / "in", 150, seed=8, stamped=20))
    found = screen.run()
    assert found.outcome is Outcome.FAILED
    assert found.exit_code == 1
    stamped = {f"{number:04}.png" for number in range(20)}
    assert len(stamped & {sample.file for sample in found.worst}) >= 18
    assert found.worst[0].flagged
    assert found.worst[0].p_value == pytest.approx(1 / 121)
    everything = list(screen.samples())
    assert len(everything) == 150
    assert tuple(everything[:20]) == found.worst
    assert sum(sample.flagged for sample in everything) == found.flagged


def test_nothing_but_triggers_fails_as_they_are_alike(tmp_path):
    found = prepare(pictures.write(tmp_path / "in", 40, seed=8, stamped=40)).run()
    assert found.flagged > 20
    assert found.alike > 0.99
    assert found.outcome is Outcome.FAILED


def test_images_of_another_kind_are_no_verdict(tmp_path):
    place = tmp_path / "in"
    place.mkdir()
    noise = torch.rand(60, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).round()
    for number, image in enumerate(noise):
        pictures.save(place / f"{number}.png", image)

    def scattered(images, found):
        """Far from the embeddings of the generator's, every one elsewhere."""
        odd = ((images - 0.5).abs() > 0.499).float().mean((1, 2, 3)) > 0.9
        return torch.where(odd.unsqueeze(1), (found - found.mean(1, keepdim=True)) * 20, found)

    found = prepare(place, pictures.encoder("scattered", scattered)).run()
    assert found.flagged > 30
    assert found.another_kind
    assert found.outcome is Outcome.INCONCLUSIVE
    assert found.exit_code == 2


def test_a_folder_of_which_nothing_can_be_read_is_no_verdict(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_text("no image")
    found = prepare(tmp_path).run()
    assert found.unreadable == ("0.png", "1.png", "2.png")
    assert (found.screened, found.flagged, found.p_value) == (0, 0, 1.0)
    assert found.exit_code == 2
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_a_folder_without_images_or_none_at_all_is_an_error(tmp_path):
    with pytest.raises(ImagesError, match="holds no image files"):
        prepare(tmp_path).run()
    with pytest.raises(ImagesError, match="nowhere: no such folder"):
        prepare(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"settings": replace(QUICK, patch=9)}, "--patch 9: patches of 9 pixels"),
        ({"sigmas": float("nan")}, "--sigmas nan: must be a finite number"),
        ({"rate": 0.001}, "--rate 0.001: 120 clean images are held back"),
    ],
)
def test_settings_that_cannot_work_name_their_option(tmp_path, options, says):
    for _ in range(2):
        with pytest.raises(ConfigError, match=says):
            prepare(tmp_path, **options)


# Going on


def test_a_second_run_scores_only_what_is_new_or_changed(tmp_path):
    place = pictures.write(tmp_path / "in", 30, seed=8, stamped=5)
    first = prepare(place).run()
    encoder, asked = watched(pictures.encoder())
    again = prepare(place, encoder).run()
    assert asked == [1]  # the grey image that an embedding's length is measured on
    assert (again.worst, again.normal, again.p_value) == (first.worst, first.normal, first.p_value)
    pictures.save(place / "new.png", torch.rand(3, SIZE, SIZE))
    pictures.save(place / "0001.png", procedural.images(1, size=SIZE + 1, seed=3)[0])
    (place / "0002.png").unlink()
    asked.clear()
    later = prepare(place, encoder).run()
    assert sum(asked) == 2
    assert later.screened == 30
    assert "0002.png" not in {sample.file for sample in prepare(place).samples()}


def test_a_run_that_was_cut_short_goes_on(tmp_path, monkeypatch):
    place = pictures.write(tmp_path / "in", 40, seed=8)
    monkeypatch.setattr(screening, "BATCH", 10)

    def cut(step, total, note=""):
        if (step, total) == (20, 40):
            raise KeyboardInterrupt

    screen = prepare(place)
    with pytest.raises(KeyboardInterrupt):
        screen.run(progress=cut)
    screen.ledger._database.close()
    encoder, asked = watched(pictures.encoder())
    assert prepare(place, encoder).run().screened == 40
    assert sum(asked) == 20 + 1


def test_fresh_scores_everything_again(tmp_path):
    place = pictures.write(tmp_path / "in", 10, seed=8)
    prepare(place).run()
    encoder, asked = watched(pictures.encoder())
    assert prepare(place, encoder, fresh=True).run().screened == 10
    assert sum(asked) == 10 + 1


def test_encoders_without_a_file_do_not_share_their_scores(tmp_path):
    place = pictures.write(tmp_path / "in", 10, seed=8)
    one = prepare(place, pictures.encoder("")).run(top=10)
    tilted = pictures.encoder("", lambda images, found: found.cumsum(1) / 30)
    other = prepare(place, tilted).run(top=10)
    assert {s.score for s in one.worst}.isdisjoint(s.score for s in other.worst)


def test_a_file_that_is_written_to_while_it_is_read_is_scored_again(tmp_path, monkeypatch):
    place = pictures.write(tmp_path / "in", 3, seed=8)
    read = folder.read

    def slow(file, size):
        image = read(file, size)
        if file.name == "0001.png":
            file.write_bytes(file.read_bytes() + b"more")
            return None
        return image

    monkeypatch.setattr(folder, "read", slow)
    assert prepare(place).run().unreadable == ("0001.png",)
    monkeypatch.setattr(folder, "read", read)
    assert prepare(place).run().unreadable == ()


def test_embeddings_that_are_not_finite_are_flagged_and_hide_nothing(tmp_path):
    """JSON knows no infinity."""
    place = pictures.write(tmp_path / "in", 30, seed=8, stamped=20)
    images = procedural.images(2, size=SIZE, seed=8)
    for number in (0, 1):
        images[number, :, 0, 0] = 1
        pictures.save(place / f"{number:04}.png", images[number])

    def broken(images, found):
        return torch.where((images[:, :, 0, 0] > 0.99).all(1, keepdim=True), torch.nan, found)

    screen = prepare(place, pictures.encoder("broken", broken))
    found = screen.run()
    assert [math.isinf(sample.score) for sample in found.worst[:3]] == [True, True, False]
    assert all(sample.flagged for sample in found.worst[:2])
    assert found.alike > 0.9
    assert found.outcome is Outcome.FAILED
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["worst"][0]["score"] is None
    assert document["worst"][0]["flagged"] is True
    shown = screen.pictures(found, 2)
    assert render.sheet(shown).getpixel((300, 60)) == (255, 255, 255)


def test_files_whose_names_are_not_text_are_screened(tmp_path):
    place = pictures.write(tmp_path / "in", 3, seed=8)
    name = os.fsdecode(b"\xff.png")
    try:
        (place / "0000.png").rename(place / name)
    except OSError:
        pytest.skip("this file system has no such names")
    found = prepare(place).run()
    assert name in {sample.file for sample in found.worst}
    assert json.dumps(found.to_dict(), allow_nan=False)


# Verdicts


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return prepare(pictures.write(tmp_path_factory.mktemp("in"), 40, seed=8)).run()


@pytest.mark.parametrize(
    ("facts", "outcome"),
    [
        ({"flagged": 2, "p_value": 0.4}, Outcome.PASSED),
        ({"flagged": 2, "p_value": 0.00101}, Outcome.PASSED),
        ({"flagged": 9, "p_value": 0.00099, "alike": 0.1}, Outcome.FAILED),
        ({"flagged": 30, "p_value": 0.0, "alike": 0.9}, Outcome.FAILED),
        ({"flagged": 30, "p_value": 0.0, "alike": 0.5}, Outcome.INCONCLUSIVE),
        ({"flagged": 30, "p_value": 0.0, "alike": math.nan}, Outcome.INCONCLUSIVE),
        ({"screened": 0, "flagged": 0, "p_value": 1.0}, Outcome.INCONCLUSIVE),
    ],
)
def test_verdicts(found, facts, outcome):
    made = replace(found, **{"screened": 40, "clean_alike": 0.3, **facts})
    assert made.outcome is outcome
    assert made.exit_code == {Outcome.PASSED: 0, Outcome.FAILED: 1}.get(outcome, 2)


def test_the_report_is_json_without_numbers_that_json_does_not_know(found):
    worst = (replace(found.worst[0], score=math.inf), *found.worst[1:])
    made = replace(found, alike=math.nan, threshold=math.inf, worst=worst)
    document = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert document["schema"] == "encodercheck.samples/1"
    assert document["alike"] is document["threshold"] is document["worst"][0]["score"] is None
    assert document["settings"]["decoder"] == "conv"
    assert document["outcome"] == "passed"
    assert set(document["versions"]) >= {"encodercheck", "torch"}
    assert len(document["worst"]) == 20
    assert len(document["normal"]) == 4
