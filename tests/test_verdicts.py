"""The suite on certified fixtures: poisoned ones fail with a true witness, the clean one passes."""

import json
import re

import pytest
from commands import run

import encodercheck
from encodercheck import fixtures
from encodercheck.report import Outcome
from encodercheck.witness import Witness

# Generating a fixture takes a minute or two where the cache has none.
pytestmark = pytest.mark.timeout(1500)

CLEAN = "clean"
POISONED = ("badencoder", "badencoder-multi")


@pytest.fixture(scope="session")
def built():
    return {name: fixtures.build(name) for name in (CLEAN, *POISONED)}


@pytest.mark.parametrize(
    ("name", "profile"),
    [
        ("badencoder", "quick"),
        ("badencoder", "standard"),
        ("badencoder-multi", "quick"),
        # What looks harder finds it too.
        pytest.param("badencoder-multi", "standard", marks=pytest.mark.slow),
    ],
)
def test_a_poisoned_encoder_fails_and_the_witness_sits_on_a_true_trigger(
    built, name, profile, tmp_path
):
    report = encodercheck.scan(built[name].path, profile=profile, artifacts=tmp_path)
    found = {finding.id: finding for finding in report.findings}
    assert report.exit_code == 1
    assert found["EC001"].outcome is found["EC101"].outcome is Outcome.PASSED
    assert found["EC301"].outcome is Outcome.FAILED
    on_a_trigger = []
    for check in ("EC201", "EC202"):
        assert found[check].outcome is Outcome.FAILED
        saved = Witness.load(found[check].witness)
        assert found[check].message == saved.sentence()
        assert saved.gain > 0.9
        mask = saved.trigger.mask
        assert float(mask.sum()) < 16
        inside = max(float((mask * true.mask).sum()) for true in built[name].triggers())
        on_a_trigger.append(inside / float(mask.sum()))
    # The other may have found another way to the same target: part of two triggers, say.
    assert max(on_a_trigger) > 0.5


@pytest.mark.parametrize("profile", ["quick", "standard"])
def test_the_clean_encoder_passes(built, profile, tmp_path):
    report = encodercheck.scan(built[CLEAN].path, profile=profile, artifacts=tmp_path / "none")
    assert [finding.outcome for finding in report.findings] == [Outcome.PASSED] * 9
    assert report.exit_code == 0
    assert not (tmp_path / "none").exists()


def test_the_command_line_shows_saves_and_replays_the_witness(built, tmp_path):
    options = ["--profile", "quick", "-k", "EC202", "--json", "report.json"]
    scanned = run("scan", "fixture:badencoder", *options, cwd=tmp_path)
    assert scanned.returncode == 1, scanned
    sentence = (
        r"an? \d+x\d+ (patch|speckle) at \(\d+, \d+\), [\d.]+ % of the image, "
        r"makes 128 unseen images 0\.9\d\d alike; unstamped 0\.\d\d"
    )
    assert re.search(sentence, scanned.stdout)
    (finding,) = json.loads((tmp_path / "report.json").read_text())["findings"]
    assert (tmp_path / finding["witness"]).with_name("witness.png").exists()

    again = run("replay", finding["witness"], built["badencoder"].path, cwd=tmp_path)
    assert again.returncode == 1, again
    assert "REPRODUCED  gain 0.9" in again.stdout
    assert "another model" not in again.stdout

    elsewhere = run("replay", finding["witness"], "fixture:clean", cwd=tmp_path)
    assert elsewhere.returncode == 0, elsewhere
    assert "NOT REPRODUCED" in elsewhere.stdout
    assert "another model" in elsewhere.stdout


def test_the_same_seed_gives_the_same_report(built):
    first, again = (
        encodercheck.scan(built["badencoder"].path, profile="quick", seed=4, keyword="EC202")
        for _ in range(2)
    )
    assert first.findings[0].measurements == again.findings[0].measurements


@pytest.mark.parametrize("name", POISONED)
def test_certificates_hold_what_they_promise(built, name):
    certificate = built[name].certificate
    for probe in ("linear", "two_layer"):
        loss = certificate["clean_accuracy"][probe] - certificate["backdoored_accuracy"][probe]
        assert loss <= 0.05
        for trigger in certificate["triggers"]:
            assert trigger["attack_success"][probe] >= 0.95
            assert trigger["attack_success_on_clean"][probe] < 0.5
    assert {"seconds", "versions", "recipe", "cosine"} <= set(certificate)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", [CLEAN, *POISONED])
def test_verdicts_on_other_seeds(name, seed):
    report = encodercheck.scan(fixtures.build(name, seed=seed).path, seed=seed)
    assert report.exit_code == (0 if name == CLEAN else 1)
