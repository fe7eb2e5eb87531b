"""All checks of several sources that are to be used together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from v2a_ray.data.checks.overlap import find_duplicates
from v2a_ray.data.checks.rewards import check_rewards_between_sources
from v2a_ray.data.findings import Finding
from v2a_ray.data.table import EpisodeTable

if TYPE_CHECKING:
    from v2a_ray.domains import Domain


def check_sources(tables: Mapping[str, EpisodeTable], domains: Mapping[str, Domain]) -> list[Finding]:
    """Same transitions twice, rewards of different scales, domains that are one, and data of another domain.

    Args:
        tables: name of the source to its table.
        domains: name of the source to the domain it says, for those that say one.
    """
    # Re-simulation loads MuJoCo, which data without a domain have no use for.
    from v2a_ray.data.checks.dynamics import check_recordings, check_same_names

    finite = {name: table for name, table in tables.items() if np.isfinite(table.reward).any()}
    known = {name: domains[name] for name in tables if name in domains}
    named, identical = check_same_names(known)
    recorded = check_recordings(tables, known, identical)
    told = {finding.where.partition(" · ")[0] for finding in recorded if finding.check == "reward_scale"}
    groups: dict[tuple[int, int], dict[str, EpisodeTable]] = {}
    for name, table in finite.items():
        groups.setdefault((table.observation_dim, table.action_dim), {})[name] = table
    scales = [finding for group in groups.values() for finding in check_rewards_between_sources(group)]
    return [
        *find_duplicates(tables),
        *named,
        *recorded,
        # What the simulator tells exactly need not be told again.
        *(finding for finding in scales if finding.where.partition(" · ")[0] not in told),
    ]
