"""All checks of several sources that are to be used together.

Each source is described once, where it lies; what is compared between sources is small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from v2a_ray.data.checks.findings import Finding
from v2a_ray.data.checks.overlap import Content, find_duplicates
from v2a_ray.data.checks.rewards import RewardSample, check_rewards_between_sources, sample_rewards
from v2a_ray.data.table.episodes import EpisodeTable

if TYPE_CHECKING:
    from v2a_ray.data.checks.dynamics import Fit
    from v2a_ray.domains import Domain

REWARD_CHECKS = ("reward_scale", "rewards_unexplained")


@dataclass(frozen=True)
class SourceFacts:
    """What the checks between sources need of one: 8 bytes per transition and a few thousand rows.

    Attributes:
        dims: observation and action dimension.
        content: which transitions.
        rewards: a sample, or None where no reward is finite.
        fits: how well the domains of all sources predict a sample.
    """

    dims: tuple[int, int]
    content: Content
    rewards: RewardSample | None
    fits: Mapping[Domain, Fit]

    @staticmethod
    def of(table: EpisodeTable, domains: Sequence[Domain]) -> SourceFacts:
        """The facts of one table; `domains` are those of all sources, each once."""
        # Re-simulation loads MuJoCo, which data without a domain have no use for.
        from v2a_ray.data.checks.dynamics import fit_domains

        return SourceFacts(
            (table.observation_dim, table.action_dim),
            Content.of(table),
            sample_rewards(table) if np.isfinite(table.reward).any() else None,
            fit_domains(table, domains),
        )


def check_sources(tables: Mapping[str, EpisodeTable], domains: Mapping[str, Domain]) -> list[Finding]:
    """Same transitions twice, rewards of different scales, domains that are one, and data of another domain.

    Args:
        tables: name of the source to its table.
        domains: name of the source to the domain it says, for those that say one.
    """
    known = {name: domains[name] for name in tables if name in domains}
    distinct = list(dict.fromkeys(known.values()))
    return check_facts({name: SourceFacts.of(table, distinct) for name, table in tables.items()}, known)


def check_facts(facts: Mapping[str, SourceFacts], domains: Mapping[str, Domain]) -> list[Finding]:
    """As `check_sources`, from the facts of each source."""
    from v2a_ray.data.checks.dynamics import check_recordings, check_same_names

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
        # What the simulator tells exactly need not be told again.
        *(finding for finding in scales if finding.where.partition(" · ")[0] not in told),
    ]
