"""The results in an output folder with their reports, which are read one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from encodercheck.errors import ConfigError
from encodercheck.report import Report
from encodercheck.weights.header import located, quoted
from encodercheck.zoo import results
from encodercheck.zoo.results import Entry


@dataclass(frozen=True)
class Result:
    """What an output folder says of a model."""

    folder: Path
    entry: Entry

    @property
    def model(self) -> str:
        """What the user called it."""
        return self.entry.model

    @property
    def file(self) -> Path:
        """Where its report is."""
        return self.folder / self.entry.report

    def report(self) -> Report:
        """Read the report.

        Raises:
            ConfigError: it is missing, damaged, or says otherwise than the ledger.
        """
        values = results.report(self.folder, self.entry)
        try:
            report = Report.from_dict(values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"lacks {error}" if isinstance(error, KeyError) else error
            raise self._damaged(f"no usable report ({quoted(reason, limit=200)})") from error
        if report.exit_code != self.entry.exit_code:
            raise self._damaged(
                f"ends with {report.exit_code}, in the ledger with {self.entry.exit_code}"
            )
        return report

    def _damaged(self, fault: str) -> ConfigError:
        return ConfigError(f"{located(self.file)}: {fault}; scan its model again")


def of(folder: Path) -> list[Result]:
    """Return the latest result of each model, by the names of the models.

    Raises:
        ConfigError: the folder has no ledger that can be read, or there is no result in it.
    """
    found = [Result(folder, entry) for entry in results.read(folder)]
    if not found:
        raise ConfigError(f"{located(folder)}: there is no result in it yet; scan some models")
    return found


def readable(result: Result, faults: list[str]) -> Report:
    """Return the report; where it cannot be read note the fault, and return a report of it.

    One damaged file is no reason to say nothing of all the others, nor to leave it out in silence.
    """
    try:
        return result.report()
    except ConfigError as error:
        faults.append(str(error))
        return Report.unreadable(result.model, str(error))
