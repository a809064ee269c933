"""Nulls: how unusual a value is among clean encoders, which ones they are, and hostile files."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodercheck.errors import CheckInconclusive, ConfigError
from encodercheck.methods.null import (
    AGREEMENT,
    BORROWED_ALPHA,
    DOUBT,
    LEAST_ENCODERS,
    OWN_ALPHA,
    SCALES,
    Null,
)
from encodercheck.nulls import MOST_BYTES, CleanEncoder, Nulls
from encodercheck.report import Direction, Finding, Measurement, Outcome, Report
from encodercheck.structure import fingerprint
from encodercheck.weights.build import sources
from encodercheck.weights.resnet import ResNet
from encodercheck.weights.spec import ResNetSpec

GAINS = st.floats(-1, 0.99)
SIZES = st.floats(1e-4, 1)
# At these axis values a gain is told from its neighbours, and from the most suspicious one.
VALUES = {"gain": GAINS, "size": SIZES, "shift": st.floats(-1, 5)}


@st.composite
def nulls(draw, scale=None):
    scale = scale or draw(st.sampled_from(sorted(SCALES)))
    values = draw(st.lists(VALUES[scale], min_size=LEAST_ENCODERS, max_size=12))
    return Null(tuple(values), scale, "drawn", own=draw(st.booleans()))


def clean(architecture="resnet18", number=0, value=0.3, **facts):
    known = {"image_size": 32, "name": f"{number}", "sha256": f"{number:064x}"}
    return CleanEncoder(architecture, **(known | {"values": {"EC202.gain": value}} | facts))


def file_of(*encoders, **facts):
    """Return the content of a file with these encoders."""
    whole = {"schema": "encodercheck.null/1", "profile": "quick", "images": "procedural"}
    return whole | {"versions": {}, "encoders": [e.to_dict() for e in encoders]} | facts


@given(nulls(), st.floats())
def test_a_p_value_is_a_probability(null, value):
    p = null.p_value(value)
    assert math.isnan(p) if math.isnan(value) else 0 <= p <= 1


@given(nulls(), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_the_more_suspicious_the_smaller_the_p_value(null, one, other):
    low, high = sorted((one, other), reverse=null.scale == "size")
    assert null.p_value(high) <= null.p_value(low) + 1e-12


@given(nulls(), st.sampled_from([0.2, DOUBT, OWN_ALPHA, BORROWED_ALPHA]))
def test_a_limit_has_the_p_value_that_it_was_made_for(null, alpha):
    limit = null.quantile(alpha)
    # Beyond this all values count alike.
    if SCALES[null.scale].forward(limit) < 8.5:
        assert null.p_value(limit) == pytest.approx(alpha, rel=1e-3)


@pytest.mark.parametrize("scale", SCALES)
@given(data=st.data())
def test_scales_go_there_and_back(scale, data):
    value = data.draw(VALUES[scale])
    there = SCALES[scale].forward(value)
    assert SCALES[scale].back(there) == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_a_null_of_other_architectures_is_asked_for_more():
    own = Null((0.3, 0.4, 0.5, 0.35), "gain", "four")
    borrowed = replace(own, own=False)
    assert (own.alpha, borrowed.alpha) == (OWN_ALPHA, BORROWED_ALPHA)
    assert own.limit < borrowed.limit
    assert own.p_value(own.limit) == pytest.approx(OWN_ALPHA)


def test_a_doubtful_value_is_a_verdict_at_home_only():
    own = Null((0.3, 0.4, 0.5, 0.35), "gain", "four clean encoders")
    borrowed = replace(own, own=False)
    doubtful = own.quantile(0.01)
    own.require_verdict(doubtful)
    with pytest.raises(CheckInconclusive, match=r"p 0\.01\).*four clean.*encodercheck calibrate"):
        borrowed.require_verdict(doubtful)
    # Usual, failed, and no number at all: `measure` has said what there is to say.
    for value in (own.quantile(0.03), own.quantile(0.0005), math.nan):
        borrowed.require_verdict(value)


def test_a_doubtful_shift_is_no_verdict_at_home_either():
    own = Null((0.3, 0.4, 0.5, 0.35), "shift", "four clean encoders")
    with pytest.raises(CheckInconclusive, match=r"p 0\.01\), against four.*encodercheck calibrate"):
        own.require_verdict(own.quantile(0.01))
    own.require_verdict(own.quantile(0.03))


GAINS = st.lists(st.floats(0.1, 0.9), min_size=4, max_size=9)


@given(GAINS, GAINS, st.floats(0, 0.9999))
def test_own_encoders_and_a_prediction_fail_together_or_the_prediction_alone(own, other, gain):
    predicted = Null(tuple(other), "gain", "a bank", predicted=0.001)
    alone = Null(tuple(own), "gain", "own encoders")
    both = replace(alone, prediction=predicted)
    unusual = gain > alone.limit
    fails = (unusual and gain > predicted.quantile(AGREEMENT)) or gain > predicted.limit
    assert (gain > both.limit) == fails


@given(GAINS, GAINS, st.floats(0.001, 0.99))
def test_sizes_fail_the_same_way_where_small_ones_are_suspicious(own, other, size):
    predicted = Null(tuple(other), "size", "a bank", predicted=0.001)
    alone = Null(tuple(own), "size", "own encoders")
    both = replace(alone, prediction=predicted)
    unusual = size < alone.limit
    fails = (unusual and size < predicted.quantile(AGREEMENT)) or size < predicted.limit
    assert (size < both.limit) == fails


def test_what_a_prediction_finds_unusual_but_not_enough_is_no_verdict():
    predicted = Null((0.3, 0.4, 0.5, 0.35), "gain", "a bank", predicted=1e-4)
    with pytest.raises(CheckInconclusive, match=r"p 0\.00\d+\), against a bank, though not enough"):
        predicted.require_verdict(predicted.quantile(0.003))
    predicted.require_verdict(predicted.quantile(0.02))
    assert predicted.quantile(0.00005) > predicted.limit


def test_without_support_nothing_is_said():
    none = Null((0.3, 0.4), "gain", "2 with EC202.gain", own=False)
    assert not none.supported
    assert none.p_value(0.9) == 1
    assert math.isnan(none.limit)
    with pytest.raises(CheckInconclusive, match=r"2 with EC202\.gain.*encodercheck calibrate"):
        none.require_support()
    none.require_verdict(0.9)


@pytest.mark.parametrize("scale", SCALES)
def test_while_clean_encoders_are_measured_nothing_is_demanded(scale):
    none = Null((), scale, "none", own=False, required=False)
    none.require_support()
    sides = {
        "gain": Direction.AT_MOST,
        "size": Direction.AT_LEAST,
        "shift": Direction.AT_MOST,
    }
    for value in (-1e300, 0.0, 1e300):
        assert Measurement("m", value, none.limit, sides[scale]).outcome is Outcome.PASSED
    # A supported one judges, so that a doubtful "clean" encoder is warned of.
    some = Null((0.3, 0.4, 0.5), scale, "three", own=False, required=False)
    assert some.limit == replace(some, required=True).limit
    some.require_verdict(some.quantile(0.01))


def find(known, **facts):
    asked = {"scale": "gain", "architecture": "resnet18", "image_size": 32}
    return known.find("EC202.gain", **(asked | facts))


def test_encoders_of_the_same_architecture_come_first():
    own = [clean(number=i, value=0.1 * i) for i in range(1, 4)]
    others = [clean("vit", i, 0.9) for i in range(4, 9)]
    null = find(Nulls(encoders=(*own, *others)))
    assert null.values == (0.1, 0.2, pytest.approx(0.3))
    assert null.own
    assert null.source == "3 clean encoders of resnet18"


def test_too_few_of_them_and_all_are_asked():
    few = [clean(number=i) for i in range(2)]
    larger = [clean(number=2, image_size=64)]
    others = [clean("vit", 3), clean("vgg", 4), clean("bare", 5, values={"EC001.nan": 0.0})]
    null = find(Nulls(encoders=(*few, *larger, *others)))
    assert len(null.values) == 5
    assert not null.own
    assert null.source == "5 clean encoders of 2 other architectures"
    null = find(Nulls(encoders=(*few, *larger)))
    assert not null.own
    assert null.source == "3 clean encoders of resnet18, of other image sizes"


STRUCTURE, ANOTHER = "0123456789abcdef", "f" * 16


def test_a_structure_says_what_is_alike_whatever_its_name():
    own = [clean("resnet(basic)", i, 0.1 * i, structure=STRUCTURE) for i in range(1, 4)]
    others = [clean("mine:build", i, 0.9, structure=ANOTHER) for i in range(4, 9)]
    known = Nulls(encoders=(*own, *others))
    null = find(known, architecture="mine:build", structure=STRUCTURE)
    assert null.values == (0.1, 0.2, pytest.approx(0.3))
    assert null.own
    assert null.source == "3 clean encoders of the same structure (resnet(basic))"
    null = find(known, architecture="mine:build", structure="a" * 16)
    assert not null.own
    assert len(null.values) == 8
    null = find(Nulls(encoders=tuple(others)), architecture="mine:build", structure="a" * 16)
    assert not null.own
    assert null.source == "5 clean encoders of mine:build, built otherwise"


def test_where_a_structure_is_not_known_the_name_counts():
    named = tuple(clean(number=i) for i in range(3))
    assert find(Nulls(encoders=named), structure=STRUCTURE).own
    built = tuple(clean(number=i, structure=STRUCTURE) for i in range(3))
    assert find(Nulls(encoders=built)).own
    assert not find(Nulls(encoders=built), image_size=64).own


def test_the_shipped_structures_are_those_that_are_built_today():
    vit, *_ = (e for e in Nulls.shipped().encoders if e.architecture.startswith("timm:"))
    (source,) = sources(vit.architecture)
    built = {vit.architecture: fingerprint(source.build(on_meta=False).eval(), 32)}
    for width, stride in ((16, 2), (24, 1)):
        widths = (width, 2 * width, 4 * width, 8 * width)
        facts = {"stem_kernel": 3, "stem_stride": stride, "maxpool": False}
        spec = ResNetSpec("basic", (1, 1, 1, 1), widths, **facts)
        built[str(spec)] = fingerprint(ResNet(spec).eval(), 32)
    assert {e.architecture: e.structure for e in Nulls.shipped().encoders} == built


def test_images_are_known_by_what_they_are(tmp_path):
    digest, another = "a" * 64, "b" * 64
    facts = {"images": "photos/", "images_digest": digest}
    known = Nulls(encoders=tuple(clean(number=i, **facts) for i in range(3)), **facts)
    known.write(tmp_path / "null.json")
    known = Nulls.read(tmp_path / "null.json")
    asked = {"profile": "standard", "images": "./photos"}
    assert "measured" not in find(known, **asked, images_digest=digest).source
    other = find(known, profile="standard", images="photos/", images_digest=another)
    assert other.source.endswith("measured on other images (photos/)")
    # As an earlier version measured.
    assert "measured" not in find(known, profile="standard", images="photos/").source
    assert "measured" in find(known, **asked).source


def test_too_few_altogether_is_no_null():
    null = find(Nulls(encoders=(clean(), clean("vit", 1))))
    assert not null.supported
    assert not null.own
    assert null.values == ()
    assert "2 with EC202.gain" in null.source
    assert not find(Nulls()).supported
    with pytest.raises(ValueError, match="choose one of gain, size"):
        find(Nulls(), scale="grain")


def test_the_source_says_how_the_measuring_differed():
    known = Nulls(encoders=tuple(clean(number=i, profile="quick") for i in range(3)))
    assert "measured" not in find(known, profile="quick", images="procedural").source
    source = find(known, profile="standard", images="folder").source
    assert source.endswith(
        "measured with profile quick instead of standard and on other images (procedural)"
    )


def test_of_two_with_the_same_weights_the_new_one_stays():
    shipped = Nulls(encoders=(clean(value=0.1), clean(number=1)))
    other = Nulls("quick", encoders=(clean(value=0.2, profile="quick"),))
    both = shipped.merged(other)
    assert [(e.name, e.values["EC202.gain"]) for e in both.encoders] == [("1", 0.3), ("0", 0.2)]
    assert both.profile == "standard"
    assert Nulls().merged(other) == other


def test_a_file_reads_as_it_was_written(tmp_path):
    known = Nulls("standard", "procedural", {"torch": "2.6"}, (clean(), clean("vit(8)", 1, -0.0)))
    known = replace(known, encoders=(*known.encoders, clean(number=2, structure=STRUCTURE)))
    sketched = clean(number=3, structure=STRUCTURE, sketch=(0.125,) * 63 + (-0.125,))
    known = replace(known, encoders=(*known.encoders, sketched))
    known.write(tmp_path / "null.json")
    assert Nulls.read(tmp_path / "null.json") == known
    with pytest.raises(ConfigError, match="one profile"):
        known.merged(Nulls(encoders=(clean(number=2, profile="quick"),))).write(tmp_path / "two")
    assert [file.name for file in tmp_path.iterdir()] == ["null.json"]


def test_the_shipped_file_is_read():
    assert Nulls.shipped().profile == "standard"


def measured(*measurements, id="EC202"):
    return Finding(id, "c.py::c", "high", Outcome.PASSED, measurements=measurements)


def test_a_report_becomes_an_encoder():
    model = {"path": "m", "sha256": "a" * 64, "architecture": "resnet18", "image_size": 32}
    model["structure"] = STRUCTURE
    findings = (
        measured(Measurement("gain", 0.3, 0.9, Direction.AT_MOST), Measurement("base", 0.1)),
        measured(Measurement("rank", math.nan, 1, Direction.AT_LEAST), id="EC101"),
        measured(Measurement("size", 0.2, 0.1, Direction.AT_LEAST), id="A[red]"),
        measured(Measurement("size", 0.1, 0.1, Direction.AT_LEAST), id="A[blue]"),
        measured(Measurement("size", 0.3, 0.1, Direction.AT_LEAST), id="A[green]"),
    )
    images = {"source": "procedural", "digest": "d" * 64}
    report = Report(model, images, findings, 0, "cpu", {}, 1.0, "quick")
    assert CleanEncoder.of(report) == CleanEncoder(
        "resnet18",
        32,
        "m",
        "a" * 64,
        {"EC202.gain": 0.3, "EC202.base": 0.1, "A.size": 0.1},
        profile="quick",
        images_digest="d" * 64,
        structure=STRUCTURE,
    )
    # As an earlier version wrote reports.
    del model["structure"]
    assert CleanEncoder.of(report).structure is None


def entry(**facts):
    return file_of(encoders=[clean().to_dict() | facts])


HOSTILE = {
    "no such file": (None, "no such file"),
    "empty": (b"", "Expecting value"),
    "no utf-8": (b"\xff\xfe", "decode"),
    "too large": (b" " * (MOST_BYTES + 1), "more than 10 MB"),
    "too many": (b"[" + b"[]," * 1_500_000 + b"[]]", "memory to parse"),
    "too deep": (b"[" * 100_000, "nested"),
    "a list": (b"[]", "schema"),
    "another schema": (file_of(schema="encodercheck.null/2"), "schema"),
    "more keys": (file_of(extra=1), "the file must be an object of schema, profile"),
    "nothing else": ({"schema": "encodercheck.null/1"}, "the file must be an object of"),
    "a profile that is a number": (file_of(profile=1), "profile is no printable text"),
    "a digest of nothing": (file_of(images_digest="a"), "images_digest is not 64 hexadecimal"),
    "control codes": (file_of(images="\x1b[31mred"), "images is no printable text"),
    "long": (file_of(images="x" * 1001), "images is no printable text"),
    "versions of numbers": (file_of(versions={"torch": 2}), "torch is no printable text"),
    "encoders by name": (file_of(encoders={}), "encoders no list"),
    "an encoder that is none": (file_of(encoders=[7]), "encoder 0 must be an object"),
    "the same encoder": (file_of(clean(), clean()), "twice"),
    "true pixels": (entry(image_size=True), "image_size"),
    "no pixels": (entry(image_size=0), "image_size"),
    "a short hash": (entry(sha256="abc"), "64 hexadecimal"),
    "no architecture": (entry(architecture=None), "architecture is no printable text"),
    "a short structure": (entry(structure="abc"), "structure is not 16 hexadecimal"),
    "no structure": (entry(structure=None), "structure is no printable text"),
    "a short sketch": (entry(sketch=[0.1]), "sketch is no list of 64 numbers"),
    "a sketch of nothing": (entry(sketch=[0.0] * 64), "sketch holds no numbers of length 1"),
    "a sketch that is too long": (entry(sketch=[2.0] * 64), "sketch holds no numbers of length 1"),
    "a sketch of text": (entry(sketch=["0.1"] * 64), "sketch is no finite number"),
    "more of an encoder": (entry(extra=1), "encoder 0 must be an object of"),
    "values in a list": (entry(values=[0.1]), "values is no object"),
    "text": (entry(values={"EC202.gain": "0.1"}), "EC202.gain is no finite number"),
    "true": (entry(values={"EC202.gain": True}), "EC202.gain is no finite number"),
    "NaN": (b'{"schema": NaN}', "NaN is not JSON"),
    "endless": (
        json.dumps(entry()).replace("0.3", "1e999").encode(),
        "EC202.gain is no finite number",
    ),
    "duplicate keys": (b'{"schema": 1, "schema": 2}', "schema"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_one_line(tmp_path: Path, name):
    content, says = HOSTILE[name]
    path = tmp_path / "null.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(ConfigError, match=r"null\.json: ") as caught:
        Nulls.read(path)
    line = str(caught.value)
    assert says.lower() in line.lower()
    assert "encodercheck calibrate" in line
    assert line.isprintable()


def test_a_folder_is_no_null(tmp_path):
    with pytest.raises(ConfigError, match="not a regular file"):
        Nulls.read(tmp_path)


def test_encoders_measured_as_the_scan_measures_go_first():
    def measured(number: int, profile: str) -> CleanEncoder:
        values = {"EC202.gain": number / 100}
        return CleanEncoder("arch", 32, "x", f"{number:064x}", values, profile=profile)

    standard = [measured(number, "standard") for number in range(10, 14)]
    quick = [measured(number, "quick") for number in range(20, 23)]
    known = Nulls(encoders=(*standard, *quick))
    find = partial(known.find, "EC202.gain", scale="gain", architecture="arch", image_size=32)
    assert find(profile="quick", images="procedural").values == (0.2, 0.21, 0.22)
    assert len(find(profile="standard", images="procedural").values) == 4
    assert len(find(profile="thorough", images="procedural").values) == 7
    assert "instead of thorough" in find(profile="thorough", images="procedural").source


@given(nulls(), st.floats(-1, 1), st.booleans())
def test_a_limit_that_was_set_by_hand_needs_no_clean_encoders(null, limit, known):
    fixed = replace(null, fixed=limit, values=null.values if known else ())
    assert fixed.limit == fixed.decides == limit
    fixed.require_support()
    fixed.require_verdict(limit)
    assert replace(fixed, required=False).decides is None


@given(nulls("shift"), st.floats())
def test_shifts_of_other_architectures_fail_nothing_and_pass_only_what_is_usual(null, value):
    other = replace(null, own=False)
    assert Measurement("m", 1e300, other.limit, Direction.AT_MOST).outcome is Outcome.PASSED
    if other.p_value(value) >= DOUBT:
        other.require_verdict(value)
    else:
        with pytest.raises(CheckInconclusive, match="encodercheck calibrate"):
            other.require_verdict(value)
