"""Models of the target's dynamics, and source transitions corrected with them (STC)."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.stages.problems import linear_system, mixed_sampler, pushed_dynamics, raw, set_constant, table_of
from v2a_ray.data.loading.sampler import Batch, Preprocessing, Transitions
from v2a_ray.engine.columns import read_step_column, write_step_column
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.errors import DataError
from v2a_ray.stages.policy.config import LEARNERS
from v2a_ray.stages.support.config import CorrectionConfig, DynamicsConfig
from v2a_ray.stages.support.correction import ACTION, KEPT, REWARD, CorrectionLearner, fits_better
from v2a_ray.stages.support.dynamics import DynamicsLearner, DynamicsModel


def step(state: list[float], action: list[float], following: list[float]) -> Batch:
    size = len(state)
    table = table_of(
        np.reshape(state, (-1, 1)),
        np.reshape(action, (-1, 1)),
        np.zeros(size),
        np.reshape(following, (-1, 1)),
        [size],
        [False],
    )
    return Transitions(table, raw(1)).all()


def test_predicted_next_observations_by_hand() -> None:
    model = pushed_dynamics(scale=2.0)
    found = model.next_observation(torch.tensor([[1.0], [1.0]]), torch.tensor([[0.5], [-1.0]]))
    # 1 + 2 (a + 0 or 0.5)
    assert found[:, :, 0].tolist() == [[2.0, -1.0], [3.0, 0.0]]
    # The mean predicts a + 0.25; s' - s = 3 is 1.5 standard deviations.
    batch = step([1.0], [0.5], [4.0])
    assert model.error(batch, batch.action_BA).tolist() == [0.75]


def test_correction_is_kept_where_it_fits_the_target_better() -> None:
    # The members predict a + 0.25 on average; s' - s = 1. The recorded action 0 has error 0.75.
    batch = step([0.0] * 4, [0.0] * 4, [1.0] * 4)
    better = fits_better(pushed_dynamics(), batch, torch.tensor([[0.75], [0.1], [0.0], [-0.5]]))
    assert better.tolist() == [True, True, False, False]  # an equal error is not better


def test_correction_losses_and_columns_by_hand() -> None:
    table = table_of([[0.0], [0.0]], [[0.5], [-0.5]], [1.0, 3.0], [[1.0], [0.0]], [2], [False])
    target = Transitions(table, raw(1))
    learner = CorrectionLearner(target, pushed_dynamics(), CorrectionConfig(batch_size=2, width=4), seed=0)
    # Rewards have mean 2 and standard deviation sqrt 2; the models predict tanh 1 and one standard deviation.
    set_constant(learner.inverse, 1.0)
    set_constant(learner.reward, 1.0)
    found = learner.correct(target)
    tanh = math.tanh(1.0)
    assert found[ACTION][:, 0].tolist() == pytest.approx([tanh, tanh])
    assert found[REWARD].tolist() == pytest.approx([2 + math.sqrt(2)] * 2)
    # First: |0.762 + 0.25 - 1| < |0.5 + 0.25 - 1|. Second: |0.762 + 0.25| > |-0.5 + 0.25|.
    assert found[KEPT].tolist() == [1.0, 0.0]
    drawn = target.sample(2, torch.Generator().manual_seed(0))
    metrics = learner.update(0)
    errors = [(tanh - action) ** 2 for action in drawn.action_BA[:, 0].tolist()]
    assert metrics["correction/inverse_loss"].item() == pytest.approx(sum(errors) / 2)
    rewards = [((2 + math.sqrt(2) - reward) / math.sqrt(2)) ** 2 for reward in drawn.reward_B.tolist()]
    assert metrics["correction/reward_loss"].item() == pytest.approx(sum(rewards) / 2)


SOURCE = table_of([[1.0]] * 3, [[0.1], [0.2], [0.3]], [1.0, 2.0, 3.0], [[2.0]] * 3, [3], [False])
TARGET = table_of([[5.0]] * 3, [[0.9]] * 3, [9.0] * 3, [[6.0]] * 3, [3], [False])
COLUMNS = {ACTION: [[-0.1], [-0.2], [-0.3]], REWARD: [-1.0, -2.0, -3.0], KEPT: [1.0, 0.0, 1.0]}


def sampled(correct: bool) -> Batch:
    config = LEARNERS(batch_size=40, correct_transitions=correct)
    return mixed_sampler(TARGET, SOURCE, config, COLUMNS).sample(torch.Generator().manual_seed(0))[0]


def test_sampler_returns_the_kept_corrections() -> None:
    plain, corrected = sampled(correct=False), sampled(correct=True)
    expected = {0.1: (-0.1, -1.0), 0.2: (0.2, 2.0), 0.3: (-0.3, -3.0), 0.9: (0.9, 9.0)}
    for recorded, action, reward in zip(
        plain.action_BA[:, 0].tolist(), corrected.action_BA[:, 0].tolist(), corrected.reward_B.tolist(), strict=True
    ):
        assert (action, reward) == pytest.approx(expected[round(recorded, 1)])
    assert len({round(value, 1) for value in plain.action_BA[:, 0].tolist()}) == 4
    same = replace(corrected, action_BA=plain.action_BA, reward_B=plain.reward_B)
    assert all(torch.equal(getattr(same, name), getattr(plain, name)) for name in ("observation_BO", "not_done_B"))


def test_vector_column_is_reordered_with_its_episodes(tmp_path: Path) -> None:
    table = linear_system([3, 1, 4], 1.0, seed=0)
    values = np.arange(16, dtype=np.float32).reshape(8, 2)
    write_step_column(tmp_path / "column.parquet", "pair", table, values)
    reordered = table.select([2, 0])
    found = read_step_column(tmp_path / "column.parquet", "pair", reordered, width=2)
    assert np.array_equal(found, values[[4, 5, 6, 7, 0, 1, 2]])
    with pytest.raises(DataError, match="14 values for 7 transitions"):
        read_step_column(tmp_path / "column.parquet", "pair", reordered)


TARGET_GAIN = 0.5


@pytest.fixture(scope="module")
def laboratory() -> CorrectionLearner:
    """Models of a target with s' = 0.9 s + 0.5 a and rewards -|s|^2."""
    target = Transitions(linear_system([25] * 60, TARGET_GAIN, seed=0), raw(2))
    torch.manual_seed(0)
    dynamics = DynamicsLearner(target, DynamicsConfig(num_steps=1500, width=32, num_members=3, learning_rate=2e-3), 0)
    TrainingLoop(1500).run(dynamics)
    model = dynamics.model.requires_grad_(False)
    learner = CorrectionLearner(target, model, CorrectionConfig(num_steps=1500, width=32, learning_rate=2e-3), 0)
    TrainingLoop(1500).run(learner)
    return learner


@pytest.mark.slow
def test_corrected_actions_match_the_true_inverse_of_the_target(laboratory: CorrectionLearner) -> None:
    """The source has 0.7 times the target's gain, so the target reaches the same s' with 0.7 times the action."""
    table = linear_system([25] * 20, 0.7 * TARGET_GAIN, seed=1)
    found = laboratory.correct(Transitions(table, raw(2)))
    truth, recorded = 0.7 * table.action, np.asarray(table.action)
    error, before = np.abs(found[ACTION].numpy() - truth), np.abs(recorded - truth)
    assert error.mean() < 0.25 * before.mean()
    far = np.abs(recorded[:, 0]) > 0.5
    assert found[KEPT].numpy()[far].mean() > 0.95
    reward_error = np.abs(found[REWARD].numpy() - table.reward)
    assert np.median(reward_error) < 0.1 * np.std(table.reward)


def test_correction_hardly_changes_target_data(laboratory: CorrectionLearner) -> None:
    """Target data needs no correction, so corrected actions stay close to recorded ones."""
    table = linear_system([25] * 20, TARGET_GAIN, seed=2)
    found = laboratory.correct(Transitions(table, raw(2)))
    assert np.abs(found[ACTION].numpy() - table.action).mean() < 0.05


def test_worse_correction_is_refused(laboratory: CorrectionLearner) -> None:
    """Corrections to the opposite action are refused almost everywhere."""
    transitions = Transitions(linear_system([25] * 20, TARGET_GAIN, seed=3), raw(2))
    batch = transitions.all()
    assert fits_better(laboratory.dynamics, batch, -batch.action_BA).float().mean() < 0.05


def test_dynamics_errors_do_not_depend_on_the_scale_of_states() -> None:
    """Errors are in units of the target's standard deviations, so the unit of measurement does not matter."""
    table = linear_system([30] * 4, TARGET_GAIN, seed=0)
    plain = Transitions(table, raw(2))
    scaled = Transitions(table, Preprocessing(np.zeros(2, np.float32), np.full(2, 0.25, np.float32), 1.0))
    for transitions in (plain, scaled):
        model = DynamicsModel(1, 2, 1, 4)
        model.set_scale(transitions)
        moved = model.delta(transitions.all())
        assert moved.std(dim=0).tolist() == pytest.approx([1.0, 1.0])
