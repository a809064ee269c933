"""The pytest fixtures that checks ask for. None of them lets a check spoil the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol, SupportsFloat

import pytest

from encodercheck.errors import CheckInconclusive
from encodercheck.harness import exhibiting
from encodercheck.harness.artifacts import Artifacts
from encodercheck.harness.identity import base_id
from encodercheck.harness.measure import Measure
from encodercheck.harness.record import RECORD, CheckRecord
from encodercheck.harness.state import SCAN, Scan
from encodercheck.methods.null import SCALES, Null

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from encodercheck.encoder import Encoder
    from encodercheck.images.split import CleanSplit
    from encodercheck.methods.battery import Hit
    from encodercheck.methods.collapse import Clean
    from encodercheck.methods.dede import Dede
    from encodercheck.methods.inversion import Inversion
    from encodercheck.profiles import Profile
    from encodercheck.progress import Progress
    from encodercheck.trigger import Trigger


class FindNull(Protocol):
    """What the fixture ``null`` is: find what clean encoders measured under a name."""

    def __call__(self, name: str, *, scale: str = "gain") -> Null:
        """Return the null of what this check measures as ``name``."""


class Compare(Protocol):
    """What the fixture ``compare`` is: measure a value against those of clean encoders."""

    def __call__(self, name: str, value: SupportsFloat, *, scale: str = "gain") -> bool:
        """Record ``value`` and its p-value; return whether it is usual for a clean encoder."""


class CompareCollapse(Protocol):
    """What the fixture ``compare_collapse`` is: compare the gains of a trigger."""

    def __call__(
        self,
        encoder: Encoder,
        found: Trigger | Inversion,
        *,
        joint: bool = False,
        half_contrast: bool = False,
        whitened: bool = False,
    ) -> bool:
        """Record cosines, gains and p-values; return whether they are usual for a clean encoder.

        What is compared is the gain, or, where ``joint``, the smaller of it and the gain on
        whitened axes; with ``half_contrast``, the gain of the same trigger at half its contrast as
        well, which a backdoor's keeps and an adversarial patch loses; with ``whitened``, the gain
        on whitened axes by itself, which no channel that outweighs all others can keep from rising.
        """


def _scan(request: pytest.FixtureRequest) -> Scan:
    return request.config.stash[SCAN]


def _record(request: pytest.FixtureRequest) -> CheckRecord:
    record: CheckRecord | None = request.node.stash.get(RECORD, None)
    if record is None:
        pytest.fail(
            f"{request.fixturename!r} is a fixture of encodercheck: only checks can use it, "
            "functions called check_* in files called check_*.py"
        )
    return record


@pytest.fixture
def encoder(request: pytest.FixtureRequest) -> Encoder:
    """The encoder under test, to do with as you like: call it on images (N, 3, H, W) in [0, 1]."""
    return _scan(request).lender.lend()


@pytest.fixture
def images(request: pytest.FixtureRequest) -> Tensor:
    """Clean images (N, 3, H, W) in [0, 1] that no trigger was searched on."""
    return _scan(request).state.images.held_out_images()


@pytest.fixture
def clean_split(request: pytest.FixtureRequest) -> CleanSplit:
    """Clean images, ``.search`` to look for triggers on and ``.held_out`` to score them on."""
    return _scan(request).state.images.split()


@pytest.fixture
def clean(request: pytest.FixtureRequest) -> Clean:
    """How the encoder embeds the held-out images: what stamped ones are held against; once."""
    scan = _scan(request)
    return scan.clean(scan.progress_of(_record(request).info))


@pytest.fixture
def battery_hits(request: pytest.FixtureRequest) -> tuple[Hit, ...]:
    """The battery's triggers by what they do to a few search images, best first; once per scan."""
    scan = _scan(request)
    return scan.battery(scan.progress_of(_record(request).info))


@pytest.fixture
def inversion(request: pytest.FixtureRequest) -> Inversion:
    """All that budget inversion found; computed once per scan."""
    scan = _scan(request)
    return scan.inversion(scan.progress_of(_record(request).info))


@pytest.fixture
def trigger(inversion: Inversion) -> Trigger:
    """The trigger within 3 % of the image that makes embeddings most alike; once per scan."""
    return inversion.trigger


@pytest.fixture
def suspects(
    request: pytest.FixtureRequest, battery_hits: tuple[Hit, ...]
) -> Iterator[list[Trigger]]:
    """The triggers that were found: the battery's best and, given gradients, ``trigger``."""
    found = [battery_hits[0].trigger]
    if _scan(request).state.encoder.differentiable:
        found.append(request.getfixturevalue("trigger"))
    # The check may do to its own list what it likes.
    yield [*found]
    scan = _scan(request)
    if "dede" in request.fixturenames and scan.dede.known is not None:
        exhibiting.reconstructions(_record(request), scan.state, scan.dede.known, found)


@pytest.fixture
def dede(request: pytest.FixtureRequest) -> Dede:
    """A decoder that has learnt to reconstruct clean images from embeddings; once per scan."""
    scan = _scan(request)
    return scan.dede(scan.progress_of(_record(request).info))


@pytest.fixture
def measure(request: pytest.FixtureRequest) -> Measure:
    """Record a value: ``measure(name, value, at_least=..., at_most=...)``."""
    return Measure(_record(request), _scan(request).state.limits)


@pytest.fixture
def null(request: pytest.FixtureRequest) -> FindNull:
    """What clean encoders measured in this check: ``null("gain").limit``, ``.p_value(value)``."""
    scan, check = _scan(request), base_id(_record(request).info)

    def find(name: str, *, scale: str = "gain") -> Null:
        return scan.null(f"{check}.{name}", scale=scale)

    return find


@pytest.fixture
def compare(request: pytest.FixtureRequest, null: FindNull, measure: Measure) -> Compare:
    """Measure a value against clean encoders: ``compare("gain", value)``, False where it fails.

    Records the p-value as well, and ends the check inconclusively where they support no verdict.
    """

    record = _record(request)

    def against_clean(name: str, value: SupportsFloat, *, scale: str = "gain") -> bool:
        number = float(value)
        clean = null(name, scale=scale)
        if not clean.judges:
            # Encoders of other kinds say nothing of it: for information only.
            return measure(name, number)
        exhibiting.comparison(record, name, number, clean)
        known = any(measurement.name == "p_value" for measurement in record.measurements)
        measure(f"{name}_p_value" if known else "p_value", clean.p_value(number))
        if clean.prediction is not None:
            measure(f"{name}_predicted_p_value", clean.prediction.p_value(number))
        clean.require_support()
        upward = SCALES[scale].harmless > 0
        limit = {"at_most": clean.limit} if upward else {"at_least": clean.limit}
        within = measure(name, number, **({} if clean.only_doubts else limit))
        if within:
            clean.require_verdict(number)
        return within

    return against_clean


@pytest.fixture
def compare_collapse(
    request: pytest.FixtureRequest,
    clean_split: CleanSplit,
    clean: Clean,
    null: FindNull,
    measure: Measure,
    compare: Compare,
) -> CompareCollapse:
    """Measure how alike a trigger makes held-out images: False where that is unusual.

    A gain is for information where no value could fail, since clean encoders of these traits reach
    the largest; unless that holds for every gain.
    Given what a search found, its best trigger is measured, and beside it the evidence of
    :mod:`encodercheck.methods.evidence`.
    """
    from encodercheck.methods import collapse, evidence
    from encodercheck.methods.inversion import Inversion

    scan = _scan(request)

    def against_clean(
        encoder: Encoder,
        found: Trigger | Inversion,
        *,
        joint: bool = False,
        half_contrast: bool = False,
        whitened: bool = False,
    ) -> bool:
        encoder = encoder.folded()
        search = found if isinstance(found, Inversion) else None
        trigger = found.trigger if isinstance(found, Inversion) else found
        unseen = clean_split.held_out
        under = collapse.under(encoder, trigger, unseen, clean)
        measure("stamped_cosine", under.cosine)
        measure("unstamped_cosine", under.base)
        if search is not None:
            measure("elsewhere", evidence.elsewhere(search))
            measure("middle", evidence.middle(search))
        if search is not None and scan.state.profile.informs:
            seed = scan.state.seed
            mean, most = evidence.same_size(encoder, unseen, clean, trigger, seed=seed)
            measure("random_mean", mean)
            measure("random_max", most)
        if joint:
            measure("raw_gain", under.gain)
        values = {"gain": under.joint_gain if joint else under.gain}
        if half_contrast:
            faint = trigger.at_contrast(collapse.HALF_CONTRAST)
            values["half_contrast_gain"] = collapse.under(encoder, faint, unseen, clean).gain
        if whitened:
            values["whitened_gain"] = under.whitened_gain
        else:
            measure("whitened_gain", under.whitened_gain)
        decisive = [name for name in values if null(name).decisive] or [*values]
        judged = []
        for name, value in values.items():
            if name in decisive:
                judged.append(partial(compare, name, value))
            else:
                measure(name, value)
        return _all(judged)

    return against_clean


def _all(comparisons: Sequence[Callable[[], bool]]) -> bool:
    """Make every comparison, also after one that is inconclusive; return whether all are usual.

    Raises:
        CheckInconclusive: none failed, and one could not decide.
    """
    within, doubt = True, None
    for comparison in comparisons:
        try:
            within &= comparison()
        except CheckInconclusive as error:
            doubt = doubt or error
    if within and doubt is not None:
        raise doubt
    return within


@pytest.fixture
def artifacts(request: pytest.FixtureRequest) -> Iterator[Artifacts]:
    """Keep a witness, or files of the check's own in ``artifacts.directory``."""
    own = Artifacts(_record(request), _scan(request).state)
    yield own
    own.clean()


@pytest.fixture
def progress(request: pytest.FixtureRequest) -> Progress:
    """Report how far the check is: ``progress(step, total, note)``."""
    return _scan(request).progress_of(_record(request).info)


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> Profile:
    """How hard to look: counts of images, restarts and steps."""
    return _scan(request).state.profile


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of the scan. The global generators are already seeded, check by check."""
    return _scan(request).state.seed


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """Where the encoder computes."""
    return _scan(request).state.device
