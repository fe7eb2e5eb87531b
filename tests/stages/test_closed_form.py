"""Learners reach the known solutions of small problems."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.stages.problems import make_actor, mixed_sampler, raw, table_of, whole
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.stages.advantage.config import ADVANTAGES
from v2a_ray.stages.advantage.learner import AdvantageLearner
from v2a_ray.stages.policy.config import LEARNERS
from v2a_ray.stages.policy.iql import IQLLearner

GAMMA = 0.5
STATE = np.eye(3)


def chain() -> EpisodeTable:
    """Three one-hot states and two equally frequent episodes:

    s0 --a = 0.5, reward 0--> s1 --a = 0, reward 2--> terminal
    s0 --a = -0.5, reward 0--> s2 --a = 0, reward 3--> s2, truncated: s2 loops forever
    """
    return table_of(
        [STATE[0], STATE[1], STATE[0], STATE[2]],
        [[0.5], [0.0], [-0.5], [0.0]],
        [0.0, 2.0, 0.0, 3.0],
        [STATE[1], STATE[1], STATE[2], STATE[2]],
        [2, 2],
        [True, False],
    )


# Q: s1 gives 2; s2 gives 3 / (1 - 0.5) = 6; s0 gives 0.5 * 2 = 1 or 0.5 * 6 = 3.
Q = [1.0, 2.0, 3.0, 6.0]
"""Q of the four transitions, in order."""


@pytest.mark.slow
def test_iql_learns_the_values_of_a_chain() -> None:
    torch.manual_seed(0)
    table = chain()
    config = LEARNERS(
        num_steps=1200,
        batch_size=256,
        width=32,
        learning_rate=3e-3,
        discount=GAMMA,
        expectile=0.8,
        target_rate=0.05,
        temperature=0.5,
        data="target",
    )
    learner = IQLLearner(mixed_sampler(table, table, config), make_actor(table, 32), config, seed=0)
    TrainingLoop(config.num_steps).run(learner)
    with torch.no_grad():
        states = torch.tensor(STATE, dtype=torch.float32)
        values = learner.value(states).squeeze(-1)
        batch = whole(learner.sampler.target)
        q = learner.critics(torch.cat([batch.observation_BO, batch.action_BA], dim=1)).squeeze(-1)
    # The expectile tau of two equally frequent values is tau * high + (1 - tau) * low: 0.8 * 3 + 0.2 * 1.
    value_of_s0 = 2.6
    assert values.tolist() == pytest.approx([value_of_s0, 2.0, 6.0], abs=0.15)
    for critic in q:
        assert critic.tolist() == pytest.approx(Q, abs=0.15)
    # The policy's action at s0 is the mean of both actions, weighted by exp(0.5 * (Q - V)).
    weight = np.exp(0.5 * (np.asarray([1.0, 3.0]) - value_of_s0))
    action = float((weight * [0.5, -0.5]).sum() / weight.sum())
    assert action == pytest.approx(-0.231, abs=0.001)
    assert learner.actor.act(states)[0].item() == pytest.approx(action, abs=0.04)


def bandit(rewards: list[float]) -> EpisodeTable:
    """One state, one step, two actions: -1 and 1."""
    return table_of([[1.0]] * 2, [[-1.0], [1.0]], rewards, [[1.0]] * 2, [1, 1], [True, True])


@pytest.mark.parametrize(
    ("rewards", "value"),
    [
        # The optimum has mean over actions of relu(1 + (Q - V) / (2 alpha)) = 1, here 2 alpha = 0.4.
        ([0.0, 0.3], 0.15),  # close rewards: both actions count, V is the mean
        ([-1.0, 2.0], 1.6),  # distant rewards: only the better one counts, 0.5 * (1 + (2 - V) / 0.4) = 1
    ],
)
def test_sparse_q_learns_the_values_of_a_bandit(rewards: list[float], value: float) -> None:
    torch.manual_seed(0)
    transitions = Transitions(bandit(rewards), raw(1))
    config = ADVANTAGES(
        kind="sparse_q", num_steps=1000, batch_size=1024, width=16, learning_rate=3e-3, alpha=0.2, target_rate=0.1
    )
    learner = AdvantageLearner(transitions, 0, config, seed=0)
    TrainingLoop(config.num_steps).run(learner)
    np.testing.assert_allclose(learner.score(transitions), np.asarray(rewards) - value, atol=0.08)


def test_sparse_q_learns_the_values_of_a_chain() -> None:
    torch.manual_seed(0)
    table = chain()
    transitions = Transitions(table, raw(3))
    config = ADVANTAGES(
        kind="sparse_q",
        num_steps=1200,
        batch_size=256,
        width=32,
        learning_rate=3e-3,
        alpha=0.2,
        target_rate=0.05,
        discount=GAMMA,
    )
    learner = AdvantageLearner(transitions, 0, config, seed=0)
    TrainingLoop(config.num_steps).run(learner)
    # s1 and s2 have one action: V = Q. In s0 only the better one counts: V = 3 - 0.4.
    with torch.no_grad():
        values = learner.value(torch.tensor(STATE, dtype=torch.float32)).squeeze(-1)
    assert values.tolist() == pytest.approx([2.6, 2.0, 6.0], abs=0.15)
    np.testing.assert_allclose(learner.score(transitions), [1 - 2.6, 0.0, 0.4, 0.0], atol=0.15)


@pytest.mark.slow
def test_global_advantage_misranks_two_dynamics_and_conditioned_one_does_not() -> None:
    """One state, two dynamics: action a has reward z * a. Three quarters of the data have z = 1, so a global advantage
    prefers a = 1 everywhere, which is wrong for z = -1."""
    actions = np.asarray([1.0, -1.0] * 8, np.float32)
    z = np.repeat(np.asarray([1.0, -1.0], np.float32), [12, 4])
    count = len(actions)
    table = table_of(
        np.ones((count, 1)), actions[:, None], z * actions, np.ones((count, 1)), [1] * count, [True] * count
    )
    config = ADVANTAGES(kind="sparse_q", num_steps=800, batch_size=1024, width=16, learning_rate=3e-3, target_rate=0.1)

    def advantage(columns: dict[str, np.ndarray]) -> np.ndarray:
        torch.manual_seed(0)
        transitions = Transitions(table, raw(1), columns)
        learner = AdvantageLearner(transitions, 1 if columns else 0, config, seed=0)
        TrainingLoop(config.num_steps).run(learner)
        return learner.score(transitions)

    def preference(values: np.ndarray, dynamics: float) -> float:
        """Advantage of a = 1 over a = -1 in the data of these dynamics."""
        mine = z == dynamics
        return float(values[mine & (actions == 1)].mean() - values[mine & (actions == -1)].mean())

    # On the mixed data, Q is 0.75 * 1 - 0.25 * 1 = 0.5 for a = 1 and -0.5 for a = -1.
    plain = advantage({})
    assert preference(plain, 1.0) == pytest.approx(1.0, abs=0.2)
    assert preference(plain, -1.0) == pytest.approx(1.0, abs=0.2)
    conditioned = advantage({"z": z[:, None]})
    assert preference(conditioned, 1.0) == pytest.approx(2.0, abs=0.2)
    assert preference(conditioned, -1.0) == pytest.approx(-2.0, abs=0.2)
