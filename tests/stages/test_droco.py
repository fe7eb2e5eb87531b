"""Robust values on source data (after DROCO)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.stages.problems import (
    assert_same_weights,
    linear_system,
    make_actor,
    mixed_sampler,
    pushed_dynamics,
    table_of,
    weights_of,
)
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.stages.policy.config import LEARNERS
from v2a_ray.stages.policy.droco import DROCOLearner, robust_loss, value_penalty
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.support.dynamics import DynamicsModel

# The models (K = 2) predict s' - s = a and a + 0.5.
TARGET = table_of([[0.0], [0.0]], [[0.5], [0.5]], [1.0, 1.0], [[3.0], [3.0]], [1, 1], [False, False])
SOURCE = table_of([[1.0], [1.0]], [[0.5], [0.5]], [2.0, 2.0], [[4.0], [4.0]], [1, 1], [False, False])


def identity() -> nn.Linear:
    """V(s) = s."""
    network = nn.Linear(1, 1)
    nn.init.ones_(network.weight)
    nn.init.zeros_(network.bias)
    return network


def learner_of(source: EpisodeTable = SOURCE, **settings: object) -> DROCOLearner:
    """A learner with V(s) = s and Q = 0."""
    config = LEARNERS(learner="droco", batch_size=2, width=4, discount=0.5, **settings)
    sampler = mixed_sampler(TARGET, source, config)
    learner = DROCOLearner(sampler, make_actor(TARGET, 4), config, 0, pushed_dynamics())
    learner.value = identity()  # type: ignore[assignment]
    with torch.no_grad():
        for parameter in learner.critics.parameters():
            parameter.zero_()
    return learner


def loss_of(learner: DROCOLearner) -> tuple[Tensor, dict[str, Tensor]]:
    batch, weight_B = learner.sampler.sample(learner.generator)
    state_action = torch.cat([batch.observation_BO, batch.action_BA], dim=1)
    return learner.critic_loss(batch, state_action, batch.next_observation_BO[:, 0], weight_B)


def test_droco_critic_loss_by_hand() -> None:
    """Source: V(s') = 4, predicted 1.5 and 2, so u = 2.5 and the return is 2 + 0.5 * 1.5 = 2.75. Target: 1 + 1.5."""
    loss, metrics = loss_of(learner_of(huber_threshold=10.0))
    assert metrics["policy/value_penalty"].item() == pytest.approx(2.5)
    assert loss.item() == pytest.approx(2 * (2.75**2 + 2.5**2) / 2)
    # Twice the penalty: 2 + 0.5 * (4 - 5). Errors above 1 count 2 |e| - 1.
    loss, _ = loss_of(learner_of(penalty_weight=2.0, huber_threshold=1.0))
    assert loss.item() == pytest.approx(2 * ((2 * 1.5 - 1) + 2.5**2) / 2)


def test_critic_loss_without_penalty_and_huber_equals_iql() -> None:
    learner = learner_of(penalty_weight=0.0, huber_threshold=100.0)
    batch, weight_B = learner.sampler.sample(torch.Generator().manual_seed(0))
    arguments = batch, torch.zeros(len(weight_B), 2), batch.next_observation_BO[:, 0], weight_B
    assert learner.critic_loss(*arguments)[0].item() == IQLLearner.critic_loss(learner, *arguments)[0].item()


def test_terminated_step_has_no_penalty() -> None:
    ended = table_of([[1.0], [1.0]], [[0.5], [0.5]], [2.0, 2.0], [[4.0], [4.0]], [1, 1], [True, True])
    loss, _ = loss_of(learner_of(ended, huber_threshold=10.0))
    assert loss.item() == pytest.approx(2 * (2.0**2 + 2.5**2) / 2)


VALUES = st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3)


@given(value=VALUES, imagined=st.lists(VALUES, min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_robust_value_is_the_smallest_over_the_predicted_states(
    value: list[float], imagined: list[list[float]]
) -> None:
    value_b, imagined_Kb = torch.tensor(value), torch.tensor(imagined)
    robust_b = value_b - value_penalty(value_b, imagined_Kb)
    assert (robust_b <= value_b).all()
    torch.testing.assert_close(robust_b, torch.minimum(value_b, imagined_Kb.amin(dim=0)), rtol=1e-5, atol=1e-4)
    # Models that predict s' itself change nothing, for any value function.
    assert torch.equal(value_penalty(value_b, value_b.expand(2, -1)), torch.zeros(3))


def test_robust_loss_is_quadratic_then_linear() -> None:
    error = torch.tensor([-3.0, -2.0, 0.5, 2.0, 5.0], requires_grad=True)
    loss = robust_loss(error, 2.0)
    assert loss.tolist() == pytest.approx([8.0, 4.0, 0.25, 4.0, 16.0])
    loss.sum().backward()
    assert error.grad is not None and error.grad.tolist() == pytest.approx([-4.0, -4.0, 1.0, 4.0, 4.0])


def test_droco_on_the_target_alone_equals_iql() -> None:
    table = linear_system([9, 6], 0.5, seed=0)
    found = []
    for kind in ("droco", "iql"):
        config = LEARNERS(learner=kind, num_steps=10, batch_size=8, width=6, data="target")
        torch.manual_seed(0)
        sampler, actor = mixed_sampler(table, table, config), make_actor(table, 6)
        if kind == "droco":
            learner: IQLLearner = DROCOLearner(sampler, actor, config, 0, None)
        else:
            learner = IQLLearner(sampler, actor, config, 0)
        TrainingLoop(10).run(learner)
        found.append(weights_of(learner))
    assert_same_weights(*found)


# From state 0, action 0.5 leads to state -1 of value 0 in the target, and to state 1 of value 1 in the source; action
# -0.5 ends the episode with reward 0.3 in the target.
FORK = table_of(
    [[0.0], [-1.0], [0.0]], [[0.5], [0.0], [-0.5]], [0.0, 0.0, 0.3], [[-1.0], [-1.0], [0.0]], [2, 1], [True] * 2
)
TEMPTATION = table_of([[0.0], [1.0]], [[0.5], [0.0]], [0.0, 1.0], [[1.0], [1.0]], [2], [True])


def fork_dynamics() -> DynamicsModel:
    """The target's dynamics, s' - s = -2 max(a, 0)."""
    model = pushed_dynamics(num_members=1)
    with torch.no_grad():
        model.ensemble.weights[2][0, :, 0] = torch.tensor([-2.0, 0.0])
    return model


def trained_on_the_fork(kind: str) -> tuple[float, float, float]:
    """Q(0, 0.5), Q(0, -0.5) and the policy's action at 0."""
    config = LEARNERS(learner=kind, num_steps=800, batch_size=32, width=16, learning_rate=5e-3, temperature=20.0)
    torch.manual_seed(0)
    sampler, actor = mixed_sampler(FORK, TEMPTATION, config), make_actor(FORK, 16)
    if kind == "droco":
        learner: IQLLearner = DROCOLearner(sampler, actor, config, 0, fork_dynamics())
    else:
        learner = IQLLearner(sampler, actor, config, 0)
    TrainingLoop(config.num_steps).run(learner)
    with torch.no_grad():
        q_KB = learner.critics(torch.tensor([[0.0, 0.5], [0.0, -0.5]])).squeeze(-1)
    return *q_KB.amin(dim=0).tolist(), actor.act(torch.zeros(1, 1)).item()


@pytest.mark.slow
def test_droco_avoids_an_action_that_only_pays_in_the_source() -> None:
    tempted, safe, action = trained_on_the_fork("iql")
    assert tempted > safe + 0.1 and action > 0.1
    tempted, safe, action = trained_on_the_fork("droco")
    assert tempted < safe - 0.1 and action < -0.1
    assert tempted == pytest.approx(0.0, abs=0.1) and math.isclose(safe, 0.3, abs_tol=0.1)
