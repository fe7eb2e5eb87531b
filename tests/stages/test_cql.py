"""Conservative Q-learning: densities and the soft maximum against closed forms, and training on a bandit."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from tests.stages.problems import BANDIT, make_actor, mixed_sampler, set_constant, whole
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.stages.policy.config import LEARNERS
from v2a_ray.stages.policy.cql import CQLLearner


def learner(**settings) -> CQLLearner:
    torch.manual_seed(0)
    given = {"width": 4, "batch_size": 2, "num_steps": 10, "data": "target"} | settings
    config = LEARNERS(learner="cql", **given)
    return CQLLearner(mixed_sampler(BANDIT, BANDIT, config), make_actor(BANDIT, config.width), config, seed=0)


def test_log_densities_equal_those_of_a_tanh_gaussian() -> None:
    made = learner()
    set_constant(made.actor, 0.3)
    with torch.no_grad():
        made.log_std_A.fill_(math.log(0.8))
    actions, log_density = made.drawn(torch.ones(50, 1))
    exact = TransformedDistribution(Normal(0.3, 0.8), [TanhTransform()]).log_prob(actions)
    torch.testing.assert_close(log_density, exact.squeeze(1), atol=1e-3, rtol=1e-4)
    with torch.no_grad():
        made.log_std_A.fill_(2.0)
    assert made.drawn(torch.ones(5000, 1))[1].isfinite().all()  # also where the tanh rounds to 1


def linear_in_the_action(made: CQLLearner, slope: float) -> None:
    """Set both critics to Q(s, a) = slope * a."""
    with torch.no_grad():
        made.critics.numbers_KS.zero_()
        first, second, last = made.critics.weights
        first[:, 1, :2] = torch.tensor([1.0, -1.0])
        second[:, :2, :2] = torch.eye(2)
        last[:, :2, 0] = torch.tensor([slope, -slope])


@pytest.mark.parametrize("slope", [0.0, 3.0])
def test_soft_maximum_equals_the_log_of_the_integral(slope: float) -> None:
    made = learner(num_samples=20_000, conservatism=0.5)
    linear_in_the_action(made, slope)
    with torch.no_grad():
        made.log_std_A.zero_()  # importance weights of a narrow policy would have infinite variance
    batch = whole(made.sampler.target)
    q_KB = made.q(made.critics, batch.observation_BO, batch.action_BA)
    torch.testing.assert_close(q_KB, slope * batch.action_BA.T.expand(2, 2))
    # The integral of exp(w a) over [-1, 1] is 2 sinh(w) / w; the data's Q have mean 0; there are two critics.
    exact = math.log(2 * math.sinh(slope) / slope) if slope else math.log(2)
    assert made.value_penalty(batch, q_KB).item() == pytest.approx(0.5 * 2 * exact, rel=0.02)


def test_penalty_is_added_to_the_td_loss_once() -> None:
    made, free = learner(), learner(conservatism=0.0)
    batch = whole(made.sampler.target)
    with_penalty, _ = made.critic_loss(batch, torch.zeros(2, 1), torch.ones(2))
    without, _ = free.critic_loss(batch, torch.zeros(2, 1), torch.ones(2))
    again = learner()
    penalty = again.value_penalty(batch, again.q(again.critics, batch.observation_BO, batch.action_BA))
    assert with_penalty.item() == pytest.approx((without + penalty).item(), rel=1e-5) and penalty > 0


def test_temperature_rises_when_the_entropy_is_too_low_and_falls_otherwise() -> None:
    for log_std, rises in ((-4.0, True), (0.0, False)):
        made = learner()
        set_constant(made.actor, 0.0)
        with torch.no_grad():
            made.log_std_A.fill_(log_std)
        made.update(0)
        assert (made.log_temperature.item() > 0) == rises


@pytest.mark.parametrize("conservatism", [0.0, 1.0])
def test_cql_solves_a_bandit_and_lowers_values_of_unseen_actions(conservatism: float) -> None:
    made = learner(width=32, batch_size=64, learning_rate=3e-3, conservatism=conservatism)
    TrainingLoop(400).run(made)
    states = torch.ones(3, 1)
    actions = torch.tensor([[-0.5], [0.5], [-1.0]])
    bad, good, unseen = made.q(made.critics, states, actions).amin(dim=0).tolist()
    assert good > bad + 0.5
    assert made.actor.act(torch.tensor([[1.0]])).item() > 0.2
    if conservatism:
        free = learner(width=32, batch_size=64, learning_rate=3e-3, conservatism=0.0)
        TrainingLoop(400).run(free)
        optimistic = free.q(free.critics, states, actions).amin(dim=0).tolist()
        assert good - unseen > optimistic[1] - optimistic[2] + 0.5
