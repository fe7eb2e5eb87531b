"""Spread and confidence intervals of means. scipy.stats takes a second to import, so it is imported only when used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 9999
MAX_DRAWS = 2**24
"""Held at a time, 128 MiB: thousands of values would take all memory."""

MIN_VALUES = 3
"""A bootstrap of two values has only three different means, too few for an interval."""


def spread(values: NDArray[np.floating[Any]] | Sequence[float]) -> float:
    """The sample standard deviation (n - 1); NaN for one value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def with_spread(values: NDArray[np.floating[Any]] | Sequence[float], digits: int) -> str:
    """`62.9 ± 4.1`: mean and sample standard deviation; for one value, the value alone."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {spread(values):.{digits}f}"


def mean_interval(values: NDArray[np.floating[Any]], level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of independent values; (NaN, NaN) for fewer than three."""
    if len(values) < MIN_VALUES:
        return float("nan"), float("nan")
    from scipy.stats import bootstrap

    found = bootstrap(
        (np.asarray(values, dtype=np.float64),),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        batch=max(1, MAX_DRAWS // len(values)),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def interquartile_mean(
    strata: Sequence[NDArray[np.floating[Any]]], level: float = 0.95, seed: int = 0, num_resamples: int = NUM_RESAMPLES
) -> tuple[float, float, float]:
    """The mean of the middle half of all values, with its stratified percentile bootstrap interval (low, high).

    Agarwal et al. (2108.13264) recommend it because a single task or seed cannot change it much.

    Args:
        strata: the values of every task, one per seed; seeds are resampled inside their task. With fewer than
            three values in some task the interval is (NaN, NaN).
    """
    values = tuple(np.asarray(stratum, dtype=np.float64).tobytes() for stratum in strata)
    return _interquartile_mean(values, level, seed, num_resamples)


# A sweep of thousands writes its table to a file and shows it.
@lru_cache(maxsize=256)
def _interquartile_mean(
    strata: tuple[bytes, ...], level: float, seed: int, num_resamples: int
) -> tuple[float, float, float]:
    from scipy.stats import bootstrap, trim_mean

    values = [np.frombuffer(stratum) for stratum in strata]
    middle = float(trim_mean(np.concatenate(values), 0.25))
    if min(len(stratum) for stratum in values) < MIN_VALUES:
        return middle, float("nan"), float("nan")
    found = bootstrap(
        values,
        lambda *drawn, axis: trim_mean(np.concatenate(drawn, axis=axis), 0.25, axis=axis),
        n_resamples=num_resamples,
        batch=max(1, MAX_DRAWS // sum(map(len, values))),
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return middle, float(found.low), float(found.high)
