"""Advantage (Sparse QL given z): V against the smaller target critic, then both critics on the TD target."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.reference.networks import adam, descend, move_target, plain, separate, smaller
from v2a_ray.data.loading.sampler import Batch
from v2a_ray.stages.advantage.config import SparseQConfig
from v2a_ray.stages.advantage.learner import AdvantageLearner


class AdvantageReference:
    """`update` is one step of V, then of both critics."""

    def __init__(self, learner: AdvantageLearner) -> None:
        assert isinstance(learner.config, SparseQConfig)
        self.config = learner.config
        self.value = plain(learner.value)
        self.critics, self.target_critics = separate(learner.critics), separate(learner.target_critics)
        self.value_optimizer = adam([self.value], self.config.learning_rate)
        self.critic_optimizer = adam(self.critics, self.config.learning_rate)

    def update(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One update step on a batch that has z."""
        config, latent_BZ = self.config, batch.extra["z"]
        state_BS = torch.cat([batch.observation_BO, latent_BZ], dim=1)
        next_state_BS = torch.cat([batch.next_observation_BO, latent_BZ], dim=1)
        state_action = torch.cat([state_BS, batch.action_BA], dim=1)

        with torch.no_grad():
            q_B = smaller(self.target_critics, state_action)
        value_B = self.value(state_BS).squeeze(-1)
        u_B = 1 + (q_B - value_B) / (2 * config.alpha)
        value_loss = ((u_B > 0).float() * u_B**2 + value_B / config.alpha).mean()
        descend(self.value_optimizer, value_loss)

        with torch.no_grad():
            return_B = batch.reward_B + config.discount * batch.not_done_B * self.value(next_state_BS).squeeze(-1)
        losses = [(critic(state_action).squeeze(-1) - return_B).square().mean() for critic in self.critics]
        critic_loss = (losses[0] + losses[1]) / 2
        descend(self.critic_optimizer, critic_loss)

        if (step + 1) % config.target_interval_steps == 0:
            move_target(self.target_critics, self.critics, config.target_rate)
        return {"advantage/value_loss": value_loss.detach(), "advantage/critic_loss": critic_loss.detach()}
