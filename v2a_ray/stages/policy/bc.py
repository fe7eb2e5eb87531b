"""Behaviour cloning (Pomerleau 1989).

Shape suffixes: B batch, A action dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from v2a_ray.networks import TanhActor, adam
from v2a_ray.stages.policy.config import BCConfig
from v2a_ray.stages.policy.inputs import LearnerInputs
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.policy.schedule import cosine, set_learning_rate


class BCLearner:
    """Behaviour cloning: squared error of the tanh mean."""

    def __init__(self, sampler: MixedSampler, actor: TanhActor, config: BCConfig, seed: int) -> None:
        self.sampler, self.actor, self.config = sampler, actor, config
        self.generator = torch.Generator(sampler.target.device).manual_seed(seed)
        self.networks: dict[str, nn.Module] = {"actor": actor}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"actor": adam(actor.parameters(), config.learning_rate)}

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of the actor."""
        batch, weight_B = self.sampler.sample(self.generator)
        error_B = (self.actor(batch.observation_BO) - batch.action_BA).square().sum(dim=1)
        loss = (weight_B * error_B).mean()
        self.optimizers["actor"].zero_grad(set_to_none=True)
        loss.backward()
        set_learning_rate(self.optimizers["actor"], cosine(self.config.learning_rate, step, self.config.num_steps))
        self.optimizers["actor"].step()
        return {"policy/actor_loss": loss.detach()}


def make(inputs: LearnerInputs[BCConfig]) -> BCLearner:
    """The learner of `policy.learner=bc`."""
    return BCLearner(inputs.sampler, inputs.actor, inputs.config, inputs.seed)
