"""Rows whose next observation is the reset of another episode, as in OTDF's medium_expert files.

Such a row looks like an ordinary step: its next observation even equals the following row's observation. Two facts
together give it away. It arrives close to where episodes start although it did not leave from there, and the step
breaks the kinematics that all other steps obey (a position moves by about velocity times time step).

On 24 OTDF and stock files the true rows score 247 and more on the second fact, all other candidates 65 and less.

Shape suffixes: N transitions, C candidate rows, S episode starts, O observation dimension, D regressors.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.segmentation import Rows

# Below this a linear model of one step cannot be told from noise.
MIN_ROWS = 200
# Enough to fit 100 coefficients, and bounded so that a file of millions of rows costs the same.
MAX_FIT_ROWS = 10_000
MAX_STARTS = 64
# In standard deviations of each feature; the quantile forgives features that barely move and so are all noise.
START_DISTANCE = 0.5
FEATURE_QUANTILE = 0.8
# In medians of the absolute residual.
RESIDUAL_SCORE = 100.0


def reset_as_next(rows: Rows) -> NDArray[np.int64]:
    """Indices of the rows of `rows` whose next observation is a reset. Nothing is found in fewer than 200 rows."""
    if len(rows) < MIN_ROWS or not np.isfinite(rows.observation).all() or not np.isfinite(rows.next_observation).all():
        return np.empty(0, dtype=np.int64)
    begins = np.flatnonzero(np.append(True, rows.last[:-1]))
    if len(begins) > MAX_STARTS:
        begins = begins[np.linspace(0, len(begins) - 1, MAX_STARTS).astype(np.int64)]
    starts_SO = rows.observation[begins]
    scale_O = rows.observation.std(axis=0) + 1e-6
    arrives = _distance_to_starts(rows.next_observation, starts_SO, scale_O)
    near = np.flatnonzero(arrives < START_DISTANCE)
    leaves = _distance_to_starts(rows.observation[near], starts_SO, scale_O)
    candidates = near[leaves > 2 * arrives[near]]
    return candidates[_residual_scores(rows, candidates) > RESIDUAL_SCORE]


def _distance_to_starts(
    states_NO: NDArray[np.float32], starts_SO: NDArray[np.float32], scale_O: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(N,) distance to the nearest start: the 0.8 quantile over features, in standard deviations."""
    # One start at a time: N x S x O at once would be gigabytes for a large file.
    nearest = np.full(len(states_NO), np.inf, dtype=np.float32)
    rank = int(np.ceil(FEATURE_QUANTILE * (states_NO.shape[1] - 1)))
    for start_O in starts_SO:
        apart_NO = np.abs(states_NO - start_O) / scale_O
        apart_NO.partition(rank, axis=1)
        np.minimum(nearest, apart_NO[:, rank], out=nearest)
    return nearest


def _residual_scores(rows: Rows, candidates: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) how far a step is off the linear model of its features, maximum over features, in median residuals.

    Each feature's change is regressed on the state, the action and the other features after the step, which explains
    positions almost exactly through their velocities. Candidates are no part of the fit, or they would bend it to
    themselves; rows that fit worst, mostly impacts, are left out and the fit repeated.
    """
    scores = np.zeros(len(candidates))
    if not len(candidates):
        return scores
    sample = np.linspace(0, len(rows) - 1, min(len(rows), MAX_FIT_ROWS)).astype(np.int64)
    sample = np.setdiff1d(sample, candidates)
    chosen = np.concatenate([sample, candidates])
    before = rows.observation[chosen].astype(np.float64)
    after = rows.next_observation[chosen].astype(np.float64)
    known_ND = np.concatenate([before, rows.action[chosen], np.ones((len(chosen), 1))], axis=1)
    for feature in range(before.shape[1]):
        regressors_ND = np.concatenate([known_ND, np.delete(after, feature, axis=1)], axis=1)
        change_N = after[:, feature] - before[:, feature]
        fitted = np.arange(len(sample))
        for _ in range(3):
            weights_D = np.linalg.lstsq(regressors_ND[fitted], change_N[fitted], rcond=None)[0]
            residual_N = np.abs(change_N - regressors_ND @ weights_D)
            typical = residual_N[: len(sample)]
            fitted = np.flatnonzero(typical <= np.quantile(typical, 0.95))
        scores = np.maximum(scores, residual_N[len(sample) :] / (np.median(typical) + 1e-9))
    return scores
