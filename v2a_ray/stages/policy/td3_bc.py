"""TD3+BC (2106.06860): TD3 with behaviour cloning, a squared error to the data's actions, in the actor's loss.

Shape suffixes: B batch, A action dimension.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from v2a_ray.data.loading.sampler import Batch
from v2a_ray.networks import TanhActor, update_target
from v2a_ray.stages.policy.actor_critic import ActorCritic
from v2a_ray.stages.policy.config import TD3BCConfig, TD3Config
from v2a_ray.stages.policy.inputs import LearnerInputs
from v2a_ray.stages.policy.mixed_sampler import MixedSampler


def td3_bc_actor_loss(q_B: Tensor, policy_BA: Tensor, action_BA: Tensor, q_weight: float) -> Tensor:
    """- w / mean|Q| * mean Q(s, pi(s)) + mean (pi(s) - a)^2; mean|Q| carries no gradient.

    The squared error is averaged over action dimensions, as in the published code; the paper's formula has the norm.
    """
    scale = q_weight / q_B.detach().abs().mean().clamp(min=1e-8)
    return -scale * q_B.mean() + (policy_BA - action_BA).square().mean()


class TD3Learner(ActorCritic):
    """TD3 on a fixed table: smoothed target actions, delayed updates. Subclasses define the actor's loss."""

    config: TD3Config

    def __init__(self, sampler: MixedSampler, actor: TanhActor, config: TD3Config, seed: int) -> None:
        super().__init__(sampler, actor, config, seed)
        self.target_actor = copy.deepcopy(actor).requires_grad_(False)
        self.networks["target_actor"] = self.target_actor

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of the critics and, every `delay_steps`, of the actor and all moving averages."""
        batch, weight_B = self.sampler.sample(self.generator)
        critic_loss, metrics = self.critic_loss(batch, self.smoothed_action(batch), weight_B)
        self.descend("critics", critic_loss)
        due = (step + 1) % self.config.delay_steps == 0
        # The loss is computed in every step, so that the metrics do not depend on the step at which they are recorded.
        with torch.set_grad_enabled(due):
            policy_BA = self.actor(batch.observation_BO)
            q_B = self.q(self.critics, batch.observation_BO, policy_BA)[0]
            actor_loss = self.actor_loss(batch, policy_BA, q_B)
        if due:
            self.descend("actor", actor_loss)
            update_target(self.target_critics, self.critics, self.config.target_rate)
            update_target(self.target_actor, self.actor, self.config.target_rate)
        return metrics | {"policy/actor_loss": actor_loss.detach(), "policy/q": q_B.detach().mean()}

    def actor_loss(self, batch: Batch, policy_BA: Tensor, q_B: Tensor) -> Tensor:
        """The actor's loss for its actions `policy_BA`, with values `q_B` of the first critic."""
        raise NotImplementedError

    @torch.no_grad()
    def smoothed_action(self, batch: Batch) -> Tensor:
        """(B, A): the target actor's action in s' plus clipped noise, inside the action range."""
        config = self.config
        action_BA: Tensor = self.target_actor(batch.next_observation_BO)
        noise_BA = (config.noise_std * self.noise(action_BA)).clamp(-config.noise_clip, config.noise_clip)
        return (action_BA + noise_BA).clamp(-1, 1)


class TD3BCLearner(TD3Learner):
    """TD3+BC.

    Unlike the published code, it standardises states by the target's statistics and scales rewards, as for every method
    here (`preprocessing`).
    """

    config: TD3BCConfig

    def actor_loss(self, batch: Batch, policy_BA: Tensor, q_B: Tensor) -> Tensor:
        """See `td3_bc_actor_loss`."""
        return td3_bc_actor_loss(q_B, policy_BA, batch.action_BA, self.config.q_weight)


def make(inputs: LearnerInputs[TD3BCConfig]) -> TD3BCLearner:
    """The learner of `policy.learner=td3_bc`."""
    return TD3BCLearner(inputs.sampler, inputs.actor, inputs.config, inputs.seed)
