"""Stage 3, alignment: one number per source transition that says how well it fits the target dynamics.

Every estimator gives a raw score, higher = better aligned, for source transitions and for target data that it was not
fitted to. The held-out scores calibrate the filter and audit the estimator: a good one gives the source of the target's
own dynamics the same distribution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.engine.columns import EpisodeIndex

Float = NDArray[np.float32]
Steps = EpisodeTable | MemoryMappedTransitions


@dataclass(frozen=True)
class Alignment:
    """The column, and what calibrates it.

    Attributes:
        source: (N,) h of every source transition.
        held_out: (M,) h of target transitions that `contrastive` and `residual` were not fitted to. `modality` has seen
            them, as it has seen every source transition that it scores: there they are a control, not a test.
    """

    source: Float
    held_out: Float


def carried(values: Float, source: Steps) -> Float:
    """(N,) scores in which a step without a recorded arrival has that of the step before it.

    What dynamics a trajectory follows does not change at its last step, so a fall passes the filter as often as what
    led to it. An episode of such a step alone gets the median of the others.
    """
    missing = np.flatnonzero(~source.arrival_recorded)
    if not len(missing):
        return values
    filled = values.copy()
    alone = np.isin(missing, source.offsets[:-1])
    filled[missing] = values[np.maximum(missing - 1, 0)]
    recorded = values[source.arrival_recorded]
    filled[missing[alone]] = np.median(recorded) if len(recorded) else 0.0
    return filled


def window_average(values: Float, table: EpisodeIndex, window: int) -> Float:
    """(N,): each value averaged over a centred window of `window` steps that stays inside its episode."""
    if window <= 1:
        return values
    total = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
    row, episode = np.arange(len(values)), np.repeat(np.arange(len(table.offsets) - 1), np.diff(table.offsets))
    begin = np.maximum(row - window // 2, table.offsets[episode])
    end = np.minimum(begin + window, table.offsets[episode + 1])
    begin = np.maximum(np.minimum(begin, end - window), table.offsets[episode])
    return np.asarray((total[end] - total[begin]) / (end - begin), dtype=np.float32)


def ranks(values: Float, pool: Float) -> Float:
    """(N,) in [0, 1]: the part of `pool` that is below each value, its equals counted half (mid-ranks).

    It puts any raw score on one scale, keeps its order, and is indifferent to its units. A value above all of the pool
    ranks above the pool's best: a calibrated filter can then refuse the whole pool.
    """
    ordered = np.sort(pool)
    below, not_above = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((below + not_above) / (2 * len(pool)), dtype=np.float32)
