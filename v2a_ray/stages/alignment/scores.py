"""Stage 3, alignment: one number per source transition, how well it fits the target dynamics.

Every estimator gives a raw score, higher = better aligned, for source transitions and for held-out target data. The
held-out scores calibrate the filter and audit the estimator: under a good estimator, source data with the target's
dynamics has the same distribution of scores.
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
    """The column, and held-out scores to calibrate it.

    Attributes:
        source: (N,) h of every source transition.
        held_out: (M,) h of target transitions that the estimator was not fitted to. Only `modality` was fitted to
            them, as to every source transition, so there they are a control, not a test.
    """

    source: Float
    held_out: Float


def carried(values: Float, source: Steps) -> Float:
    """(N,) scores in which a step without a recorded next observation gets the score of the step before it.

    The dynamics of a trajectory do not change at its last step, so a fall passes the filter as often as the steps
    before it. An episode of one such step gets the median of the recorded scores.
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
    """(N,) in [0, 1]: the fraction of `pool` below each value, where equal values count half (mid-ranks).

    Ranks put any raw score on one scale and keep its order, whatever its unit. A value above the whole pool ranks above
    the pool's best, so that a calibrated filter can refuse the whole pool.
    """
    ordered = np.sort(pool)
    below, not_above = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((below + not_above) / (2 * len(pool)), dtype=np.float32)
