"""Implicit Q-learning (IQL, 2110.06169), optionally with transition weights and a support constraint.

Actor and critics never see z, so a deployed policy needs no modality. The losses (`IQLLosses`) are written for one
policy and for a batch of policies (`batched`).

Shape suffixes: B batch, K = 2 critics, O observation dimension, A action dimension.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import Batch
from v2a_ray.engine.data_parallel import ONE_WORKER, Workers
from v2a_ray.networks import MLP, EnsembleMLP, TanhActor, adam, update_target
from v2a_ray.stages.advantage.learner import expectile_errors
from v2a_ray.stages.policy.config import AdvantageWeightedConfig, IQLConfig
from v2a_ray.stages.policy.filtering import MAX_WEIGHT
from v2a_ray.stages.policy.inputs import LearnerInputs
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.policy.schedule import cosine, set_learning_rate
from v2a_ray.stages.support.conditional_vae import BehaviorDensity

Loss = tuple[Tensor, dict[str, Tensor]]


@dataclass(frozen=True)
class IQLConstants:
    """The constants of IQL's losses: floats, or (P, 1) tensors with one value per policy."""

    discount: float | Tensor
    expectile: float | Tensor
    temperature: float | Tensor


class IQLLosses:
    """The losses of IQL for one policy; for P policies, all shapes, losses and metrics have a leading P."""

    constants: IQLConstants
    actor: Callable[[Tensor], Tensor]
    """(B, O) to the tanh mean (B, A)."""
    value: Callable[[Tensor], Tensor]
    """(B, O) to (B, 1)."""
    critics: Callable[[Tensor], Tensor]
    """(B, O + A) to (K, B, 1); K stands before P."""
    target_critics: Callable[[Tensor], Tensor]

    def mean(self, values_B: Tensor) -> Tensor:
        """The mean over the rows of a batch."""
        return values_B.mean(dim=-1)

    def critic_losses(self, batch: Batch, weight_B: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The loss of V plus that of both critics, their metrics, and the advantage (B,) for the actor."""
        value_B = self.value(batch.observation_BO).squeeze(-1)
        state_action = torch.cat([batch.observation_BO, batch.action_BA], dim=-1)
        with torch.no_grad():
            # Computed separately from V(s): a joint backward pass would compute zero gradients for V(s').
            next_value_B = self.value(batch.next_observation_BO).squeeze(-1)
            q_B = self.target_critics(state_action).squeeze(-1).amin(dim=0)
        value_loss, value_metrics = self.value_loss(q_B, value_B)
        critic_loss, critic_metrics = self.critic_loss(batch, state_action, next_value_B, weight_B)
        return value_loss + critic_loss, value_metrics | critic_metrics, q_B - value_B.detach()

    def value_loss(self, q_B: Tensor, value_B: Tensor) -> Loss:
        """Expectile regression of V on the smaller target critic (IQL, equation 5)."""
        loss = self.mean(expectile_errors(q_B, value_B, self.constants.expectile))
        return loss, {"policy/value_loss": loss.detach(), "policy/value": self.mean(value_B.detach())}

    def critic_loss(self, batch: Batch, state_action: Tensor, next_value_B: Tensor, weight_B: Tensor) -> Loss:
        """Weighted TD loss of both critics on r + gamma * (1 - terminated) * V(s') (IQL, equation 6)."""
        return_B = batch.reward_B + self.constants.discount * batch.not_done_B * next_value_B
        error_KB = self.critics(state_action).squeeze(-1) - return_B
        loss = self.mean(weight_B * error_KB.square()).sum(dim=0)
        return loss, {"policy/critic_loss": loss.detach()}

    def actor_loss(self, batch: Batch, advantage_B: Tensor) -> Loss:
        """Advantage-weighted regression of the tanh mean on the action (IQL, equation 7)."""
        return self.regression_loss(self.actor(batch.observation_BO), batch.action_BA, advantage_B)

    def regression_loss(self, policy_BA: Tensor, action_BA: Tensor, advantage_B: Tensor) -> Loss:
        """`actor_loss` for given actions of the policy."""
        weight_B = (self.constants.temperature * advantage_B).exp().clamp(max=MAX_WEIGHT)
        error_B = (policy_BA - action_BA).square().sum(dim=-1)
        loss = self.mean(weight_B * error_B)
        return loss, {"policy/actor_loss": loss.detach(), "policy/advantage_weight": self.mean(weight_B)}


class IQLLearner(IQLLosses):
    """Implicit Q-learning with a per-transition weight on the TD loss.

    With a `density`, the actor's loss also keeps it in the density's support (OTDF). With several `workers`, each draws
    and filters its own batches of equal size. Losses are means, so the step equals that of one worker on all kept rows.
    """

    actor: TanhActor
    value: MLP
    critics: EnsembleMLP
    target_critics: EnsembleMLP

    def __init__(
        self,
        sampler: MixedSampler,
        actor: TanhActor,
        config: AdvantageWeightedConfig,
        seed: int,
        density: BehaviorDensity | None = None,
        density_weight: float = 0.0,
        value_first: bool = False,
        workers: Workers = ONE_WORKER,
    ) -> None:
        """`density_weight`: weight of the density in the actor's loss; `value_first`: update V before the critics."""
        self.sampler, self.actor, self.config, self.density = sampler, actor, config, density
        self.density_weight, self.value_first = density_weight, value_first
        self.seed, self.workers = seed, workers
        self.constants = IQLConstants(config.discount, config.expectile, config.temperature)
        self.generator = torch.Generator(sampler.target.device).manual_seed(seed)
        observation, action = sampler.target.observation_dim, sampler.target.action_dim
        hidden = [config.width] * 2
        self.value = MLP(observation, hidden, 1)
        self.critics = EnsembleMLP(2, observation + action, hidden, 1)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.networks: dict[str, nn.Module] = {
            "actor": actor,
            "value": self.value,
            "critics": self.critics,
            "target_critics": self.target_critics,
        }
        critics = [*self.value.parameters(), *self.critics.parameters()]
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "critics": adam(critics, config.learning_rate),
            "actor": adam(actor.parameters(), config.learning_rate),
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of value function, critics and actor; all losses use the parameters before the step.

        With `value_first`, the critics' target uses V after its update.
        """
        if self.workers.count > 1:
            self.generator.manual_seed(self.workers.seed(self.seed, step))
        batch, weight_B = self.sampler.sample(self.generator)
        losses = self.value_then_critics if self.value_first else self.critic_losses
        critic_loss, metrics, advantage_B = losses(batch, weight_B)
        actor_loss, actor_metrics = self.actor_loss(batch, advantage_B)
        # The losses share no trainable parameter, so one backward pass is enough for all.
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        (critic_loss + actor_loss).backward()  # type: ignore[no-untyped-call]
        if self.workers.count > 1:
            trained = (self.value, self.critics, self.actor)
            self.workers.mean_gradients([parameter for network in trained for parameter in network.parameters()])
        self.set_rates(step)
        self.descend()
        return self.workers.mean(metrics | actor_metrics)

    def value_then_critics(self, batch: Batch, weight_B: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """As `critic_losses`, but V is updated first, and the returned loss is the critics' alone."""
        value_B = self.value(batch.observation_BO).squeeze(-1)
        state_action = torch.cat([batch.observation_BO, batch.action_BA], dim=-1)
        with torch.no_grad():
            q_B = self.target_critics(state_action).squeeze(-1).amin(dim=0)
        loss, metrics = self.value_loss(q_B, value_B)
        self.optimizers["critics"].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.workers.mean_gradients(list(self.value.parameters()))
        # The critics have no gradient yet, so this is a step of V alone.
        self.optimizers["critics"].step()
        with torch.no_grad():
            next_value_B = self.value(batch.next_observation_BO).squeeze(-1)
        critic_loss, critic_metrics = self.critic_loss(batch, state_action, next_value_B, weight_B)
        return critic_loss, metrics | critic_metrics, q_B - value_B.detach()

    def set_rates(self, step: int) -> None:
        """Set the learning rates for an update step."""
        set_learning_rate(self.optimizers["actor"], cosine(self.config.learning_rate, step, self.config.num_steps))

    def descend(self) -> None:
        """Step the optimisers on the current gradients, then update the target critics."""
        for optimizer in self.optimizers.values():
            optimizer.step()
        update_target(self.target_critics, self.critics, self.config.target_rate)

    def actor_loss(self, batch: Batch, advantage_B: Tensor) -> Loss:
        """See `IQLLosses`; with a density, adds - w log pi_b(pi(s) | s)."""
        policy_BA = self.actor(batch.observation_BO)
        loss, metrics = self.regression_loss(policy_BA, batch.action_BA, advantage_B)
        if self.density is None:
            return loss, metrics
        log_density_B = self.density.log_density(batch.observation_BO, policy_BA, self.generator)
        loss = loss - self.density_weight * log_density_B.mean()
        metrics |= {"policy/actor_loss": loss.detach(), "policy/log_density": log_density_B.detach().mean()}
        return loss, metrics


def make(inputs: LearnerInputs[IQLConfig]) -> IQLLearner:
    """The learner of `policy.learner=iql`."""
    config = inputs.config
    return IQLLearner(
        inputs.sampler,
        inputs.actor,
        config,
        inputs.seed,
        density=inputs.density,
        density_weight=config.density_weight,
        value_first=config.next_value == "after_step",
        workers=inputs.workers,
    )
