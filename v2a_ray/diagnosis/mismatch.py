"""The true dynamics mismatch of a transition: how far the target's simulator would have gone elsewhere.

    mismatch = sqrt( mean_i ( (s'_i - s*_i) / unit_i )^2 ),   s* = what the target's dynamics make of (s, a)

`unit` is the standard deviation of one step, s' - s, of the target's data, so that 1 is a difference as large as an
ordinary step of the robot. Zero means that the target itself could have recorded the transition.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.fidelity.resimulation import predict_table
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains import Domain

Float = NDArray[np.floating[Any]]


def true_mismatch(table: EpisodeTable, unit: Float, domain: Domain) -> Float:
    """(N,) of every transition of `table` against `domain`, in units of `unit` (O,); see `one_step`.

    NaN where the state is not known, because a velocity was clipped in the recording. Raises DomainError when no
    transition can be re-simulated, as in a domain with action noise.
    """
    predictions = predict_table(table, domain)
    rows = predictions.rows
    # A dimension that never moves in the target has no unit.
    moves = unit > 0
    difference = (table.next_observation[rows] - predictions.next_observation)[:, moves] / unit[moves]
    mismatch = np.full(table.num_transitions, np.nan)
    mismatch[rows] = np.sqrt(np.square(difference).mean(axis=1))
    return mismatch


def one_step(table: EpisodeTable) -> Float:
    """(O,): standard deviation of s' - s."""
    return np.asarray((table.next_observation.astype(np.float64) - table.observation).std(axis=0))


def examined_episodes(table: EpisodeTable, max_rows: int, seed: int = 0) -> NDArray[np.int64]:
    """Episodes of about `max_rows` transitions, as many in a hundred of every part; all, if there are fewer."""
    if table.num_transitions <= max_rows:
        return np.arange(table.num_episodes)
    generator, rate = np.random.default_rng(seed), max_rows / table.num_transitions
    parts: dict[tuple[str, str], list[int]] = {}
    for episode, part in enumerate(zip(table.source, table.behavior, strict=True)):
        parts.setdefault(part, []).append(episode)
    chosen = [generator.permutation(episodes)[: math.ceil(rate * len(episodes))] for episodes in parts.values()]
    return np.sort(np.concatenate(chosen))
