"""How sure a mean is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

NUM_RESAMPLES = 9999


def mean_interval(values: NDArray[np.floating[Any]], level: float = 0.95, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of independent values; of one value it is (NaN, NaN)."""
    if len(values) < 2:
        return float("nan"), float("nan")
    found = bootstrap(
        (np.asarray(values, dtype=np.float64),),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
