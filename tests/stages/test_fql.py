"""Flow Q-learning by hand, and on a bandit with two actions in the data."""

from __future__ import annotations

import pytest
import torch

from tests.stages.problems import BANDIT, make_actor, mixed_sampler, set_constant, whole
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.stages.policy.config import LEARNERS
from v2a_ray.stages.policy.fql import FQLLearner


def learner(**settings) -> FQLLearner:
    torch.manual_seed(0)
    given = {"width": 8, "batch_size": 4, "num_steps": 10, "data": "target"} | settings
    config = LEARNERS(learner="fql", **given)
    return FQLLearner(mixed_sampler(BANDIT, BANDIT, config), make_actor(BANDIT, config.width), config, seed=0)


def test_one_step_policy_equals_the_actor_at_zero_noise_only() -> None:
    made, states = learner(), torch.randn(5, 1)
    torch.testing.assert_close(made.one_step(states, torch.zeros(5, 1)), made.actor(states))
    assert not torch.allclose(made.one_step(states, torch.ones(5, 1)), made.actor(states))
    assert made.one_step(states, 100 * torch.randn(5, 1)).abs().max() <= 1


def test_flow_loss_by_hand() -> None:
    made, batch = learner(), whole(learner().sampler.target)
    set_constant(made.flow, 0.5)
    # From noise 1 and 0 to the actions -0.5 and 0.5 the velocities are -1.5 and 0.5.
    loss = made.flow_loss(batch, torch.tensor([[1.0], [0.0]]), torch.tensor([[0.3], [0.9]]))
    assert loss.item() == pytest.approx((2.0**2 + 0.0**2) / 2)


def test_flow_loss_evaluates_the_velocity_between_noise_and_action() -> None:
    made, batch = learner(), whole(learner().sampler.target)
    asked: list[tuple[torch.Tensor, torch.Tensor]] = []

    def velocity(states: torch.Tensor, at: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        asked.append((at, time))
        return at

    made.velocity = velocity  # type: ignore[assignment, method-assign]
    made.flow_loss(batch, torch.tensor([[1.0], [0.0]]), torch.tensor([[0.5], [0.2]]))
    torch.testing.assert_close(asked[0][0], torch.tensor([[0.25], [0.1]]))


def test_flow_action_takes_euler_steps_and_stays_in_the_action_range() -> None:
    made = learner(flow_steps=4)
    noise = torch.tensor([[0.1], [-2.0]])
    made.velocity = lambda states, at, time: at  # type: ignore[assignment, method-assign] # dx/dt = x
    torch.testing.assert_close(made.flow_action(noise, noise), torch.tensor([[0.1 * 1.25**4], [-1.0]]))
    times: list[float] = []

    def still(states: torch.Tensor, at: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        times.append(time[0].item())
        return 0 * at

    made.velocity = still  # type: ignore[assignment, method-assign]
    made.flow_action(noise, noise)
    assert times == [0.0, 0.25, 0.5, 0.75]


def trained(**settings) -> FQLLearner:
    made = learner(width=32, batch_size=128, learning_rate=3e-3, **settings)
    TrainingLoop(600).run(made)
    return made


def test_flow_and_one_step_policy_learn_both_actions_of_the_data() -> None:
    made = trained(q_weight=0.0)
    noise = torch.randn(400, 1, generator=torch.Generator().manual_seed(1))
    states = torch.ones(400, 1)
    for actions in (made.flow_action(states, noise), made.one_step(states, noise).detach()):
        assert (actions.abs() - 0.5).abs().median() < 0.1  # their mean is 0
        assert 0.35 < (actions > 0).float().mean() < 0.65
    assert (made.flow_action(states, noise) - made.one_step(states, noise)).abs().mean() < 0.05


def test_one_step_policy_chooses_the_action_of_higher_value() -> None:
    made = trained(q_weight=1.0)
    noise = torch.randn(400, 1, generator=torch.Generator().manual_seed(1))
    assert (made.one_step(torch.ones(400, 1), noise) > 0).float().mean() > 0.9
    assert made.actor.act(torch.tensor([[1.0]])).item() > 0.3
    batch = whole(made.sampler.target)
    for values in made.q(made.critics, batch.observation_BO, batch.action_BA):
        assert values.tolist() == pytest.approx([0.0, 1.0], abs=0.15)
