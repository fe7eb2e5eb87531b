"""Summaries of a dataset's sources as plain values. `v2a_ray.report.datasets` shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks import Severities, check_sources, regrade
from v2a_ray.data.checks.findings import Finding
from v2a_ray.data.config import Columns
from v2a_ray.data.fidelity.recorded import labelled_domain
from v2a_ray.data.formats.readers import examine_table
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains import Domain
from v2a_ray.domains.file_names import domain_of_file_name
from v2a_ray.errors import DomainError
from v2a_ray.settings.behavior_names import behavior_of_name

UNLABELLED = "unknown"
QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True)
class SourceSummary:
    """One source of a table.

    Attributes:
        source, domain, behavior: labels; several domains or behaviours are joined by a comma.
        num_episodes, num_transitions: counts.
        num_terminated: episodes that ended in a terminal state; the others were truncated.
        lengths: (E,) steps per episode.
        returns: (E,) undiscounted return per episode.
        observation_range, action_range: (O, 2) and (A, 2), smallest and largest finite value of each feature.
        observation_quantiles, action_quantiles: (O, 3) and (A, 3), the 5th, 50th and 95th percentile.
    """

    source: str
    domain: str
    behavior: str
    num_episodes: int
    num_transitions: int
    num_terminated: int
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    observation_range: NDArray[np.float32]
    action_range: NDArray[np.float32]
    observation_quantiles: NDArray[np.float32]
    action_quantiles: NDArray[np.float32]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(self).items()}


@dataclass(frozen=True)
class Inspection:
    """Datasets that were inspected together.

    Attributes:
        sources: one summary per source of every dataset.
        findings: of each dataset alone, then between them.
        assumed: name of a dataset to the domain that the checks assumed, if it was given or found.
    """

    sources: Sequence[SourceSummary]
    findings: Sequence[Finding]
    assumed: Mapping[str, str]

    @property
    def has_errors(self) -> bool:
        return any(finding.severity == "error" for finding in self.findings)


def inspect_datasets(
    paths: Sequence[str],
    *,
    domain: Domain | None = None,
    format: str | None = None,
    checks: Severities | None = None,
    columns: Columns | None = None,
) -> Inspection:
    """Read datasets, check each, and check them against each other.

    Args:
        columns: which columns make up a transition, of formats that let the user say.
        domain: of all datasets; by default each dataset's labels decide, or else its name.
        format: of all datasets; by default detected from the content.
        checks: severities that differ from the default.

    Raises DataError for data that cannot be read as a table. Wrong values are among the findings.
    """
    names = unique_names(paths)
    tables, domains, findings = {}, {}, []
    summaries: list[SourceSummary] = []
    for path, name in zip(paths, names, strict=True):
        told = domain or domain_of_file_name(Path(path))
        robot = told.robot_spec if told else None
        reading = examine_table(path, robot=robot, format=format, checks=checks, columns=columns)
        table = reading.table
        labelled = _labelled_domain(table)
        if domain is None and labelled is not None and labelled != told:
            # Only the labels name the robot, and they are known after reading.
            told = labelled
            reading = examine_table(path, robot=told.robot_spec, format=format, checks=checks, columns=columns)
        tables[name] = table
        if told is not None:
            domains[name] = told
        findings += reading.findings
        summaries += summarize(_described(table, name, told, path))
    usable = {name: table for name, table in tables.items() if _is_finite(table)}
    between = check_sources(usable, {name: each for name, each in domains.items() if name in usable})
    return Inspection(
        summaries,
        [*findings, *regrade(between, checks or {})],
        {name: each.name for name, each in domains.items()},
    )


def unique_names(paths: Sequence[str]) -> list[str]:
    """A name per dataset: its file's name, or its whole path if two files have the same name."""
    stems = [_stem(path) for path in paths]
    names = [stem if stems.count(stem) == 1 else path for stem, path in zip(stems, paths, strict=True)]
    # The very same path twice is still two arguments.
    return [name if names.count(name) == 1 else f"{name} ({index + 1})" for index, name in enumerate(names)]


def summarize(table: EpisodeTable) -> list[SourceSummary]:
    """One summary per `source` label, in the order in which sources first appear."""
    labels = np.asarray(table.source)
    summaries = []
    for source in dict.fromkeys(table.source):
        episodes = np.flatnonzero(labels == source)
        part = table.select(episodes) if len(episodes) < table.num_episodes else table
        ranges = {name: _ranges(getattr(part, name)) for name in ("observation", "action")}
        summaries.append(
            SourceSummary(
                source=source,
                domain=", ".join(dict.fromkeys(part.domain)),
                behavior=", ".join(dict.fromkeys(part.behavior)),
                num_episodes=part.num_episodes,
                num_transitions=part.num_transitions,
                num_terminated=int(part.terminated.sum()),
                lengths=part.lengths,
                returns=part.returns,
                observation_range=ranges["observation"][:, [0, -1]],
                action_range=ranges["action"][:, [0, -1]],
                observation_quantiles=ranges["observation"][:, 1:-1],
                action_quantiles=ranges["action"][:, 1:-1],
            )
        )
    return summaries


def _ranges(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """(F, 5) smallest, 5th, 50th, 95th percentile and largest of the finite values of each feature; NaN if none is."""
    ranges = np.full((values.shape[1], len(QUANTILES)), np.nan, dtype=np.float32)
    for feature, column in enumerate(values.T):
        finite = column[np.isfinite(column)]
        if len(finite):
            ranges[feature] = np.quantile(finite, QUANTILES)
    return ranges


def _labelled_domain(table: EpisodeTable) -> Domain | None:
    """The one domain that all episodes are labelled with."""
    labels = set(table.domain)
    if len(labels) != 1 or labels == {UNLABELLED}:
        return None
    try:
        return labelled_domain(labels.pop())
    except DomainError:
        return None


def _is_finite(table: EpisodeTable) -> bool:
    fields = (table.observation, table.action, table.reward, table.next_observation)
    return all(bool(np.isfinite(field).all()) for field in fields)


def _described(table: EpisodeTable, name: str, domain: Domain | None, path: str) -> EpisodeTable:
    """The table renamed to `name` if it has one source, and labelled with the assumed domain, and with the behaviour in
    the name of its `path`, if it has no such labels."""
    count = table.num_episodes
    if len(set(table.source)) == 1:
        table = table.replace(source=(name,) * count)
    if domain is not None and set(table.domain) == {UNLABELLED}:
        table = table.replace(domain=(domain.name,) * count)
    if set(table.behavior) == {UNLABELLED} and (behavior := behavior_of_name(path)):
        table = table.replace(behavior=(behavior,) * count)
    return table


def _stem(path: str) -> str:
    return Path(path).stem
