"""Splits an episode table into a part to fit a model to and a held-out part."""

from __future__ import annotations

import numpy as np

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.errors import DataError


def split_target(table: EpisodeTable, fraction: float, seed: int) -> tuple[EpisodeTable, EpisodeTable]:
    """The part of the target to fit, and the held-out part with about `fraction` of the transitions.

    Whole episodes are held out, because neighbouring transitions resemble each other. With fewer than five episodes the
    last steps are held out instead. Raises DataError unless there is a transition for either part.
    """
    if table.num_transitions < 2:
        raise DataError(
            f"{table.num_transitions or 'no'} usable transition, and 2 are needed: to fit to, and to hold out",
            where="target",
            remedy="give more target data",
        )
    wanted = fraction * table.num_transitions
    if table.num_episodes < 5:
        # At least one transition on either side.
        cut = max(1, table.num_transitions - max(1, int(wanted)))
        return table.head(cut), tail(table, cut)
    order = np.random.default_rng(seed).permutation(table.num_episodes)
    count = int(np.searchsorted(np.cumsum(table.lengths[order]), wanted)) + 1
    count = min(count, table.num_episodes - 1)
    return table.select(np.sort(order[count:])), table.select(np.sort(order[:count]))


def tail(table: EpisodeTable, first_row: int) -> EpisodeTable:
    """The transitions from `first_row` on; an episode that this cuts keeps its end."""
    episode = int(np.searchsorted(table.offsets, first_row, side="right")) - 1
    kept = table.select(range(episode, table.num_episodes))
    skip = first_row - int(table.offsets[episode])
    offsets = np.maximum(kept.offsets - skip, 0)
    arrays = {name: getattr(kept, name)[skip:] for name in ("observation", "action", "reward", "next_observation")}
    return kept.replace(offsets=offsets, **arrays)
