"""Nearest neighbours: distances by hand, the ratio against Gaussians with known densities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from tests.stages.problems import raw, table_of
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.errors import DataError
from v2a_ray.stages.alignment.nearest import SMALLEST_DISTANCE, Neighbors, log_ratio


def neighbors(states: Any, k: int, most: int = 10**6, eligible: Any = None) -> Neighbors:
    """Neighbours among states; a one-dimensional list is states of one feature."""
    states = np.asarray(states, np.float32).reshape(len(states), -1)
    count = len(states)
    table = table_of(states, np.zeros((count, 1)), np.zeros(count), states, [count], [True])
    transitions = Transitions(table, raw(states.shape[1]))
    chosen = np.ones(count, bool) if eligible is None else np.asarray(eligible)
    return Neighbors(transitions, lambda batch: batch.observation_BO, chosen, most=most, num_neighbors=k, seed=0)


def column(*values: float) -> Any:
    return np.asarray(values, np.float32)[:, None]


def test_neighbor_distances_by_hand() -> None:
    found = neighbors([0.0, 1.0, 3.0, 7.0], k=2)
    assert found.distance(column(0.0, 2.0, 10.0)).tolist() == pytest.approx([1.0, 1.0, 7.0])
    # A searched row is not its own neighbour: from 0 the nearest others are 1 and 3.
    assert found.distance(column(0.0, 7.0), np.asarray([True, True])).tolist() == pytest.approx([3.0, 6.0])
    assert neighbors([0.0, 0.0, 5.0], k=1).distance(column(0.0)).item() == np.float32(SMALLEST_DISTANCE)


def test_log_ratio_by_hand() -> None:
    target, source = neighbors([0.0, 1.0], k=1), neighbors([0.0, 4.0, 8.0], k=1)
    # x = 3 is no source row: distances 2 to the target, 1 to the source. x = 4 is one: 3 and 4, and two others count.
    found = log_ratio(column(3.0, 4.0), target, source, np.asarray([False, True]))
    assert found.tolist() == pytest.approx([math.log(1 / 2) + math.log(3 / 2), math.log(4 / 3) + math.log(2 / 2)])


def test_neighbours_are_eligible_rows_subsampled_by_seed() -> None:
    far = neighbors([0.0, 1.0, 3.0, 7.0], k=1, eligible=[False, False, True, True])
    assert far.distance(column(0.0)).item() == 3.0 and far.chosen.tolist() == [False, False, True, True]
    some = neighbors(range(100), k=1, most=10)
    assert some.count == some.chosen.sum() == 10
    assert np.array_equal(some.chosen, neighbors(range(100), k=1, most=10).chosen)


def test_more_neighbours_than_transitions_are_refused() -> None:
    with pytest.raises(DataError, match="5 neighbours need 6 transitions, and there are 3") as error:
        neighbors([0.0, 1.0, 2.0], k=5)
    assert error.value.where == "alignment.num_neighbors" and error.value.remedy.startswith("at most 2, or more data")
    with pytest.raises(DataError, match="and there are 1\n  try: more data"):
        neighbors([0.0], k=5)


@pytest.mark.parametrize("count", [1000, 4000])
def test_log_ratio_matches_gaussian_densities(count: int) -> None:
    """p = N(1, 1) and q = N(0, 1) in two dimensions: log p / q = x1 + x2 - 1."""
    generator = np.random.default_rng(0)
    source_rows = generator.normal(size=(count, 2)).astype(np.float32)
    target = neighbors(generator.normal(size=(1000, 2)) + 1.0, k=20)
    source = neighbors(source_rows, k=20)
    found = 2 * log_ratio(source_rows, target, source, source.chosen)
    exact = source_rows.sum(axis=1) - 1.0
    assert spearmanr(found, exact).statistic > 0.9
    # Without the term of the counts, fourfold source rows would shift it by log 4.
    centre = np.linalg.norm(source_rows - 0.5, axis=1) < 1.0
    assert abs((found - exact)[centre].mean()) < 0.15
    assert torch.isfinite(torch.from_numpy(found)).all()
