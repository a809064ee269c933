"""What a scan works on, and what its checks share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from encodercheck.bank import Bank
from encodercheck.errors import CheckInconclusive, EncoderCheckError, ImagesError, LoadError
from encodercheck.harness.isolation import isolated
from encodercheck.harness.listener import SILENT, CheckInfo, Listener
from encodercheck.harness.once import Once
from encodercheck.harness.outcome import describe, first_line
from encodercheck.methods.null import SCALES, Null
from encodercheck.nulls import Nulls, Traits
from encodercheck.progress import silent
from encodercheck.report import Direction

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from encodercheck.encoder import Encoder
    from encodercheck.images.source import Further
    from encodercheck.images.split import CleanImages
    from encodercheck.methods.battery import Hit
    from encodercheck.methods.collapse import Clean
    from encodercheck.methods.dede import Dede
    from encodercheck.methods.inversion import Inversion
    from encodercheck.profiles import Profile
    from encodercheck.progress import Progress


# The measurement that the shared inversion is for.
DECIDES = "EC202.gain"
# The part of unstamped images that counts as drifted: what a trigger's drift is compared with.
DRIFT_RATE = 0.03


@dataclass
class ScanState:
    """The encoder, the images and the settings of one scan.

    ``images`` are on the CPU; ``image_set`` says where they come from, for the report. ``limits``
    replaces the limits written in checks: ``{"EC201.pl1": 0.05}``. ``restore`` returns the weights
    as they were when the encoder was loaded, by name; without it every check gets a copy of the
    encoder. ``nulls`` are the clean encoders to compare with; while ``calibrating``, a check that
    lacks them measures all the same, and searches go to their end; unless they are ``stopping`` as
    in a scan, for checks that measure what a scan's search ends with. ``further`` are clean images
    beside ``images``, to train a decoder on.
    """

    encoder: Encoder
    images: CleanImages
    seed: int
    profile: Profile
    artifacts_dir: Path | None = None
    image_set: dict[str, Any] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    restore: Callable[[], Mapping[str, Tensor]] | None = None
    nulls: Nulls = field(default_factory=Nulls.shipped)
    bank: Bank = field(default_factory=Bank.shipped)
    calibrating: bool = False
    stopping: bool = False
    further: Further | None = None
    traits: Mapping[str, float] = field(default_factory=dict)
    """The encoder's traits, once a check has asked for a reference that is predicted from them."""
    second: ScanState | None = None
    """The same model read otherwise than its own file claims, to be scanned as well."""
    read_with: str = ""
    """The options that read it so, of a ``second``."""

    @property
    def device(self) -> torch.device:
        """Where the encoder computes."""
        return self.encoder.device

    def null(self, key: str, *, scale: str, traits: Traits | None = None) -> Null:
        """Return what clean encoders measured under ``key``, as ``EC202.gain``.

        ``traits`` returns those of the encoder, see :meth:`Scan.traits`.

        Raises:
            ValueError: there is no such scale.
        """
        found = self._found(key, scale, traits)
        side = Direction.AT_MOST if SCALES[scale].harmless > 0 else Direction.AT_LEAST
        fixed = self.limits.get(f"{key}.{side}", self.limits.get(key))
        return replace(found, required=not self.calibrating, fixed=fixed)

    def _found(self, key: str, scale: str, traits: Traits | None) -> Null:
        """Return the values of the encoder's own architecture, and what the bank predicts."""
        own = self.nulls.find(
            key,
            scale=scale,
            architecture=self.encoder.provenance.architecture,
            image_size=self.encoder.image_size,
            structure=self.encoder.structure,
            profile=self.profile.name,
            images=self.image_set.get("source"),
            images_digest=self.image_set.get("digest"),
        )
        if traits is None or key not in self.bank.values:
            return own
        predicted = self.bank.null(key, traits())
        return replace(own, prediction=predicted) if own.own and own.supported else predicted

    @property
    def compared_with(self) -> str:
        """Which clean encoders trigger inversion is judged by, in words."""
        null = self.null(DECIDES, scale="gain")
        return null.source if null.own and null.supported else self.bank.describe()


class Lender:
    """Lends the encoder to one check after another, and keeps its weights as they are.

    A copy for each check would be a second set of weights in memory. A lent encoder shares them;
    what a check writes into them in place is found when it has ended, and undone.
    """

    def __init__(self, state: ScanState) -> None:
        self._state = state
        self._fingerprint: dict[str, tuple[int, ...]] | None = None
        self._damage = ""
        self.lent = False
        """Whether the encoder was lent since the weights were last looked at."""

    def lend(self) -> Encoder:
        """Return an encoder for one check, which may do to it what it likes.

        Raises:
            LoadError: an earlier check wrote into the weights, and that cannot be undone.
        """
        if self._damage:
            raise LoadError(self._damage)
        encoder = self._state.encoder
        if self._state.restore is None:
            return encoder.copy()
        if self._fingerprint is None:
            self._fingerprint = encoder.fingerprint()
        self.lent = True
        return encoder.lend()

    @contextmanager
    def unspoiled(self) -> Iterator[Encoder]:
        """Yield an encoder for what checks share: as loaded, whatever this check did to its own."""
        changed = self._changed()
        encoder = self.lend()
        if changed:
            encoder = encoder.copy()
            self._rewrite(encoder, changed)
        yield encoder
        if not changed:
            self.take_back("what checks share")

    def take_back(self, borrower: str) -> None:
        """Put back what ``borrower``, which has ended, changed of the weights.

        Where that cannot be done no check gets the encoder any more: this never raises, because the
        outcome of ``borrower`` itself stands.
        """
        self.lent = False
        if self._damage:
            return
        try:
            changed = self._changed()
            if changed:
                self._rewrite(self._state.encoder, changed)
                if self._changed():
                    raise LoadError("the model file has changed")
        except Exception as error:
            reason = first_line(error) if isinstance(error, EncoderCheckError) else describe(error)
            self._damage = (
                f"{borrower} wrote into the weights, and they cannot be put back: {reason}; "
                "let it write into an encoder.copy()"
            )

    def _changed(self) -> list[str]:
        """Return the names of the weights that are not what they were when first lent."""
        if self._fingerprint is None:
            return []
        now = self._state.encoder.fingerprint()
        return [name for name, numbers in self._fingerprint.items() if now[name] != numbers]

    def _rewrite(self, encoder: Encoder, names: list[str]) -> None:
        assert self._state.restore is not None  # or nothing shared would have been lent
        weights = self._state.restore()
        encoder.rewrite({name: weights[name] for name in names})


class Scan:
    """A scan under way: its state, who watches it, and what its checks compute only once."""

    def __init__(self, state: ScanState, listener: Listener = SILENT) -> None:
        self.state = state
        self.listener = listener
        self.lender = Lender(state)
        self.traits = Once(self._look)
        """How the encoder embeds clean images, see :mod:`encodercheck.methods.traits`."""
        self.clean = Once(self._measure_clean)
        """How the encoder embeds the held-out images, with axes fitted on the search images."""
        self.battery = Once(self._sift)
        """The battery's triggers by what they do to a few search images, best first."""
        self.inversion = Once(self._invert)
        """What budget inversion found."""
        self.dede = Once(self._learn)
        """A decoder that has learnt to reconstruct clean images from their embeddings."""

    def progress_of(self, info: CheckInfo) -> Progress:
        """Return a progress function that tells the listener how far the check is."""

        def progress(step: int, total: int, note: str = "") -> None:
            self.listener.progress(info, step, total, note)

        return progress

    def null(self, key: str, *, scale: str) -> Null:
        """Return what clean encoders like this one measured under ``key``, as ``EC202.gain``.

        Raises:
            ValueError: there is no such scale.
        """
        return self.state.null(key, scale=scale, traits=partial(self.traits, silent))

    def _look(self, progress: Progress) -> Mapping[str, float]:
        from encodercheck.methods.traits import traits

        state = self.state
        with self.lender.unspoiled() as encoder, isolated(state.seed, "traits"):
            state.traits = traits(encoder, state.images.split(), seed=state.seed)
        return state.traits

    def _measure_clean(self, progress: Progress) -> Clean:
        from encodercheck.methods.collapse import Clean

        split = self.state.images.split()
        with self.lender.unspoiled() as encoder, isolated(self.state.seed, "clean"):
            return Clean.of(encoder.folded(), split.held_out, fitted_on=split.search)

    def _sift(self, progress: Progress) -> tuple[Hit, ...]:
        from encodercheck.methods.inversion import sift

        state, images = self.state, self.state.images.search_images()
        with self.lender.unspoiled() as encoder, isolated(state.seed, "battery"):
            return tuple(sift(encoder, images, state.profile, seed=state.seed, progress=progress))

    def _invert(self, progress: Progress) -> Inversion:
        from encodercheck.methods.collapse import require_gradients
        from encodercheck.methods.inversion import invert

        require_gradients(self.state.encoder)
        state, hits = self.state, self.battery(progress)
        null = self.null(DECIDES, scale="gain")
        # Under its own random numbers, so that it does not matter which check asks first.
        with self.lender.unspoiled() as encoder, isolated(state.seed, "inversion"):
            return invert(
                encoder,
                state.images.search_images(),
                hits=hits,
                profile=state.profile,
                seed=state.seed,
                limit=(replace(null, required=True) if state.stopping else null).decides,
                progress=progress,
            )

    def _learn(self, progress: Progress) -> Dede:
        from encodercheck import decoder_cache
        from encodercheck.images.source import Further
        from encodercheck.methods.dede import FEWEST_CLEAN, Settings

        state = self.state
        further = state.further or Further(
            None, state.profile.decoder_images, state.encoder.image_size, state.seed
        )
        with self.lender.unspoiled() as encoder, isolated(state.seed, "dede"):
            try:
                further.require(FEWEST_CLEAN)
                settings = Settings(seed=state.seed)
                return decoder_cache.fit(
                    encoder, further, settings, rate=DRIFT_RATE, progress=progress
                )
            # Files that cannot be read leave fewer images than there are files.
            except (ImagesError, ValueError) as error:
                raise CheckInconclusive(str(error)) from error


SCAN = pytest.StashKey[Scan]()
"""Where a pytest configuration keeps the scan that it runs for."""
