"""The log ratio of states of high value to others, and the rewards corrected with it (after SRPO)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.stages.problems import make_actor, raw, table_of
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.alignment.state_ratio import StateRatioLearner, by_value
from v2a_ray.stages.policy.config import LEARNERS
from v2a_ray.stages.policy.filtering import SourceFilter
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.mixed_sampler import MixedSampler


def single_steps(state: float, reward: float, count: int = 4) -> Transitions:
    """Episodes of one terminal step from `state`."""
    states = [[state]] * count
    return Transitions(table_of(states, [[0.0]] * count, [reward] * count, states, [1] * count, [True] * count), raw(1))


def test_by_value_splits_a_batch_by_value() -> None:
    value_B = torch.tensor([0.5, -1.0, 3.0, 2.0])
    assert [rows.tolist() for rows in by_value(value_B, 0.5)] == [[2, 3], [0, 1]]
    # Each part has at least one row.
    assert [rows.tolist() for rows in by_value(value_B, 0.01)] == [[2], [3, 0, 1]]
    assert [rows.tolist() for rows in by_value(value_B, 0.99)] == [[2, 3, 0], [1]]


def test_discriminator_loss_and_score_by_hand() -> None:
    """Logit 2 s on states 1 (of value 1) and -1 (of value -1): a cross-entropy of log(1 + exp(-2))."""
    config = ALIGNMENTS(kind="state_ratio", batch_size=2, width=4, noise_std=0.0, log_ratio_clip=1.5)
    learner = StateRatioLearner(single_steps(1.0, 1.0), single_steps(-1.0, -1.0), config, seed=0)
    value, discriminator = nn.Linear(1, 1), nn.Linear(1, 1)
    learner.values.value, learner.discriminator = value, discriminator  # type: ignore[assignment]
    with torch.no_grad():
        for network, slope in ((value, 1.0), (discriminator, 2.0)):
            network.weight.fill_(slope)
            network.bias.zero_()
    loss = learner.update(0)["alignment/discriminator_loss"].item()
    assert loss == pytest.approx(math.log(1 + math.exp(-2)))
    assert learner.score(single_steps(0.5, 0.0)).tolist() == pytest.approx([1.0] * 4)
    assert learner.score(single_steps(-5.0, 0.0)).tolist() == [-1.5] * 4


@pytest.mark.slow
def test_state_ratio_learns_the_known_log_ratio() -> None:
    """The target's state 1 has value 1, the source's state -1 value 0. With noise of standard deviation 1, their
    densities are N(1, 1) and N(-1, 1), with log ratio 2 s."""
    torch.manual_seed(0)
    config = ALIGNMENTS(kind="state_ratio", num_steps=1500, batch_size=128, width=16, learning_rate=2e-3, noise_std=1.0)
    learner = StateRatioLearner(single_steps(1.0, 1.0), single_steps(-1.0, 0.0), config, seed=0)
    TrainingLoop(config.num_steps).run(learner)
    states = np.linspace(-1.5, 1.5, 13)
    found = np.array([learner.score(single_steps(state, 0.0, count=2))[0].item() for state in states])
    slope, intercept = np.polyfit(states, found, 1)
    assert slope == pytest.approx(2.0, abs=0.3) and abs(intercept) < 0.3
    assert np.abs(found - 2 * states).max() < 0.6


def corrected_rewards(data: str) -> dict[str, float]:
    config = LEARNERS(batch_size=4, reward_correction=0.5, reward_correction_data=data, width=4)
    table = table_of([[0.0]] * 2, [[0.0]] * 2, [1.0, 1.0], [[0.0]] * 2, [2], [False])
    columns: dict[str, Any] = {"alignment": np.asarray([2.0, 2.0], np.float32)}
    low = np.asarray([-4.0, -4.0], np.float32)
    target = Transitions(table, raw(1), {"alignment": low} if data == "mixed" else {})
    sampler = MixedSampler(
        target, Transitions(table, raw(1), columns), SourceFilter.prepare(config.filter), config, reward_scale=10.0
    )
    IQLLearner(sampler, make_actor(table, 4), config, 0).update(0)  # a learner takes such batches
    batch, _ = sampler.sample(torch.Generator().manual_seed(0))
    return {"source": batch.reward_B[0].item(), "target": batch.reward_B[-1].item()}


def test_reward_correction_data_selects_the_corrected_tables() -> None:
    """The correction is 0.5 times the column, times the reward scale of 10."""
    assert corrected_rewards("source") == {"source": 1 + 0.5 * 2 * 10, "target": 1.0}
    assert corrected_rewards("mixed") == {"source": 1 + 0.5 * 2 * 10, "target": 1 - 0.5 * 4 * 10}
