"""Densities by conditional variational autoencoders, and the learners that use them (OTDF, BOSA)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tests.stages.problems import linear_system, make_actor, mixed_sampler, raw, table_of, whole
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.alignment.dynamics_density import DynamicsDensityLearner
from v2a_ray.stages.policy.bosa import BOSALearner
from v2a_ray.stages.policy.config import FILTERS, LEARNERS
from v2a_ray.stages.policy.filtering import SourceFilter
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.support.conditional_vae import (
    BehaviorDensity,
    ConditionalVAE,
    DensityLearner,
    behavior_split,
)
from v2a_ray.stages.support.config import DensityConfig

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
BATCH = table_of([[1.0], [1.0]], [[-0.5], [0.5]], [0.0, 1.0], [[1.0], [1.0]], [1, 1], [True, True])


def zeroed(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()


def gaussian_density(mean: float, log_std: float) -> BehaviorDensity:
    """A CVAE whose decoder ignores its inputs: N(mean, exp(log_std)^2) of one action in every state."""
    model = ConditionalVAE(1, 1, 1, 2, 4)
    zeroed(model)
    with torch.no_grad():
        model.decoder.biases[-1].fill_(mean)
        model.log_std_K1Y.fill_(log_std)
    return BehaviorDensity(model, num_samples=3)


def fitted(actions: Tensor, states: Tensor, num_steps: int = 1500) -> ConditionalVAE:
    table = table_of(states, actions, torch.zeros(len(states)), states, [len(states)], [False])
    config = DensityConfig(num_steps=num_steps, batch_size=256, learning_rate=2e-3)
    torch.manual_seed(0)
    model = ConditionalVAE(1, 1, 1, 2, 32)
    TrainingLoop(num_steps).run(DensityLearner(model, behavior_split, [Transitions(table, raw(1))], config, seed=0))
    return model


def log_density(model: ConditionalVAE, state: Tensor, action: Tensor, num_samples: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        return model.log_density(state, action, model.noise(num_samples, len(state), generator))[0]


def test_density_is_gaussian_if_the_decoder_ignores_its_latent() -> None:
    density = gaussian_density(0.5, math.log(2.0))
    found = density.log_density(torch.zeros(2, 1), torch.tensor([[0.5], [2.5]]), torch.Generator())
    # 0 and 1 standard deviations from the mean.
    assert found.tolist() == pytest.approx([-math.log(2) - HALF_LOG_2PI, -0.5 - math.log(2) - HALF_LOG_2PI])


def test_importance_weights_correct_for_the_encoder() -> None:
    # The decoder ignores w, so the density is N(0, 1) for every encoder; here q = N(0.3, exp(-0.2)^2).
    model = gaussian_density(0.0, 0.0).model
    with torch.no_grad():
        model.encoder.biases[-1][..., :2] = 0.3
        model.encoder.biases[-1][..., 2:] = -0.2
    found = log_density(model, torch.zeros(1, 1), torch.zeros(1, 1), num_samples=20000)
    assert found.item() == pytest.approx(-HALF_LOG_2PI, abs=0.02)


def test_fitted_density_matches_a_linear_gaussian_behaviour() -> None:
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(4000, 1, generator=generator)
    model = fitted(0.5 * state + 0.4 * torch.randn(4000, 1, generator=generator), state)
    state, distance = torch.linspace(-1, 1, 9)[:, None], torch.linspace(-1.0, 1.0, 9)[:, None]
    truth = (-0.5 * (distance / 0.4).square() - math.log(0.4) - HALF_LOG_2PI)[:, 0]
    assert (log_density(model, state, 0.5 * state + distance) - truth).abs().max() < 0.35


@pytest.mark.slow
def test_fitted_density_has_the_two_modes_of_the_behaviour() -> None:
    generator = torch.Generator().manual_seed(0)
    sign = torch.randint(0, 2, (4000, 1), generator=generator) * 2.0 - 1
    action = 0.7 * sign + 0.1 * torch.randn(4000, 1, generator=generator)
    model = fitted(action, torch.zeros(4000, 1))
    left, middle, right = log_density(model, torch.zeros(3, 1), torch.tensor([[-0.7], [0.0], [0.7]])).tolist()
    assert min(left, right) > middle + 2  # a single Gaussian would be highest in the middle
    # More samples tighten the bound.
    drawn = action[:500]
    bounds = [log_density(model, torch.zeros(500, 1), drawn, samples).mean().item() for samples in (1, 8, 64)]
    assert bounds == sorted(bounds) and bounds[0] < bounds[2]


def test_log_density_gradient_in_the_action_against_finite_differences() -> None:
    torch.manual_seed(0)
    model = ConditionalVAE(2, 2, 3, 2, 5).double()
    noise = torch.randn(2, 4, 6, 2, dtype=torch.float64)
    state = torch.randn(6, 2, dtype=torch.float64)
    action = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda action: model.log_density(state, action, noise), (action,))


def test_density_members_are_independent() -> None:
    torch.manual_seed(0)
    model = ConditionalVAE(3, 2, 1, 2, 5)
    state, action, noise = torch.randn(4, 2), torch.randn(4, 1), torch.randn(3, 2, 4, 2)
    before = model.log_density(state, action, noise)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter[1].add_(1.0)
    after = model.log_density(state, action, noise)
    assert torch.equal(before[[0, 2]], after[[0, 2]]) and not torch.equal(before[1], after[1])


def dynamics_scores(fit_to_source_too: bool) -> tuple[Tensor, Tensor]:
    """Scores of held-out target data and of a source with other dynamics."""
    target, held_out = (Transitions(linear_system([200] * 5, 0.5, seed), raw(2)) for seed in (0, 1))
    source = Transitions(linear_system([200] * 5, -0.5, seed=2), raw(2))
    config = ALIGNMENTS(num_steps=600, width=32, num_members=2, density_latent_dim=2, learning_rate=2e-3)
    torch.manual_seed(0)
    learner = DynamicsDensityLearner(target, [target, source] if fit_to_source_too else [target], config, seed=0)
    TrainingLoop(config.num_steps).run(learner)
    return learner.score(held_out), learner.score(source)


@pytest.mark.slow
def test_dynamics_density_separates_dynamics_it_was_not_fitted_to() -> None:
    threshold = math.log(0.01)
    held_out, source = dynamics_scores(fit_to_source_too=False)
    assert (held_out > threshold).float().mean() > 0.9
    assert (source > threshold).float().mean() < 0.3
    _, mistaken = dynamics_scores(fit_to_source_too=True)
    assert (mistaken > threshold).float().mean() > 0.9


def test_above_threshold_and_exp_score_weights_by_hand() -> None:
    columns = {"alignment": torch.tensor([-9.0, -4.6, 2.0])}
    above = SourceFilter.prepare(FILTERS(weight="above_threshold"))
    assert above(columns, 3)[1].tolist() == [0.0, 1.0, 1.0]  # log 0.01 = -4.605
    rule = FILTERS(
        rule="top_fraction", keep_fraction=1.0, alignment_weight=1.0, normalize_alignment=True, weight="exp_score"
    )
    keep, weight = SourceFilter.prepare(rule)({"alignment": torch.tensor([-3.0, -1.0, -2.0])}, 3)
    found = dict(zip(keep.tolist(), weight.tolist(), strict=True))
    assert found == pytest.approx({0: math.exp(-1), 1: 1.0, 2: math.exp(-0.5)})


def test_otdf_actor_loss_by_hand() -> None:
    config = LEARNERS(width=4, density_weight=0.5, data="target")
    density = gaussian_density(0.5, 0.0)
    learner = IQLLearner(
        mixed_sampler(BATCH, BATCH, config), make_actor(BATCH, 4), config, 0, density, config.density_weight
    )
    zeroed(learner.actor.body)
    # The policy's action is 0: squared errors 0.25 with weights 1 and exp(3), and the log density of 0 under N(0.5, 1).
    loss, metrics = learner.actor_loss(whole(learner.sampler.target), torch.tensor([0.0, 1.0]))
    likelihood = -0.125 - HALF_LOG_2PI
    assert metrics["policy/log_density"].item() == pytest.approx(likelihood)
    assert loss.item() == pytest.approx(0.25 * (1 + math.exp(3)) / 2 - 0.5 * likelihood)


def test_large_density_weight_keeps_the_policy_near_the_behaviour() -> None:
    config = LEARNERS(width=16, batch_size=32, density_weight=20.0, data="target", learning_rate=3e-3)
    learner = IQLLearner(
        mixed_sampler(BATCH, BATCH, config), make_actor(BATCH, 16), config, 0, gaussian_density(-0.4, -2.0), 20.0
    )
    TrainingLoop(300).run(learner)
    assert learner.actor.act(torch.ones(1, 1)).item() == pytest.approx(-0.4, abs=0.02)  # though 0.5 earns more


def bosa(data: str, **filter_settings: str) -> BOSALearner:
    config = LEARNERS(
        learner="bosa",
        width=4,
        batch_size=2,
        density_weight=0.1,
        data=data,
        value_penalty=0.5,
        filter=FILTERS(**filter_settings),
    )
    torch.manual_seed(0)
    columns = {"alignment": [-9.0, 0.0]}
    sampler = mixed_sampler(BATCH, BATCH, config, columns)
    return BOSALearner(sampler, make_actor(BATCH, 4), config, 0, gaussian_density(0.5, 0.0))


def test_bosa_penalises_values_of_source_rows_only() -> None:
    learner = bosa("mixed")
    assert learner.sampler.num_source_rows == 2
    batch = whole(learner.sampler.target)
    q_KB = torch.tensor([[1.0, 3.0, 100.0, 100.0], [2.0, 4.0, 100.0, 100.0]])
    assert learner.value_penalty(batch, q_KB).item() == pytest.approx(0.5 * (2 + 3))
    assert bosa("target").value_penalty(batch, q_KB).item() == 0.0


def test_bosa_gives_unlikely_dynamics_zero_weight() -> None:
    learner = bosa("mixed", weight="above_threshold")
    batch, weight_B = learner.sampler.sample(torch.Generator().manual_seed(0))
    likely = [1.0 if action > 0 else 0.0 for action in batch.action_BA[:2, 0].tolist()]  # the second row of BATCH
    assert weight_B.tolist() == [*likely, 1.0, 1.0]


def test_bosa_actor_loss_by_hand() -> None:
    learner = bosa("target")
    batch = whole(learner.sampler.target)
    q_B = torch.tensor([3.0, -1.0])  # mean 1, mean absolute value 2
    loss = learner.actor_loss(batch, torch.tensor([[0.5], [1.5]]), q_B)
    assert loss.item() == pytest.approx(-0.5 - 0.1 * (-0.25 - HALF_LOG_2PI))
