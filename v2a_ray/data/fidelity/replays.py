"""Which domain is nearest to recorded episodes? Each replays their actions, from one of their states, for many steps.

What a shift does to one step is small, and adds up: after one step of its expert, Walker2d under half the gravity is
as near to the stock robot as with half the friction, after fifty it is almost four times as far, and its data are
worth nothing to the stock robot (docs/study.md).

Shape suffixes: R replays, H steps, O observation dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.fidelity.resimulation import check_dimensions, known_states, replay
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains.base import Domain
from v2a_ray.domains.domain import require_robot
from v2a_ray.errors import DataError

Float = NDArray[np.floating[Any]]
NUM_STEPS, MAX_REPLAYS = 20, 200
FAR, NEVER_FAR = 3.0, 0.1
"""Far is what is more than `FAR` times as far as the nearest domain, and more than `NEVER_FAR` standard deviations."""


@dataclass(frozen=True)
class Replays:
    """Episodes replayed in one domain.

    Attributes:
        domain: canonical name.
        distance_RH: distance of the replayed from the recorded state after 1 to H steps, in standard deviations: the
            root mean square over the dimensions of the observation.
    """

    domain: str
    distance_RH: Float

    @property
    def num_steps(self) -> int:
        """Recorded actions in a row of a replay."""
        return int(self.distance_RH.shape[1])

    def after(self, num_steps: int) -> float:
        """Median distance over replays after so many steps."""
        return float(np.median(self.distance_RH[:, num_steps - 1]))

    @property
    def distance(self) -> float:
        """Median distance over replays after the last step."""
        return self.after(self.num_steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON: medians over replays."""
        medians = [self.after(step) for step in range(1, self.num_steps + 1)]
        return {"domain": self.domain, "replays": len(self.distance_RH), "median_distance": medians}


def replay_episodes(
    table: EpisodeTable,
    domains: Sequence[Domain],
    num_steps: int = NUM_STEPS,
    max_replays: int = MAX_REPLAYS,
    *,
    unit_O: Float | None = None,
    seed: int = 0,
) -> list[Replays]:
    """Replay parts of `num_steps` steps, the same random ones, in every domain; the nearest domain comes first.

    Args:
        unit_O: what distances are measured in; by default the standard deviation of the table's observations.

    Raises:
        DataError: no part of an episode is long enough, with known states at both ends.
        DomainError: the dimensions do not fit, or see `replay`.
    """
    spec = require_robot(domains[0], "a replay").robot_spec
    for domain in domains:
        check_dimensions(table, domain, domain.name)
    known = known_states(table, spec)
    last = np.repeat(table.offsets[1:], table.lengths)
    starts = np.flatnonzero(known & (np.arange(table.num_transitions) + num_steps <= last))
    starts = starts[known[starts + num_steps - 1]]
    if not len(starts):
        raise DataError(
            f"no episode has {num_steps} steps in a row with known states at both ends",
            where=f"{table.num_episodes:,} episodes, the longest of {int(table.lengths.max()):,} steps",
            remedy="fewer steps, or whole episodes instead of single transitions",
        )
    starts = np.random.default_rng(seed).permutation(starts)[:max_replays]
    rows_RH = starts[:, None] + np.arange(num_steps)
    unit = table.observation.std(axis=0) if unit_O is None else unit_O
    moves = unit > 0
    found = []
    for domain in domains:
        arrived = replay(domain, table.observation[starts], table.action[rows_RH])
        difference = (arrived - table.next_observation[rows_RH])[..., moves] / unit[moves]
        found.append(Replays(domain.name, np.sqrt(np.square(difference).mean(axis=-1))))
    return sorted(found, key=lambda each: each.distance)


def far(replays: Sequence[Replays]) -> list[Replays]:
    """Those that are far beside the nearest, which comes first; none where all are about as far as it."""
    return [each for each in replays if each.distance > max(FAR * replays[0].distance, NEVER_FAR)]
