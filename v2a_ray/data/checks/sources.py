"""All checks of several sources that are used together.

The facts of each source are computed once, on the node that holds it. They are small, and the checks compare only them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from v2a_ray.data.checks.findings import Finding
from v2a_ray.data.checks.overlap import Content, find_duplicates
from v2a_ray.data.checks.rewards import RewardSample, check_rewards_between_sources, sample_rewards, sampled_rows
from v2a_ray.data.table.episodes import EpisodeTable

if TYPE_CHECKING:
    from v2a_ray.data.checks.source_dynamics import Fit
    from v2a_ray.domains import Domain

REWARD_CHECKS = ("reward_scale", "rewards_unexplained")


@dataclass(frozen=True)
class SourceFacts:
    """The facts of one source that checks between sources need: 8 bytes per transition, at most 64 MiB, and rows.

    Attributes:
        dims: observation and action dimension.
        content: hashes of the transitions.
        rewards: a sample, or None if no reward is finite.
        fits: how well the domains of all sources predict a sample.
    """

    dims: tuple[int, int]
    content: Content
    rewards: RewardSample | None
    fits: Mapping[Domain, Fit]

    @staticmethod
    def of(table: EpisodeTable, domains: Sequence[Domain]) -> SourceFacts:
        """The facts of one table; `domains` are the distinct domains of all sources."""
        # Imported late: re-simulation loads MuJoCo, which data without a domain do not need.
        from v2a_ray.data.checks.source_dynamics import fit_domains

        return SourceFacts(
            (table.observation_dim, table.action_dim),
            Content.of(table),
            sample_rewards(table, sampled_rows(table.num_transitions)) if np.isfinite(table.reward).any() else None,
            fit_domains(table, domains),
        )

    @staticmethod
    def of_folder(path: Path, domains: Sequence[Domain]) -> SourceFacts:
        """The same of a table folder, a group of episodes in memory at a time."""
        from v2a_ray.data.checks.source_facts import read_facts

        return SourceFacts(*read_facts(path, domains))


def check_sources(tables: Mapping[str, EpisodeTable], domains: Mapping[str, Domain]) -> list[Finding]:
    """Find duplicate transitions, rewards of different scales, domains with the same dynamics, and wrong domains.

    Args:
        tables: name of the source to its table.
        domains: name of the source to the domain that it claims, if it claims one.
    """
    known = {name: domains[name] for name in tables if name in domains}
    distinct = list(dict.fromkeys(known.values()))
    return check_facts({name: SourceFacts.of(table, distinct) for name, table in tables.items()}, known)


def check_facts(facts: Mapping[str, SourceFacts], domains: Mapping[str, Domain]) -> list[Finding]:
    """Like `check_sources`, from the facts of each source."""
    from v2a_ray.data.checks.source_dynamics import check_recordings, check_same_names

    named, identical = check_same_names(domains)
    recorded = check_recordings({name: each.fits for name, each in facts.items()}, domains, identical)
    told = {finding.where.partition(" · ")[0] for finding in recorded if finding.check in REWARD_CHECKS}
    groups: dict[tuple[int, int], dict[str, RewardSample]] = {}
    for name, each in facts.items():
        if each.rewards is not None:
            groups.setdefault(each.dims, {})[name] = each.rewards
    scales = [finding for group in groups.values() for finding in check_rewards_between_sources(group)]
    return [
        *find_duplicates({name: each.content for name, each in facts.items()}),
        *named,
        *recorded,
        # Skip a source whose rewards the exact comparison with the simulator has reported already.
        *(finding for finding in scales if finding.where.partition(" · ")[0] not in told),
    ]
