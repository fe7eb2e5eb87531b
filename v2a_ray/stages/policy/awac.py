"""Advantage-weighted actor-critic (AWAC, 2006.09359).

Shape suffixes: B batch, A action dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import Batch
from v2a_ray.networks import TanhActor, adam, gaussian_log_density, update_target
from v2a_ray.stages.policy.actor_critic import ActorCritic, Loss
from v2a_ray.stages.policy.config import AWACConfig
from v2a_ray.stages.policy.filtering import MAX_WEIGHT
from v2a_ray.stages.policy.inputs import LearnerInputs
from v2a_ray.stages.policy.mixed_sampler import MixedSampler

LOG_STD_RANGE = (-6.0, 0.0)


class AWACLearner(ActorCritic):
    """Advantage-weighted actor-critic: maximises the likelihood of the data's actions, weighted by exp(A / lambda).

    The policy is a Gaussian around the actor's tanh mean with one learned standard deviation per action dimension. The
    mean is evaluated. A is estimated from Q alone. Weights are clamped at 100, as in IQL; the published code normalises
    them over the batch, and the paper's formula does neither.
    """

    config: AWACConfig

    def __init__(self, sampler: MixedSampler, actor: TanhActor, config: AWACConfig, seed: int) -> None:
        super().__init__(sampler, actor, config, seed)
        self.log_std_A = nn.Parameter(torch.full((sampler.target.action_dim,), -1.0))
        self.networks["log_std"] = nn.ParameterList([self.log_std_A])
        self.optimizers["actor"] = adam([*actor.parameters(), self.log_std_A], config.learning_rate)

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of the critics, then of the policy."""
        batch, weight_B = self.sampler.sample(self.generator)
        critic_loss, metrics = self.critic_loss(batch, self.sampled_action(batch.next_observation_BO), weight_B)
        self.descend("critics", critic_loss)
        actor_loss, actor_metrics = self.actor_loss(batch, self.advantage(batch))
        self.descend("actor", actor_loss)
        update_target(self.target_critics, self.critics, self.config.target_rate)
        return metrics | actor_metrics

    @torch.no_grad()
    def sampled_action(self, observation_BO: Tensor) -> Tensor:
        """(B, A): a sampled action of the policy, inside the action range."""
        mean_BA: Tensor = self.actor(observation_BO)
        std_A = self.log_std_A.clamp(*LOG_STD_RANGE).exp()
        return (mean_BA + std_A * self.noise(mean_BA)).clamp(-1, 1)

    @torch.no_grad()
    def advantage(self, batch: Batch) -> Tensor:
        """(B,): min Q(s, a) minus its mean over `num_samples` sampled actions of the policy."""
        q_B = self.q(self.critics, batch.observation_BO, batch.action_BA).amin(dim=0)
        repeated = batch.observation_BO.repeat(self.config.num_samples, 1)
        q_of_policy = self.q(self.critics, repeated, self.sampled_action(repeated)).amin(dim=0)
        return q_B - q_of_policy.view(self.config.num_samples, -1).mean(dim=0)

    def actor_loss(self, batch: Batch, advantage_B: Tensor) -> Loss:
        """Negative log-likelihood of the data's actions, weighted by exp(A / lambda)."""
        weight_B = (advantage_B / self.config.temperature).exp().clamp(max=MAX_WEIGHT)
        log_std_A = self.log_std_A.clamp(*LOG_STD_RANGE)
        log_density_B = gaussian_log_density(self.actor(batch.observation_BO), log_std_A, batch.action_BA)
        loss = -(weight_B * log_density_B).mean()
        return loss, {"policy/actor_loss": loss.detach(), "policy/advantage_weight": weight_B.mean()}


def make(inputs: LearnerInputs[AWACConfig]) -> AWACLearner:
    """The learner of `policy.learner=awac`."""
    return AWACLearner(inputs.sampler, inputs.actor, inputs.config, inputs.seed)
