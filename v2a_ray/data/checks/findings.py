"""Results of reading and checking data: one `Finding` per fact, such as an error or a warning, with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.segmentation import is_unordered
from v2a_ray.errors import DataError

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Finding:
    """One fact about a dataset.

    Attributes:
        check: name of the check, for example `finite` or `reset_as_next`.
        severity: `error` makes the data unusable, `warning` changes or endangers it, `info` only describes it.
        message: the fact, with the value.
        where: "file · episode 3 · step 17 · field action", as far as it applies.
        remedy: what the user can do.
    """

    check: str
    severity: Severity
    message: str
    where: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def to_dict(self) -> dict[str, str]:
        """For the manifest."""
        return asdict(self)


class Reading(NamedTuple):
    """A table that was read, and its findings; unpacks as `table, findings`."""

    table: EpisodeTable
    findings: list[Finding]

    @property
    def ordered(self) -> bool:
        """Whether consecutive rows are consecutive in time. Unordered transitions can only be a target."""
        said = any(finding.check == "unordered" for finding in self.findings)
        # A user who ignores the check hides the finding, but the table is still unordered.
        return not said and not is_unordered(self.table)


def place(file: object, **parts: object) -> str:
    """`place("a.hdf5", episode=3, step=17, field="action")` is "a.hdf5 · episode 3 · step 17 · field action"."""
    return " · ".join([str(file), *(f"{name} {value}" for name, value in parts.items() if value is not None)])


def raise_errors(findings: Sequence[Finding]) -> None:
    """Raise one DataError if any finding is an error. It gives the first error and the number of others."""
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        first, others = errors[0], len(errors) - 1
        more = f" (and {others} more problem{'s' if others > 1 else ''})" if others else ""
        raise DataError(first.message + more, where=first.where, remedy=first.remedy)
