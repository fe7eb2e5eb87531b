"""Base class of the learners that evaluate the policy's actions: two critics with moving averages, and their TD loss.

The filter's weight applies to the TD loss only, as in IQL; actor losses are unweighted.

Shape suffixes: B batch, K = 2 critics, O observation dimension, A action dimension.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import Batch
from v2a_ray.networks import EnsembleMLP, TanhActor, adam
from v2a_ray.stages.policy.mixed_sampler import MixedSampler

Loss = tuple[Tensor, dict[str, Tensor]]


class ActorCritic:
    """Two critics with moving averages, and their TD loss."""

    critic_network: ClassVar[type[EnsembleMLP]] = EnsembleMLP

    def __init__(self, sampler: MixedSampler, actor: TanhActor, config: Any, seed: int) -> None:
        self.sampler, self.actor, self.config = sampler, actor, config
        self.generator = torch.Generator(sampler.target.device).manual_seed(seed)
        inputs = sampler.target.observation_dim + sampler.target.action_dim
        self.critics = self.critic_network(2, inputs, [config.width] * 2, 1)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.networks: dict[str, nn.Module] = {
            "actor": actor,
            "critics": self.critics,
            "target_critics": self.target_critics,
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: adam(self.networks[name].parameters(), config.learning_rate) for name in ("critics", "actor")
        }

    def critic_loss(self, batch: Batch, next_action_BA: Tensor, weight_B: Tensor) -> Loss:
        """Weighted TD loss of both critics on r + gamma * (1 - terminated) * min Q'(s', a')."""
        with torch.no_grad():
            next_value_B = self.next_value(batch, next_action_BA)
            return_B = batch.reward_B + self.config.discount * batch.not_done_B * next_value_B
        q_KB = self.q(self.critics, batch.observation_BO, batch.action_BA)
        loss = (weight_B * (q_KB - return_B).square()).mean(dim=1).sum() + self.value_penalty(batch, q_KB)
        return loss, {"policy/critic_loss": loss.detach()}

    def next_value(self, batch: Batch, next_action_BA: Tensor) -> Tensor:
        """(B,): the smaller target critic's value of an action in the next state."""
        return self.q(self.target_critics, batch.next_observation_BO, next_action_BA).amin(dim=0)

    def value_penalty(self, batch: Batch, q_KB: Tensor) -> Tensor:
        """A term that subclasses may add to the TD loss, from the batch and its values; 0 here."""
        return q_KB.new_zeros(())

    def q(self, critics: EnsembleMLP, observation: Tensor, action: Tensor) -> Tensor:
        """(K, B): values of actions."""
        value_KB: Tensor = critics(torch.cat([observation, action], dim=1)).squeeze(-1)
        return value_KB

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal noise of the same shape, from the learner's generator."""
        return torch.randn(like.shape, generator=self.generator, device=like.device)

    def descend(self, name: str, loss: Tensor) -> None:
        """One step of an optimiser on a loss."""
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[name].step()
