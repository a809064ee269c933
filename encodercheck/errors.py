"""Every error encodercheck raises on purpose.

::

    EncoderCheckError             one line for the user; the CLI prints it and exits 2
    ├── LoadError                 the model file or folder cannot be read as an image encoder
    │   ├── UnknownArchitecture   readable weights, but no architecture fits them
    │   └── AmbiguousArchitecture several architectures fit and compute different features
    ├── ImagesError               the images cannot be read, or are too few
    ├── WitnessError              a witness file cannot be read, or does not fit the model
    ├── FixtureError              an unknown fixture, or a recipe that failed its certificate
    ├── OutputError               a report or artifact cannot be written
    └── ConfigError               bad usage: an option, a check path, a check pack
    CheckFailed (AssertionError)  a check measured something beyond its limit
    CheckInconclusive             a check could not decide, and says what it needs

The message of an :class:`EncoderCheckError` names the file, the fault and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable


class EncoderCheckError(Exception):
    """Base of everything that is the user's to mend; shown as one line, never as a traceback."""


class LoadError(EncoderCheckError):
    """The model cannot be read as an image encoder."""


class UnknownArchitecture(LoadError):  # noqa: N818 - reads as the outcome it is
    """The weights are readable, but no known architecture fits them."""


class AmbiguousArchitecture(LoadError):  # noqa: N818
    """Several architectures fit the weights and compute different features.

    ``candidates`` are what can be passed as ``--arch`` to settle it, the likeliest first; there are
    none where a file holds several encoders.
    """

    candidates: tuple[str, ...] = ()

    @classmethod
    def among(cls, what: str, candidates: Iterable[str]) -> AmbiguousArchitecture:
        """Return the error that names the candidates and the option that settles it."""
        named = tuple(candidates)
        error = cls(
            f"{what}; say which architecture it is: "
            f"{' or '.join(f'--arch {candidate}' for candidate in named)}"
        )
        error.candidates = named
        return error


class ImagesError(EncoderCheckError):
    """The images cannot be read, or there are too few of them."""


class WitnessError(EncoderCheckError):
    """A witness file cannot be read, or does not fit the model it is replayed on."""


class FixtureError(EncoderCheckError):
    """A fixture is unknown, or its recipe failed the certificate and was refused."""


class OutputError(EncoderCheckError):
    """A report or an artifact cannot be written."""


class ConfigError(EncoderCheckError):
    """Bad usage: an option, a check path or a check pack that cannot work."""


class CheckFailed(AssertionError):  # noqa: N818
    """A check measured a value beyond its limit."""


class CheckInconclusive(Exception):  # noqa: N818
    """A check could not decide; the message says what it would need."""
