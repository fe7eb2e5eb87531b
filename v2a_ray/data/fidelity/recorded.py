"""Which domain was a dataset recorded in? Re-simulate it in the claimed domain, in stock, and in modern physics.

If the claimed domain does not reproduce a file, every named domain of the robot is tried. This finds mislabelled files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from v2a_ray.data.fidelity.resimulation import FidelityReport, check_dimensions, resimulate
from v2a_ray.data.formats.known_formats import detect_format
from v2a_ray.data.formats.readers import read_table
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains.base import Domain
from v2a_ray.domains.domain import PHYSICS, RobotDomain, catalogue, parse_domain, require_robot
from v2a_ray.domains.file_names import domain_of_file_name
from v2a_ray.domains.robot_spec import all_robots
from v2a_ray.errors import DomainError
from v2a_ray.settings.environment_names import is_environment

# L-infinity error of rows recorded in float32: the right domain has a median of 1e-7 to 1e-6, a wrong one above 1e-3.
REPRODUCED = 1e-5
# A 95th percentile above this means that a part of the rows comes from another domain.
FOREIGN_ROWS = 1e-3
SEARCH_ROWS = 200
UNLABELLED = "unknown"
LABELLED_FORMAT = "parquet"


@dataclass(frozen=True)
class Recording:
    """Transitions with the one domain that they claim.

    Attributes:
        file: the file that was read.
        domain: from the caller, the labels or the file's name.
        table: the transitions.
    """

    file: Path
    domain: Domain
    table: EpisodeTable


@dataclass(frozen=True)
class Comparison:
    """The same rows re-simulated in several domains.

    Attributes:
        file: the file that was read.
        claimed: in the domain that the recording claims.
        stock: in the stock robot of the same physics.
        modern: in the claimed domain with modern physics.
        nearest: if `claimed` does not reproduce the rows, the named domain that predicts a sample of them best.
    """

    file: Path
    claimed: FidelityReport
    stock: FidelityReport
    modern: FidelityReport
    nearest: FidelityReport | None

    @property
    def is_right(self) -> bool:
        """Whether the claimed domain reproduces the median row and its rewards."""
        return self.claimed.median_error < REPRODUCED and not self.claimed.reward_problem

    @cached_property
    def verdict(self) -> str:
        """In words: whether the rows were recorded in the claimed domain, and if not, in which."""
        if self.claimed.median_error < REPRODUCED:
            most = "most rows recorded in this domain, not all" if self.claimed.p95_error > FOREIGN_ROWS else ""
            if self.claimed.reward_problem:
                return f"{most or 'steps recorded in this domain'}; {self.claimed.reward_problem}"
            both = self.stock.median_error < REPRODUCED and self.stock.domain != self.claimed.domain
            return most or "recorded in this domain" + (", stock reproduces it too" if both else "")
        assert self.nearest is not None
        if self.nearest.median_error < REPRODUCED:
            return f"not this domain: recorded in {self.nearest.domain}"
        return f"no named domain reproduces it; nearest is {self.nearest.domain} ({self.nearest.median_error:.0e})"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: the claimed domain's numbers at the top level, the others under their names."""
        others = {name: getattr(self, name) for name in ("stock", "modern", "nearest")}
        return {
            "file": str(self.file),
            **self.claimed.to_dict(),
            **{name: report and report.to_dict() for name, report in others.items()},
            "verdict": self.verdict,
        }


def check_names(paths: Sequence[Path]) -> None:
    """Raise, before reading anything, the error that `recordings` without a domain would raise because of a name.

    Only episode tables carry labels; the name of every other file must contain its domain.
    """
    for path in paths:
        if detect_format(path).name != LABELLED_FORMAT:
            _named_domain(path)


def recordings(path: Path, domain: Domain | None = None) -> Iterator[Recording]:
    """The transitions of a file or folder, as one recording per domain.

    The domain is `domain` if given, else each episode's label, else the domain in the file's name. Raises DomainError
    if the domain is unknown or the dimensions fit another robot, DataError if the data cannot be read.
    """
    table, _ = read_table(path)
    labels = np.asarray([UNLABELLED] * table.num_episodes if domain else table.domain)
    for label in dict.fromkeys(labels.tolist()):
        if domain:
            claimed = domain
        elif label != UNLABELLED:
            claimed = labelled_domain(label)
        else:
            claimed = _with_width(_named_domain(path), table)
        check_dimensions(table, claimed, str(path))
        whole = len(set(labels.tolist())) == 1
        yield Recording(path, claimed, table if whole else table.select(np.flatnonzero(labels == label)))


def compare(recording: Recording, max_rows: int | None = None) -> Comparison:
    """Re-simulate the recording's rows, or `max_rows` spread over them, in every domain that `Comparison` has."""
    domain, table = require_robot(recording.domain, "re-simulation"), recording.table
    stock, modern = domain.stock, replace(domain, physics="modern")
    reports = {each: resimulate(table, each, max_rows) for each in dict.fromkeys((domain, stock, modern))}
    claimed = reports[domain]
    nearest = None if claimed.median_error < REPRODUCED else nearest_domain(table)
    return Comparison(recording.file, claimed, reports[stock], reports[modern], nearest)


def nearest_domain(table: EpisodeTable, max_rows: int = SEARCH_ROWS) -> FidelityReport:
    """The named domain that predicts the table's rows best, among robots of its dimensions in either physics.

    Domains with action noise are left out, because they cannot be re-simulated.
    """
    widths = (table.observation_dim, table.action_dim)
    robots = [spec.name for spec in all_robots().values() if (spec.observation_dim, spec.action_dim) == widths]
    candidates = [domain for robot in robots for physics in PHYSICS for domain in catalogue(robot, physics)]
    reports = [resimulate(table, domain, max_rows) for domain in candidates if not domain.execution.noise_std]
    return min(reports, key=lambda report: report.median_error)


def labelled_domain(label: str) -> Domain:
    """The domain that data say they are of. Raises DomainError for none of ours.

    The name of anybody's environment is not followed: it would import what a file names, not what a user does.
    """
    if is_environment(label):
        raise DomainError(
            "data name an environment of their own", where=label, remedy=f"if you trust it: --domain {label}"
        )
    return parse_domain(label)


def _named_domain(path: Path) -> Domain:
    """The domain in the file's name. Raises DomainError if there is none."""
    domain = domain_of_file_name(path)
    if domain is None:
        raise DomainError(
            "the name does not tell the domain that the data were recorded in",
            where=str(path),
            remedy="--domain, for example --domain hopper/gravity-0.5@d4rl",
        )
    return domain


def _with_width(domain: Domain, table: EpisodeTable) -> Domain:
    """The domain for the variant of its robot whose observations are as wide as the data's, if there is one."""
    widths = (table.observation_dim, table.action_dim)
    for spec in all_robots().values():
        if (
            isinstance(domain, RobotDomain)
            and domain.robot in (spec.name, spec.variant_of)
            and (spec.observation_dim, spec.action_dim) == widths
        ):
            return replace(domain, robot=spec.name)
    return domain
