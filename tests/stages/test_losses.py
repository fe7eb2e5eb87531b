"""The losses against numbers computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.stages.problems import TWO_STEPS, make_actor, mixed_sampler, raw, set_constant, table_of, whole
from v2a_ray.data.loading.sampler import Transitions, make_preprocessing, return_range_scale
from v2a_ray.data.table.manifest import make_manifest, summarize_part
from v2a_ray.data.table.splits import split_target
from v2a_ray.stages.advantage.config import ADVANTAGES
from v2a_ray.stages.advantage.learner import AdvantageLearner, sparse_value_loss
from v2a_ray.stages.alignment.contrastive import contrastive_loss
from v2a_ray.stages.alignment.scores import ranks, window_average
from v2a_ray.stages.modality.model import kl_to_standard_normal
from v2a_ray.stages.policy.config import FILTERS, LEARNERS
from v2a_ray.stages.policy.filtering import SourceFilter, calibrated_threshold, minmax
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.schedule import cosine


def iql(**settings: Any) -> IQLLearner:
    torch.manual_seed(0)
    config = LEARNERS(width=4, batch_size=2, num_steps=10, **settings)
    return IQLLearner(mixed_sampler(TWO_STEPS, TWO_STEPS, config), make_actor(TWO_STEPS, 4), config, seed=0)


def test_sparse_value_loss_by_hand() -> None:
    # 2 alpha = 1, so u = 1 + Q - V = 1.5, 0.5, -0.25 and the loss is the mean of 2.25 + 1, 0.25 + 1, 0 + 0.5.
    q, value = torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.5, 0.5, 0.25], requires_grad=True)
    loss = sparse_value_loss(q, value, alpha=0.5)
    assert loss.item() == pytest.approx(5 / 3)
    # d/dV = (1 - relu(u)) / alpha / 3.
    loss.backward()
    assert value.grad is not None
    torch.testing.assert_close(value.grad, torch.tensor([-1 / 3, 1 / 3, 2 / 3]))


def test_sparse_value_loss_gradient_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(16, generator=generator, dtype=torch.float64)
    value = torch.randn(16, generator=generator, dtype=torch.float64).requires_grad_()
    inactive = (1 + (q - value) / 0.4 < 0).sum().item()
    assert 0 < inactive < 16  # both branches of the indicator are in the batch
    assert torch.autograd.gradcheck(lambda values: sparse_value_loss(q, values, 0.2), value, eps=1e-6, atol=1e-6)


def test_iql_value_loss_by_hand() -> None:
    # Q - V = 2 and -1: (0.7 * 4 + 0.3 * 1) / 2.
    loss, metrics = iql(expectile=0.7).value_loss(torch.tensor([3.0, 0.0]), torch.tensor([1.0, 1.0]))
    assert loss.item() == pytest.approx(1.55)
    assert metrics["policy/value"].item() == pytest.approx(1.0)


def test_iql_critic_loss_weights_rows_and_bootstraps_truncated_ones() -> None:
    learner = iql(discount=0.9)
    set_constant(learner.critics, 1.0, 3.0)
    batch = whole(learner.sampler.target)
    assert batch.not_done_B.tolist() == [1.0, 0.0]
    inputs = torch.cat([batch.observation_BO, batch.action_BA], dim=1)
    # Returns: 1 + 0.9 * 10 = 10 (truncated) and 1 (terminated). Squared errors: 81, 0 of Q1 and 49, 4 of Q2.
    next_value = torch.tensor([10.0, 10.0])
    loss, _ = learner.critic_loss(batch, inputs, next_value, torch.tensor([1.0, 2.0]))
    assert loss.item() == pytest.approx((81 + 2 * 0) / 2 + (49 + 2 * 4) / 2)
    unweighted, _ = learner.critic_loss(batch, inputs, next_value, torch.ones(2))
    assert unweighted.item() == pytest.approx((81 + 0) / 2 + (49 + 4) / 2)


def test_next_value_after_step_uses_the_updated_value_function() -> None:
    before, after = iql(), iql(next_value="after_step")
    batch, weight = after.sampler.sample(after.generator)
    updated = iql()
    updated.value_then_critics(batch, weight)  # moves V alone
    assert torch.equal(updated.critics.numbers_KS, before.critics.numbers_KS)
    assert not torch.equal(updated.value.numbers_KS, before.value.numbers_KS)
    with torch.no_grad():
        next_value = updated.value(batch.next_observation_BO).squeeze(-1)
    state_action = torch.cat([batch.observation_BO, batch.action_BA], dim=1)
    expected, _ = before.critic_loss(batch, state_action, next_value, weight)
    loss, metrics, advantage = after.value_then_critics(batch, weight)
    torch.testing.assert_close(loss, expected)
    _, joint_metrics, joint_advantage = before.critic_losses(batch, weight)
    torch.testing.assert_close(advantage, joint_advantage)  # the actor's weights use V before the step in both cases
    assert metrics["policy/value_loss"] == joint_metrics["policy/value_loss"]
    assert metrics["policy/critic_loss"] != joint_metrics["policy/critic_loss"]


def test_sparse_critic_loss_bootstraps_truncated_rows() -> None:
    transitions = Transitions(TWO_STEPS, raw(1))
    learner = AdvantageLearner(transitions, 0, ADVANTAGES(kind="sparse_q", width=4, discount=0.9), seed=0)
    set_constant(learner.critics, 1.0, 3.0)
    set_constant(learner.value, 10.0)
    batch = whole(transitions)
    loss, _ = learner.critic_loss(batch, torch.cat([batch.observation_BO, batch.action_BA], dim=1))
    assert loss.item() == pytest.approx((81 + 0 + 49 + 4) / 4)


def test_sparse_value_loss_uses_the_smaller_target_critic() -> None:
    transitions = Transitions(TWO_STEPS, raw(1))
    learner = AdvantageLearner(transitions, 0, ADVANTAGES(kind="sparse_q", width=4, alpha=0.5), seed=0)
    set_constant(learner.target_critics, 7.0, 1.0)
    set_constant(learner.value, 0.5)
    batch = whole(transitions)
    loss, _ = learner.value_loss(batch.observation_BO, torch.cat([batch.observation_BO, batch.action_BA], dim=1))
    assert loss.item() == pytest.approx(1.5**2 + 1.0)  # u = 1 + (1 - 0.5), V / alpha = 1
    set_constant(learner.critics, 5.0, 2.0)
    np.testing.assert_allclose(learner.score(transitions), [1.5, 1.5])  # min(5, 2) - 0.5


def test_actor_loss_clamps_the_advantage_weight() -> None:
    learner = iql(temperature=3.0)
    set_constant(learner.actor, 0.0)
    # Weights exp(0) = 1 and exp(6) = 403 -> 100; squared errors of action 0 against 0.5 and -1.
    loss, metrics = learner.actor_loss(whole(learner.sampler.target), torch.tensor([0.0, 2.0]))
    assert loss.item() == pytest.approx((1 * 0.25 + 100 * 1.0) / 2)
    assert metrics["policy/advantage_weight"].item() == pytest.approx(50.5)


def test_contrastive_loss_equals_binary_cross_entropy_on_explicit_logits() -> None:
    generator = torch.Generator().manual_seed(1)
    query, positive = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)
    negative = torch.randn(4, 3, generator=generator)
    logits = torch.empty(5, 5)
    for row in range(5):
        keys = torch.cat([positive[row : row + 1], negative])
        logits[row] = keys @ query[row]
    truth = torch.zeros(5, 5)
    truth[:, 0] = 1.0
    expected = functional.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(contrastive_loss(query, positive, negative), expected)


def test_contrastive_loss_by_hand() -> None:
    # Logits 1 (positive) and 0 (negative): (log(1 + e^-1) + log 2) / 2.
    loss = contrastive_loss(torch.tensor([[1.0]]), torch.tensor([[1.0]]), torch.tensor([[0.0]]))
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(2)) / 2)


def test_kl_to_standard_normal_by_hand() -> None:
    mean = torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]])
    log_std = torch.tensor([[0.0, 0.0], [0.0, 0.0], [math.log(2), 0.0]])
    # 0; (1 + 4) / 2; (4 - 1 - 2 log 2) / 2.
    expected = torch.tensor([0.0, 2.5, 1.5 - math.log(2)])
    torch.testing.assert_close(kl_to_standard_normal(mean, log_std), expected)


def test_minmax_by_hand() -> None:
    assert minmax(torch.tensor([2.0, 4.0, 3.0])).tolist() == [0.0, 1.0, 0.5]
    assert minmax(torch.tensor([7.0, 7.0])).tolist() == [0.0, 0.0]


def test_calibrated_threshold_by_hand() -> None:
    held_out = np.arange(11, dtype=np.float32)
    assert calibrated_threshold(held_out, 0.9) == pytest.approx(1.0)
    assert calibrated_threshold(held_out, 0.5) == pytest.approx(5.0)


def test_ranks_keep_the_order_of_scores() -> None:
    pool = np.asarray([3.0, 1.0, 4.0, 2.0], np.float32)
    values = np.asarray([0.0, 1.0, 2.5, 3.5, 9.0], np.float32)
    assert ranks(values, pool)[[0, 2, 3, 4]].tolist() == [0.0, 0.5, 0.75, 1.0]
    assert ranks(pool, pool).argsort().tolist() == pool.argsort().tolist()
    np.testing.assert_array_equal(ranks(values**3, pool**3), ranks(values, pool))  # units do not matter


@pytest.mark.parametrize("num_acceptable", [0, 1, 3])
def test_calibration_on_ranks_accepts_the_same_rows_as_on_scores(num_acceptable: int) -> None:
    generator = np.random.default_rng(0)
    held_out = generator.normal(10.0, 0.1, 50).astype(np.float32)
    source = generator.normal(0.0, 1.0, 40).astype(np.float32)
    source[:num_acceptable] = 20.0
    pool = ranks(source, source)
    rule = FILTERS(rule="calibrated", target_acceptance=0.9)
    eligible = SourceFilter.prepare(rule, pool, ranks(held_out, source)).eligible
    assert eligible.tolist() == list(range(num_acceptable))


def test_window_average_stays_inside_its_episode() -> None:
    zeros = np.zeros((6, 1))
    table = table_of(zeros, zeros, np.zeros(6), zeros, [4, 2], [False, False])
    values = np.asarray([0.0, 2.0, 4.0, 6.0, 100.0, 200.0], np.float32)
    # The window moves inwards at the ends of an episode; the second episode is shorter than the window.
    assert window_average(values, table, 3).tolist() == [2.0, 2.0, 4.0, 4.0, 150.0, 150.0]
    assert window_average(values, table, 1).tolist() == values.tolist()


def test_split_target_partitions_the_transitions() -> None:
    rows = np.arange(20, dtype=np.float32)[:, None]
    for lengths in ([20], [13, 7], [4] * 5, [1] * 20):
        table = table_of(rows, rows, rows[:, 0], rows, lengths, [True] * len(lengths))
        fitted, held_out = split_target(table, 0.25, seed=3)
        assert sorted([*fitted.reward, *held_out.reward]) == rows[:, 0].tolist()
        assert held_out.num_transitions == pytest.approx(5, abs=3)
        if len(lengths) < 5:  # the last steps are held out; the cut episode does not terminate in the fitted part
            assert held_out.reward.tolist() == [15.0, 16.0, 17.0, 18.0, 19.0]
            assert fitted.terminal_rows[-1] == 0.0 and held_out.terminal_rows[-1] == 1.0


def test_preprocessing_statistics_by_hand() -> None:
    observation = [[1.0, 5.0], [3.0, 5.0], [1.0, 5.0], [3.0, 5.0]]
    table = table_of(observation, np.zeros((4, 1)), [1.0, 2.0, 10.0, 3.0], observation, [2, 2], [True, False])
    doubled = table.replace(reward=table.reward * 2)
    once, twice = (make_manifest([summarize_part(part)], robot="unknown") for part in (table, doubled))
    found = make_preprocessing(once, twice, standardize=True, reward_scale=None)
    assert found.observation_mean.tolist() == [2.0, 5.0]
    np.testing.assert_allclose(found.observation_std, [1.0, 1e-3])  # a constant feature gets the floor
    assert found.reward_scale == pytest.approx(1000 / (26 - 3))
    assert return_range_scale(once) == pytest.approx(1000 / (13 - 3))
    plain = make_preprocessing(once, twice, standardize=False, reward_scale=2.0)
    assert (plain.observation_mean.tolist(), plain.observation_std.tolist()) == ([0.0, 0.0], [1.0, 1.0])
    assert plain.reward_scale == 2.0


def test_transitions_return_the_right_columns() -> None:
    table = table_of([[1.0], [2.0]], [[0.1], [0.2]], [3.0, 4.0], [[5.0], [6.0]], [2], [True])
    columns = {
        "z": np.asarray([[7.0, 8.0], [9.0, 10.0]], np.float32),
        "advantage": np.asarray([11.0, 12.0], np.float32),
    }
    batch = Transitions(table, raw(1), columns).at(torch.tensor([1, 0, 1]))
    assert batch.observation_BO.tolist() == [[2.0], [1.0], [2.0]]
    assert batch.next_observation_BO.tolist() == [[6.0], [5.0], [6.0]]
    assert batch.reward_B.tolist() == [4.0, 3.0, 4.0]
    assert batch.not_done_B.tolist() == [0.0, 1.0, 0.0]
    assert batch.extra["z"].tolist() == [[9.0, 10.0], [7.0, 8.0], [9.0, 10.0]]
    assert batch.extra["advantage"].tolist() == [12.0, 11.0, 12.0]


def test_cosine_decays_the_rate_to_zero() -> None:
    assert cosine(3e-4, 0, 100) == pytest.approx(3e-4)
    assert cosine(3e-4, 50, 100) == pytest.approx(1.5e-4)
    assert cosine(3e-4, 100, 100) == pytest.approx(0.0, abs=1e-12)
