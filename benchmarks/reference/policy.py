"""Policy (filtered IQL): h and A of the drawn source batch are computed by their networks at every step.

V, the critics and the actor have a forward and a backward pass each, all against the parameters before the step.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.reference.networks import adam, descend, move_target, plain, separate, smaller
from v2a_ray.data.loading.sampler import Batch
from v2a_ray.stages.advantage.learner import AdvantageLearner
from v2a_ray.stages.alignment.contrastive import ContrastiveLearner
from v2a_ray.stages.policy.iql import IQLLearner

MAX_WEIGHT = 100.0


class PolicyReference:
    """`update` is one step of V, both critics, their moving averages and the actor."""

    def __init__(self, learner: IQLLearner, contrastive: ContrastiveLearner, advantage: AdvantageLearner) -> None:
        self.config = learner.config
        self.state_action, self.next_state = contrastive.state_action, contrastive.next_state
        self.score_value, self.score_critics = advantage.value, separate(advantage.critics)
        self.value, self.actor = plain(learner.value), plain(learner.actor)
        self.critics, self.target_critics = separate(learner.critics), separate(learner.target_critics)
        self.value_optimizer = adam([self.value], self.config.learning_rate)
        self.critic_optimizer = adam(self.critics, self.config.learning_rate)
        self.actor_optimizer = adam([self.actor], self.config.learning_rate)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.actor_optimizer, self.config.num_steps)

    def update(self, source: Batch, target: Batch) -> dict[str, Tensor]:
        """One update step on B source transitions, which have z, and B target transitions."""
        config = self.config
        keep, weight_b = self.choose(source)
        observation, action, next_observation, reward, not_done = (
            torch.cat([getattr(source, name)[keep], getattr(target, name)])
            for name in ("observation_BO", "action_BA", "next_observation_BO", "reward_B", "not_done_B")
        )
        weight_B = torch.cat([weight_b, torch.ones(len(target.reward_B))])
        state_action = torch.cat([observation, action], dim=1)

        with torch.no_grad():
            q_B = smaller(self.target_critics, state_action)
            next_value_B = self.value(next_observation).squeeze(-1)
        difference_B = q_B - self.value(observation).squeeze(-1)
        asymmetry_B = torch.abs(config.expectile - (difference_B < 0).float())
        value_loss = (asymmetry_B * difference_B**2).mean()
        descend(self.value_optimizer, value_loss)

        return_B = reward + config.discount * not_done * next_value_B
        losses = [(weight_B * (critic(state_action).squeeze(-1) - return_B) ** 2).mean() for critic in self.critics]
        critic_loss = losses[0] + losses[1]
        descend(self.critic_optimizer, critic_loss)
        move_target(self.target_critics, self.critics, config.target_rate)

        actor_weight_B = (config.temperature * difference_B.detach()).exp().clamp(max=MAX_WEIGHT)
        actor_loss = (actor_weight_B * ((self.actor(observation) - action) ** 2).sum(dim=1)).mean()
        descend(self.actor_optimizer, actor_loss)
        self.schedule.step()
        return {
            "policy/value_loss": value_loss.detach(),
            "policy/critic_loss": critic_loss.detach(),
            "policy/actor_loss": actor_loss.detach(),
        }

    @torch.no_grad()
    def choose(self, source: Batch) -> tuple[Tensor, Tensor]:
        """Rows (b,) of the best xi by f = lambda * h + (1 - lambda) * minmax(A), and their weights exp(h)."""
        settings, latent_BZ = self.config.filter, source.extra["z"]
        query = self.state_action(torch.cat([source.observation_BO, source.action_BA], dim=1))
        alignment_B = functional.cosine_similarity(query, self.next_state(source.next_observation_BO))
        state_BS = torch.cat([source.observation_BO, latent_BZ], dim=1)
        q_B = smaller(self.score_critics, torch.cat([state_BS, source.action_BA], dim=1))
        advantage_B = q_B - self.score_value(state_BS).squeeze(-1)
        scaled_B = (advantage_B - advantage_B.min()) / (advantage_B.max() - advantage_B.min())
        score_B = settings.alignment_weight * alignment_B + (1 - settings.alignment_weight) * scaled_B
        keep = torch.topk(score_B, round(settings.keep_fraction * len(score_B))).indices
        return keep, alignment_B[keep].exp().clamp(max=MAX_WEIGHT)
