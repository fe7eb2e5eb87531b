"""TD3+BC and AWAC against numbers computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tests.stages.problems import BANDIT, TWO_STEPS, make_actor, mixed_sampler, set_constant, weights_of
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.networks import gaussian_log_density
from v2a_ray.stages.policy.awac import AWACLearner
from v2a_ray.stages.policy.config import LEARNERS
from v2a_ray.stages.policy.td3_bc import TD3BCLearner, td3_bc_actor_loss

NAMES = {TD3BCLearner: "td3_bc", AWACLearner: "awac"}


def learner_of(kind: type, table=TWO_STEPS, **settings):
    torch.manual_seed(0)
    config = LEARNERS(
        learner=NAMES[kind], **({"width": 4, "batch_size": 2, "num_steps": 10, "data": "target"} | settings)
    )
    return kind(mixed_sampler(table, table, config), make_actor(table, config.width), config, seed=0)


def test_td3_bc_actor_loss_by_hand() -> None:
    # mean|Q| = 2, so w = 2.5 / 2; mean Q = 1; squared errors 0.25, 0, 1, 0.75^2.
    q = torch.tensor([3.0, -1.0], requires_grad=True)
    policy = torch.tensor([[0.5, 0.0], [0.0, 0.25]])
    action = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    loss = td3_bc_actor_loss(q, policy, action, q_weight=2.5)
    assert loss.item() == pytest.approx(-1.25 * 1.0 + (0.25 + 0.0 + 1.0 + 0.5625) / 4)
    loss.backward()
    torch.testing.assert_close(q.grad, torch.full((2,), -1.25 / 2))  # mean|Q| is a constant


@pytest.mark.parametrize("kind", [TD3BCLearner, AWACLearner])
def test_critic_loss_uses_the_smaller_target_critic_and_row_weights(kind: type) -> None:
    learner = learner_of(kind, discount=0.9)
    set_constant(learner.critics, 1.0, 3.0)
    set_constant(learner.target_critics, 20.0, 10.0)
    batch = learner.sampler.target.all()
    # Returns: 1 + 0.9 * 10 = 10 (truncated) and 1 (terminated). Squared errors: 81, 0 of Q1 and 49, 4 of Q2.
    loss, _ = learner.critic_loss(batch, torch.zeros(2, 1), torch.tensor([1.0, 2.0]))
    assert loss.item() == pytest.approx((81 + 2 * 0) / 2 + (49 + 2 * 4) / 2)


def test_td3_smoothing_noise_is_clipped() -> None:
    learner = learner_of(TD3BCLearner, noise_std=1e6, noise_clip=0.5)
    batch = learner.sampler.target.all()
    set_constant(learner.target_actor, math.atanh(0.2))
    for action in learner.smoothed_action(batch).flatten().tolist():
        assert action == pytest.approx(0.7, abs=1e-5) or action == pytest.approx(-0.3, abs=1e-5)
    set_constant(learner.target_actor, math.atanh(0.8))
    assert learner.smoothed_action(batch).max() <= 1.0


def test_td3_bc_updates_its_actor_every_second_step() -> None:
    learner = learner_of(TD3BCLearner)
    before = weights_of(learner)
    learner.update(0)
    kept = {name for name, value in weights_of(learner).items() if torch.equal(value, before[name])}
    assert kept == {name for name in before if not name.startswith("critics.")}
    learner.update(1)
    moved = {name.split(".")[0] for name in kept if not torch.equal(weights_of(learner)[name], before[name])}
    assert moved == {"actor", "target_actor", "target_critics"}


def test_gaussian_log_density_by_hand() -> None:
    # Standard deviations 1 and 2, distances 1 and 2: both are 1 standard deviation away.
    density = gaussian_log_density(
        torch.tensor([[0.0, 1.0]]), torch.tensor([0.0, math.log(2)]), torch.tensor([[1.0, -1.0]])
    )
    assert density.item() == pytest.approx(-0.5 - 0.5 - math.log(2) - math.log(2 * math.pi))


def test_gaussian_log_density_gradient_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, action = (torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    log_std = torch.tensor([-0.5, 0.0, 0.3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gaussian_log_density, (mean, log_std, action))


def test_awac_actor_loss_has_clamped_weights() -> None:
    learner = learner_of(AWACLearner, temperature=2.0)
    set_constant(learner.actor, 0.0)
    with torch.no_grad():
        learner.log_std_A.fill_(5.0)  # outside the range, so std = 1
    # exp(A / 2): 1 and exp(6) = 403 -> 100; actions 0.5 and -1.
    loss, metrics = learner.actor_loss(learner.sampler.target.all(), torch.tensor([0.0, 12.0]))
    constant = 0.5 * math.log(2 * math.pi)
    assert loss.item() == pytest.approx((1 * (0.125 + constant) + 100 * (0.5 + constant)) / 2)
    assert metrics["policy/advantage_weight"].item() == pytest.approx(50.5)


def test_awac_advantage_of_constant_critics_is_zero() -> None:
    learner = learner_of(AWACLearner, num_samples=3)
    set_constant(learner.critics, 4.0, 2.0)
    assert learner.advantage(learner.sampler.target.all()).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("kind", [TD3BCLearner, AWACLearner])
def test_learner_prefers_the_better_action_of_a_bandit(kind: type) -> None:
    learner = learner_of(kind, BANDIT, width=16, batch_size=64, num_steps=400, learning_rate=3e-3)
    TrainingLoop(400).run(learner)
    batch = learner.sampler.target.all()
    for critic in learner.q(learner.critics, batch.observation_BO, batch.action_BA):
        assert critic.tolist() == pytest.approx([0.0, 1.0], abs=0.1)
    # Behaviour cloning would give 0. AWAC's optimum is 0.5 * tanh(0.5) = 0.23.
    assert learner.actor.act(torch.tensor([[1.0]])).item() > 0.15
