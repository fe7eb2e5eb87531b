"""Compares methods over tasks and seeds (Agarwal et al. 2021, 2108.13264) with stratified bootstrap intervals.

Scores are given as strata: for every task, an array with one score per seed. A resample draws seeds within each task,
with replacement. Intervals are the percentiles 2.5 and 97.5; with fewer than three seeds in a task they are NaN.

Shape suffixes: S seeds, K points of a curve, T thresholds, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from v2a_ray.evaluation.interval import MIN_VALUES

NUM_RESAMPLES = 5000
BLOCK_DRAWS = 2**22
"""Draws that are held at a time."""
_ENDS = (2.5, 97.5)
Float = NDArray[np.floating[Any]]


class Estimate(NamedTuple):
    """A number, or an array of them, with the ends of its 95 % interval."""

    value: Any
    low: Any
    high: Any


def improvement(mine: Sequence[Float], others: Sequence[Float], seed: int = 0) -> Estimate:
    """P(score of a seed of `mine` > that of a seed of `others`), ties count half, averaged over tasks."""
    generator = np.random.default_rng(seed)
    value = float(np.mean([_wins(a[None], b[None])[0] for a, b in zip(mine, others, strict=True)]))
    if min(len(stratum) for stratum in [*mine, *others]) < MIN_VALUES:
        return Estimate(value, np.nan, np.nan)
    drawn = [_wins(_drawn(a, generator), _drawn(b, generator)) for a, b in zip(mine, others, strict=True)]
    low, high = np.percentile(np.mean(drawn, axis=0), _ENDS)
    return Estimate(value, float(low), float(high))


def profile(strata: Sequence[Float], thresholds_T: Float, seed: int = 0) -> Estimate:
    """Fraction of seeds that score above each threshold, averaged over tasks: (T,) with its interval."""
    generator = np.random.default_rng(seed)
    value_T = np.mean([_above(stratum[None], thresholds_T)[0] for stratum in strata], axis=0)
    if min(len(stratum) for stratum in strata) < MIN_VALUES:
        nothing_T = np.full_like(value_T, np.nan)
        return Estimate(value_T, nothing_T, nothing_T)
    drawn_RT = np.mean([_above(_drawn(stratum, generator), thresholds_T) for stratum in strata], axis=0)
    return Estimate(value_T, *np.percentile(drawn_RT, _ENDS, axis=0))


def mean_curve(scores_SK: Float, seed: int = 0) -> Estimate:
    """The mean over seeds at every point of a curve: (K,) with its interval."""
    value_K = scores_SK.mean(axis=0)
    if len(scores_SK) < MIN_VALUES:
        nothing_K = np.full_like(value_K, np.nan)
        return Estimate(value_K, nothing_K, nothing_K)
    generator, num_seeds = np.random.default_rng(seed), len(scores_SK)
    means = []
    # In blocks, so that thousands of seeds take no more memory than a few.
    block = max(1, BLOCK_DRAWS // num_seeds)
    for first in range(0, NUM_RESAMPLES, block):
        rows = min(block, NUM_RESAMPLES - first)
        seeds_RS = generator.integers(num_seeds, size=(rows, num_seeds))
        # How often each seed was drawn, times the scores: one product instead of R copies of the curves.
        places_RS = seeds_RS + num_seeds * np.arange(rows)[:, None]
        counts_RS = np.bincount(places_RS.ravel(), minlength=rows * num_seeds).reshape(rows, num_seeds)
        means.append(counts_RS @ scores_SK / num_seeds)
    return Estimate(value_K, *np.percentile(np.concatenate(means), _ENDS, axis=0))


def _drawn(stratum: Float, generator: np.random.Generator) -> Float:
    """(R, S) resamples of one task's seeds."""
    return stratum[generator.integers(len(stratum), size=(NUM_RESAMPLES, len(stratum)))]


def _wins(mine_RS: Float, others_RS: Float) -> Float:
    """(R,): fraction of pairs in which mine is larger, ties count half."""
    difference = mine_RS[:, :, None] - others_RS[:, None, :]
    return np.asarray((difference > 0).mean(axis=(1, 2)) + 0.5 * (difference == 0).mean(axis=(1, 2)))


def _above(scores_RS: Float, thresholds_T: Float) -> Float:
    """(R, T)"""
    return np.asarray((scores_RS[:, :, None] > thresholds_T).mean(axis=1))
