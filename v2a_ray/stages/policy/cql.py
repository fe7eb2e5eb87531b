"""Conservative Q-learning (CQL, 2006.04779): a soft actor-critic with critics that are low where there is no data.

    critics:  TD + w (log of the integral of exp Q(s, a) over actions - Q(s, a of the data))
    actor:    tau log pi(a | s) - min Q(s, a)
    tau:      adapted so that the policy's entropy is -A

The integral is estimated by importance sampling: half of the samples are uniform over the action range and half are
from the policy, each divided by its density (CQL(H), appendix F).

Shape suffixes: B batch, K = 2 critics, S samples, A action dimension.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from v2a_ray.data.loading.sampler import Batch
from v2a_ray.networks import LOG_STD_RANGE, TanhActor, adam, gaussian_log_density, update_target
from v2a_ray.stages.policy.actor_critic import ActorCritic
from v2a_ray.stages.policy.config import CQLConfig
from v2a_ray.stages.policy.inputs import LearnerInputs
from v2a_ray.stages.policy.mixed_sampler import MixedSampler


class CQLLearner(ActorCritic):
    """Conservative Q-learning.

    The policy is the tanh of a Gaussian around the actor's output before its tanh, with one learned standard deviation
    per action dimension. The actor itself is evaluated.
    """

    config: CQLConfig

    def __init__(self, sampler: MixedSampler, actor: TanhActor, config: CQLConfig, seed: int) -> None:
        super().__init__(sampler, actor, config, seed)
        self.log_std_A = nn.Parameter(torch.full((sampler.target.action_dim,), -1.0))
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.networks |= {
            "log_std": nn.ParameterList([self.log_std_A]),
            "log_temperature": nn.ParameterList([self.log_temperature]),
        }
        self.optimizers["actor"] = adam([*actor.parameters(), self.log_std_A], config.learning_rate)
        self.optimizers["temperature"] = adam([self.log_temperature], config.learning_rate)

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of the critics, of the policy, and of the temperature."""
        batch, weight_B = self.sampler.sample(self.generator)
        with torch.no_grad():
            next_action_BA, _ = self.drawn(batch.next_observation_BO)
        critic_loss, metrics = self.critic_loss(batch, next_action_BA, weight_B)
        self.descend("critics", critic_loss)
        policy_BA, log_density_B = self.drawn(batch.observation_BO)
        q_B = self.q(self.critics, batch.observation_BO, policy_BA).amin(dim=0)
        actor_loss = (self.log_temperature.detach().exp() * log_density_B - q_B).mean()
        self.descend("actor", actor_loss)
        excess = log_density_B.detach().mean() - policy_BA.shape[1]
        self.descend("temperature", -self.log_temperature * excess)
        update_target(self.target_critics, self.critics, self.config.target_rate)
        return metrics | {"policy/actor_loss": actor_loss.detach(), "policy/q": q_B.detach().mean()}

    def drawn(self, observation_BO: Tensor) -> tuple[Tensor, Tensor]:
        """Sampled actions of the policy (B, A) and their log densities (B,)."""
        mean_BA = self.actor.body(observation_BO)
        log_std_A = self.log_std_A.clamp(*LOG_STD_RANGE)
        before_BA = mean_BA + log_std_A.exp() * self.noise(mean_BA)
        # log(1 - tanh(x)^2), the log derivative of tanh, in a form that does not round to log 0.
        stretched_BA = 2 * (math.log(2) - before_BA - functional.softplus(-2 * before_BA))
        log_density_B = gaussian_log_density(mean_BA, log_std_A, before_BA) - stretched_BA.sum(dim=1)
        return torch.tanh(before_BA), log_density_B

    def value_penalty(self, batch: Batch, q_KB: Tensor) -> Tensor:
        """The weighted gap between the soft maximum of Q over all actions and Q of the data, summed over critics."""
        count, (size, action_dim) = self.config.num_samples, batch.action_BA.shape
        observation = batch.observation_BO.repeat(count, 1)
        with torch.no_grad():
            of_policy, log_density = self.drawn(observation)
            evenly = torch.rand(of_policy.shape, generator=self.generator, device=of_policy.device) * 2 - 1
            log_density = torch.cat([log_density.new_full((count * size,), -action_dim * math.log(2)), log_density])
        q = self.q(self.critics, observation.repeat(2, 1), torch.cat([evenly, of_policy]))
        q_KSB = (q - log_density).view(len(q), 2 * count, size)
        integral_KB = q_KSB.logsumexp(dim=1) - math.log(2 * count)
        return self.config.conservatism * (integral_KB - q_KB).mean(dim=1).sum()


def make(inputs: LearnerInputs[CQLConfig]) -> CQLLearner:
    """The learner of `policy.learner=cql`."""
    return CQLLearner(inputs.sampler, inputs.actor, inputs.config, inputs.seed)
