"""The filter's selection and weights of source transitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stages.problems import linear_system, raw
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.stages.policy.config import FILTERS, LEARNERS, PolicyConfig
from v2a_ray.stages.policy.filtering import SourceFilter, normalized_columns
from v2a_ray.stages.policy.mixed_sampler import MixedSampler

COLUMNS = {
    "alignment": torch.tensor([0.9, 0.1, 0.5, -0.5, 0.3, 0.7]),
    "advantage": torch.tensor([-4.0, 6.0, 1.0, 6.0, -4.0, 1.0]),
}
"""minmax(A) = 0, 1, 0.5, 1, 0, 0.5."""


def filter_of(**settings: object) -> SourceFilter:
    return SourceFilter.prepare(FILTERS(**settings), None, None)


def kept(source_filter: SourceFilter, columns: dict[str, torch.Tensor], size: int) -> list[int]:
    return sorted(source_filter(columns, size)[0].tolist())


@pytest.mark.parametrize(
    ("alignment_weight", "keep_fraction", "rows"),
    [
        (1.0, 0.5, [0, 2, 5]),  # by h alone
        (0.0, 1 / 3, [1, 3]),  # by minmax(A) alone
        (0.6, 0.5, [0, 2, 5]),  # f = 0.54, 0.46, 0.50, 0.10, 0.18, 0.62
        (0.5, 0.5, [1, 2, 5]),  # f = 0.45, 0.55, 0.50, 0.25, 0.15, 0.60
        (0.6, 1 / 6, [5]),
        (0.6, 1.0, [0, 1, 2, 3, 4, 5]),
        (0.6, 0.0, [5]),  # at least one
    ],
)
def test_top_fraction_keeps_the_best_by_f(alignment_weight: float, keep_fraction: float, rows: list[int]) -> None:
    source_filter = filter_of(
        rule="top_fraction", keep_fraction=keep_fraction, alignment_weight=alignment_weight, weight="one"
    )
    assert kept(source_filter, COLUMNS, 6) == rows


def test_filter_uses_the_other_column_if_one_is_missing() -> None:
    source_filter = filter_of(rule="top_fraction", keep_fraction=1 / 3, alignment_weight=0.6)
    assert kept(source_filter, {"alignment": COLUMNS["alignment"]}, 6) == [0, 5]
    assert kept(source_filter, {"advantage": COLUMNS["advantage"]}, 6) == [1, 3]


def test_filter_weights_by_hand() -> None:
    columns = {"alignment": torch.tensor([0.0, 1.0, 9.0]), "advantage": torch.tensor([0.0, 2.0, 4.0])}
    everything = {"rule": "top_fraction", "keep_fraction": 1.0, "alignment_weight": 0.5}

    def weights(kind: str) -> dict[int, float]:
        keep, weight = filter_of(weight=kind, **everything)(columns, 3)
        return dict(zip(keep.tolist(), weight.tolist(), strict=True))

    assert weights("one") == {0: 1.0, 1: 1.0, 2: 1.0}
    # exp(9) = 8103 is clamped.
    assert weights("exp_alignment") == pytest.approx({0: 1.0, 1: math.e, 2: 100.0})
    assert weights("score") == pytest.approx({0: 0.0, 1: 0.75, 2: 5.0})


def scores(alignment: list[float], advantage: list[float], drawn: list[int], **settings: object) -> list[float]:
    """f of the rows `drawn` of a table with these columns."""
    source_filter = filter_of(rule="top_fraction", alignment_weight=0.5, **settings)
    columns = {
        name: np.asarray(values, np.float32) for name, values in zip(COLUMNS, (alignment, advantage), strict=True)
    }
    columns |= normalized_columns(source_filter.config, columns)
    batch = {name: torch.from_numpy(values[drawn]) for name, values in columns.items()}
    return source_filter.score(batch, len(drawn)).tolist()


def test_normalization_by_hand() -> None:
    # h is 0.2 to 0.4 and A has an outlier; the batch is the first three rows.
    h, advantage, drawn = [0.2, 0.4, 0.3, 0.4], [0.0, 1.0, 2.0, 100.0], [0, 1, 2]
    # A in the batch: 0, 0.5, 1.
    assert scores(h, advantage, drawn) == pytest.approx([0.1, 0.45, 0.65])
    # h in the batch: 0, 1, 0.5.
    assert scores(h, advantage, drawn, normalize_alignment=True) == pytest.approx([0.0, 0.75, 0.75])
    # A in the table: 0, 0.01, 0.02.
    assert scores(h, advantage, drawn, normalization="table") == pytest.approx([0.1, 0.205, 0.16])
    # h in the table: 0, 1, 0.5.
    both = scores(h, advantage, drawn, normalization="table", normalize_alignment=True)
    assert both == pytest.approx([0.0, 0.505, 0.26])
    # Mid-ranks of four: h 1/8, 3/4, 3/8 (the two 0.4 share a rank), A 1/8, 3/8, 5/8.
    assert scores(h, advantage, drawn, normalization="ranks") == pytest.approx([0.125, 0.5625, 0.5])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.01, 100.0))
def test_rank_normalization_ignores_the_scales_of_the_columns(seed: int, factor: float) -> None:
    generator = np.random.default_rng(seed)
    h, advantage = generator.normal(size=(2, 20))
    drawn = list(range(0, 20, 2))
    plain = scores(h.tolist(), advantage.tolist(), drawn, normalization="ranks")
    scaled = scores((factor * h).tolist(), np.exp(advantage).tolist(), drawn, normalization="ranks")
    assert scaled == pytest.approx(plain)


def test_exp_alignment_weight_uses_the_unnormalised_alignment() -> None:
    source_filter = filter_of(rule="top_fraction", keep_fraction=1.0, weight="exp_alignment", normalization="ranks")
    columns = {"alignment": np.asarray([2.0, 4.0], np.float32), "advantage": np.zeros(2, np.float32)}
    columns |= normalized_columns(source_filter.config, columns)
    _, weight = source_filter({name: torch.from_numpy(values) for name, values in columns.items()}, 2)
    assert sorted(weight.tolist()) == pytest.approx([math.exp(2), math.exp(4)])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_filter_does_not_depend_on_the_order_of_the_batch(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 40))
    order = torch.tensor(data.draw(st.permutations(range(size))))
    generator = torch.Generator().manual_seed(size)
    columns = {name: torch.rand(size, generator=generator) for name in COLUMNS}  # no ties
    source_filter = filter_of(rule="top_fraction", keep_fraction=data.draw(st.floats(0.05, 1.0)), weight="score")
    keep, weight = source_filter(columns, size)
    shuffled_keep, shuffled_weight = source_filter({name: values[order] for name, values in columns.items()}, size)
    first = dict(zip(keep.tolist(), weight.tolist(), strict=True))
    second = dict(zip(order[shuffled_keep].tolist(), shuffled_weight.tolist(), strict=True))
    assert first == pytest.approx(second)
    assert len(first) == max(1, round(source_filter.config.keep_fraction * size))
    rejected = set(range(size)) - set(first)
    score = source_filter.score(columns, size)
    assert all(score[row] <= min(first.values()) + 1e-6 for row in rejected)


def sampler(
    config: PolicyConfig, alignment: list[float] | None = None, held_out: list[float] | None = None
) -> MixedSampler:
    """Eight source rows whose reward is their index plus 100, eight target rows of reward 0."""
    source, target = linear_system([4, 4], 1.0, seed=0), linear_system([4, 4], 1.0, seed=1)
    source = source.replace(reward=np.arange(100, 108, dtype=np.float32))
    target = target.replace(reward=np.zeros(8, np.float32))
    columns = {} if alignment is None else {"alignment": np.asarray(alignment, np.float32)}
    held = None if held_out is None else np.asarray(held_out, np.float32)
    source_filter = SourceFilter.prepare(config.filter, columns.get("alignment"), held)
    return MixedSampler(Transitions(target, raw(2)), Transitions(source, raw(2), columns), source_filter, config)


CALIBRATED = FILTERS(rule="calibrated", keep_fraction=1.0, alignment_weight=1.0, target_acceptance=0.9)


def test_calibrated_filter_draws_only_rows_above_the_threshold() -> None:
    config = LEARNERS(batch_size=64, filter=CALIBRATED)
    # Nine tenths of the held-out scores 0..10 reach 1.
    scores = [0.99, 5.0, 0.0, -3.0, 1.01, 0.5, 11.0, 0.9]
    drawn = sampler(config, scores, list(range(11)))
    assert drawn.uses_source and drawn.uses_target
    batch, weight = drawn.sample(torch.Generator().manual_seed(0))
    assert set(batch.reward_B[:64].tolist()) == {101.0, 104.0, 106.0}
    assert set(batch.reward_B[64:].tolist()) == {0.0}
    assert weight.tolist() == [1.0] * 128


@pytest.mark.parametrize("data", ["mixed", "source"])
def test_calibrated_filter_without_eligible_rows_draws_only_the_target(data: str) -> None:
    drawn = sampler(LEARNERS(batch_size=8, data=data, filter=CALIBRATED), [-1.0] * 8, list(range(11)))
    assert not drawn.uses_source
    batch, weight = drawn.sample(torch.Generator().manual_seed(0))
    assert batch.reward_B.tolist() == [0.0] * 16  # twice as many rows, because there is only one table
    assert weight.tolist() == [1.0] * 16


@pytest.mark.parametrize(("data", "num_source", "num_target"), [("mixed", 8, 8), ("source", 16, 0), ("target", 0, 16)])
def test_unfiltered_sampling_draws_the_configured_tables(data: str, num_source: int, num_target: int) -> None:
    batch, weight = sampler(LEARNERS(batch_size=8, data=data)).sample(torch.Generator().manual_seed(0))
    rewards = batch.reward_B.tolist()
    assert sum(reward >= 100 for reward in rewards) == num_source
    assert sum(reward == 0 for reward in rewards) == num_target
    assert weight.tolist() == [1.0] * len(rewards)


def test_filtered_batch_has_source_rows_and_their_weights_first() -> None:
    rule = FILTERS(rule="top_fraction", keep_fraction=0.25, alignment_weight=1.0, weight="exp_alignment")
    scores = [0.1 * index for index in range(8)]
    batch, weight = sampler(LEARNERS(batch_size=32, filter=rule), scores).sample(torch.Generator().manual_seed(0))
    assert len(weight) == 8 + 32
    expected = [math.exp(0.1 * (reward - 100)) for reward in batch.reward_B[:8].tolist()]
    assert weight[:8].tolist() == pytest.approx(expected)
    assert weight[8:].tolist() == [1.0] * 32
    assert batch.reward_B[:8].min() >= 104  # the best quarter of 32 draws from 8 rows
