"""Aggregates against numbers of the package rliable on the same scores."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from v2a_ray.evaluation.aggregates import improvement, mean_curve, profile
from v2a_ray.evaluation.interval import interquartile_mean

# numpy.random.default_rng(0).normal(50, 15, (5, 3)).round(1), then .normal(45, 10, (5, 3)); task by task.
A = [[51.9, 51.6, 69.6, 31.0, 15.1], [48.0, 42.0, 64.2, 40.7, 46.7], [59.6, 55.4, 39.4, 50.6, 31.3]]
B = [[37.7, 49.1, 58.7, 54.0, 35.8], [39.6, 55.4, 38.3, 45.9, 40.4], [41.8, 43.7, 48.5, 37.6, 47.2]]
THRESHOLDS = np.array([20.0, 40, 50, 60, 80])


def strata(scores: list[list[float]]) -> list[np.ndarray]:
    return [np.asarray(task) for task in scores]


@pytest.mark.parametrize(
    ("scores", "value", "low", "high"),
    [
        (A, 47.36666666666667, 40.1775, 54.0333),
        (B, 43.833333333333336, 40.0111, 48.3556),
    ],
)
def test_interquartile_mean_equals_rliable(scores: list[list[float]], value: float, low: float, high: float) -> None:
    # rliable 1.2.0: library.get_interval_estimates({"A": A, "B": B}, aggregate_iqm, reps=5000, RandomState(0)).
    found = interquartile_mean(strata(scores), num_resamples=5000)
    assert found[0] == pytest.approx(value, abs=1e-12)
    # The tolerance covers other random numbers: two runs of rliable differ by as much.
    assert found[1:] == pytest.approx((low, high), abs=0.5)


def test_probability_of_improvement_equals_rliable() -> None:
    # rliable 1.2.0: get_interval_estimates({"A,B": (A, B)}, probability_of_improvement, reps=5000, RandomState(0)).
    found = improvement(strata(A), strata(B))
    assert found.value == pytest.approx(0.6133333333333333, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((0.38666667, 0.82666667), abs=0.02)
    assert improvement([np.ones(3)], [np.ones(3)]) == (0.5, 0.5, 0.5)


def test_performance_profile_equals_rliable() -> None:
    # rliable 1.2.0: library.create_performance_profile({"A": A}, THRESHOLDS, reps=5000).
    found = profile(strata(A), THRESHOLDS)
    assert found.value == pytest.approx([14 / 15, 11 / 15, 7 / 15, 2 / 15, 0], abs=1e-12)
    assert found.low == pytest.approx([0.8, 0.5333, 0.2667, 0, 0], abs=0.07)
    assert found.high == pytest.approx([1, 0.9333, 0.6667, 0.3333, 0], abs=0.07)


def test_band_of_a_curve_is_the_interval_of_the_mean() -> None:
    scores_SK = np.array([[0.0, 1], [0, 2], [0, 6]])
    found = mean_curve(scores_SK)
    assert found.value.tolist() == [0, 3] and found.low[0] == found.high[0] == 0
    assert 1 <= found.low[1] < 3 < found.high[1] <= 6
    assert np.isnan(mean_curve(scores_SK[:2]).low).all(), "two seeds make no interval"


def test_the_interval_of_a_curve_over_thousands_of_seeds_takes_bounded_memory() -> None:
    """Draws are held in blocks; the numbers are those of one block."""
    scores_SK = np.random.default_rng(0).normal(size=(3000, 2))
    tracemalloc.start()
    found = mean_curve(scores_SK)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**28
    width = 2 * 1.96 / np.sqrt(3000)
    assert found.high - found.low == pytest.approx([width, width], rel=0.1)
