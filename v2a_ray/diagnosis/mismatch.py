"""The true dynamics mismatch of a transition: the distance of s' from the next state in the target's simulator.

    mismatch = sqrt( mean_i ( (s'_i - s*_i) / unit_i )^2 ),   s* = next state after (s, a) under the target's dynamics

`unit` is the standard deviation of s' - s in the target data, so 1 is as large as an ordinary step of the robot. Zero
means that the target could have recorded the transition.
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
    """(N,): mismatch of every transition of `table` against `domain`, in units of `unit` (O,); see `one_step`.

    NaN for unknown states, whose velocity was clipped in the recording. Raises DomainError if no transition can be
    re-simulated, as in a domain with action noise.
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
    """Random episodes with about `max_rows` transitions, the same fraction of every part; all if there are fewer."""
    if table.num_transitions <= max_rows:
        return np.arange(table.num_episodes)
    generator, rate = np.random.default_rng(seed), max_rows / table.num_transitions
    parts: dict[tuple[str, str], list[int]] = {}
    for episode, part in enumerate(zip(table.source, table.behavior, strict=True)):
        parts.setdefault(part, []).append(episode)
    chosen = [generator.permutation(episodes)[: math.ceil(rate * len(episodes))] for episodes in parts.values()]
    return np.sort(np.concatenate(chosen))
