"""ReBRAC against numbers computed by hand, and its layer normalisation against torch's."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tests.stages.problems import make_actor, mixed_sampler, set_constant, table_of
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.networks import NormalizedEnsembleMLP
from v2a_ray.stages.policy.config import LEARNERS
from v2a_ray.stages.policy.rebrac import ReBRACLearner, next_actions

STEPS = table_of([[0.0]] * 3, [[0.5], [-1.0], [0.25]], [1.0] * 3, [[0.0]] * 3, [2, 1], [False, True])
"""A truncated episode of two steps and a terminated episode of one step."""


def learner(table=STEPS, next_action=(-1.0, np.nan, np.nan), **settings):
    torch.manual_seed(0)
    given = {"width": 4, "batch_size": 2, "num_steps": 10, "data": "target"} | settings
    config = LEARNERS(learner="rebrac", **given)
    column = {"next_action": np.asarray(next_action)[:, None]}
    sampler = mixed_sampler(table, table, config, column, column)
    return ReBRACLearner(sampler, make_actor(table, config.width), config, seed=0)


def test_next_actions_are_nan_at_the_end_of_an_episode() -> None:
    found = next_actions(STEPS.action, STEPS.offsets)
    np.testing.assert_array_equal(found, np.asarray([[-1.0], [np.nan], [np.nan]], np.float32))
    assert STEPS.action.tolist() == [[0.5], [-1.0], [0.25]]


def test_critic_target_penalises_the_distance_to_the_next_action() -> None:
    made = learner(discount=0.9, critic_penalty=2.0)
    set_constant(made.critics, 1.0, 3.0)
    set_constant(made.target_critics, 20.0, 10.0)
    # The policy's next action is 0, the data's -1 in the first row, so its return is 1 + 0.9 * (10 - 2 * 1) = 8.2;
    # the second row is truncated: 1 + 0.9 * 10 = 10; the third is terminal: 1.
    loss, _ = made.critic_loss(made.sampler.target.all(), torch.zeros(3, 1), torch.ones(3))
    expected = (7.2**2 + 9**2 + 0) / 3 + (5.2**2 + 7**2 + 2**2) / 3
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_actor_loss_by_hand() -> None:
    made = learner(actor_penalty=0.1)
    batch = made.sampler.target.all()
    q_B = torch.tensor([3.0, -1.0, 2.0], requires_grad=True)
    # mean|Q| = 2, mean Q = 4 / 3; squared distances of 0.5 to 0.5, -1 and 0.25: 0, 2.25 and 0.0625.
    loss = made.actor_loss(batch, torch.full((3, 1), 0.5), q_B)
    assert loss.item() == pytest.approx(-4 / 3 / 2 + 0.1 * (2.25 + 0.0625) / 3)
    loss.backward()
    torch.testing.assert_close(q_B.grad, torch.full((3,), -1 / 6))  # mean|Q| is a constant


def test_sampler_draws_next_actions_with_their_rows() -> None:
    made = learner()
    batch, _ = made.sampler.sample(torch.Generator().manual_seed(0))
    first = batch.action_BA[:, 0] == 0.5
    assert (batch.extra["next_action"][first] == -1.0).all() and batch.extra["next_action"][~first].isnan().all()
    mixed = learner(data="mixed")
    assert mixed.sampler.sample(torch.Generator().manual_seed(0))[0].extra["next_action"].shape == (4, 1)


def test_normalized_ensemble_equals_torch_layer_norm() -> None:
    """`nn.LayerNorm` starts with scale 1 and shift 0, so both give the same outputs."""
    torch.manual_seed(0)
    network = NormalizedEnsembleMLP(2, 3, [5, 5], 1)
    inputs = torch.randn(7, 3)
    for member, output in enumerate(network(inputs)):
        layers: list[nn.Module] = []
        for weight, bias in zip(network.weights, network.biases, strict=True):
            linear = nn.Linear(*weight[member].shape)
            linear.weight.data, linear.bias.data = weight[member].t(), bias[member]
            layers += [linear, nn.ReLU(), nn.LayerNorm(weight.shape[2])]
        torch.testing.assert_close(output, nn.Sequential(*layers[:-2])(inputs))


def test_critics_are_normalised_in_training_and_target() -> None:
    made = learner()
    assert isinstance(made.critics, NormalizedEnsembleMLP) and isinstance(made.target_critics, NormalizedEnsembleMLP)


@pytest.mark.parametrize(("critic_penalty", "value"), [(0.0, 1.0), (1.0, 0.0)])
def test_rebrac_values_of_a_chain_match_the_closed_form(critic_penalty: float, value: float) -> None:
    """s = 1 leads to s = -1, which has reward 1 and is terminal; the data's actions are 0.5, then -0.5.

    A policy with action 0.5 everywhere has the penalty (0.5 + 0.5)^2 for its next action: Q(1, 0.5) = 1 - beta_2.
    """
    table = table_of([[1.0], [-1.0]], [[0.5], [-0.5]], [0.0, 1.0], [[-1.0], [0.0]], [2], [True])
    made = learner(
        table,
        (-0.5, np.nan),
        width=32,
        batch_size=32,
        discount=1.0,
        noise_std=0.0,
        critic_penalty=critic_penalty,
        learning_rate=3e-3,
    )
    set_constant(made.target_actor, math.atanh(0.5))
    made.config = made.config.model_copy(update={"delay_steps": 10**9})  # the actor stays fixed

    # Q'(s', 0.5) would be extrapolated, so it is set.
    set_constant(made.target_critics, 1.0, 1.0)
    TrainingLoop(400).run(made)
    batch = made.sampler.target.all()
    for values in made.q(made.critics, batch.observation_BO, batch.action_BA):
        assert values.tolist() == pytest.approx([value, 1.0], abs=0.1)
