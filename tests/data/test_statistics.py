"""Statistics do not depend on the division of a table into parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.builders import make_table
from v2a_ray.data.table.manifest import PartSummary, make_manifest, summarize_part
from v2a_ray.data.table.statistics import Moments


def exact(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column, from sums that are rounded only once."""
    columns = [[float(value) for value in column] for column in values.T]
    means = [math.fsum(column) / len(column) for column in columns]
    squares = [math.fsum((value - mean) ** 2 for value in column) for column, mean in zip(columns, means, strict=True)]
    return np.asarray(means), np.sqrt(np.asarray(squares) / len(values))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_partition_gives_the_statistics_of_the_whole(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 300))
    centre = data.draw(st.sampled_from([0.0, 1.0, -30.0, 1e3, 1e6]))
    spread = data.draw(st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    values = (centre + spread * generator.normal(size=(count, 3))).astype(np.float32)
    cuts = sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=8))) if count > 1 else []
    merged = Moments.merge([Moments.of(part) for part in np.split(values, cuts)])
    mean, std = exact(values)
    assert merged.count == count
    scale = np.abs(values).max(axis=0)
    assert (np.abs(merged.mean - mean) <= 1e-12 * np.maximum(np.abs(mean), std)).all()
    # A tiny spread can only lose the rounding of the mean, about 1e-16 of its size.
    assert (np.abs(merged.std - std) <= 1e-12 * std + 1e-15 * scale).all()


def test_more_rows_than_a_block_and_a_mean_far_from_zero() -> None:
    values = (1e4 + np.random.default_rng(0).normal(size=(50_000, 2)) * [0.01, 10.0]).astype(np.float32)
    found, (mean, std) = Moments.of(values), exact(values)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-13)
    np.testing.assert_allclose(found.std, std, rtol=1e-12)


def test_a_constant_has_no_spread() -> None:
    merged = Moments.merge([Moments.of(np.full((size, 1), 0.1, np.float32)) for size in (1, 7, 9000)])
    assert merged.std.tolist() == [0.0]
    assert merged.mean.tolist() == [float(np.float32(0.1))]


def test_parts_and_whole_give_the_same_manifest() -> None:
    table = make_table((5, 3, 4, 9, 2))
    parts = [summarize_part(table.select(range(*bounds))) for bounds in ((0, 1), (1, 4), (4, 5))]
    travelled = [PartSummary.from_json(part.to_json()) for part in parts]
    whole = make_manifest([summarize_part(table)], robot="unknown")
    split = make_manifest(travelled, robot="unknown")
    assert split["content_hash"] == whole["content_hash"]
    for name in ("observation", "action", "reward"):
        mean, std = exact(getattr(table, name).reshape(table.num_transitions, -1))
        for manifest in (whole, split):
            assert manifest[f"{name}_mean"] == pytest.approx(mean.tolist(), rel=1e-12)
            assert manifest[f"{name}_std"] == pytest.approx(std.tolist(), rel=1e-12)
