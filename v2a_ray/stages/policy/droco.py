"""Robust values on source data (after DROCO, 2512.02486): implicit Q-learning with a worst-case backup on source rows.

    target rows:  r + gamma * V(s')
    source rows:  r + gamma * (V(s') - beta * u),    u = max(0, V(s') - min_k V(s'_k)),    s'_k = f_k(s, a)

On source data, the robust cross-domain Bellman operator takes the smallest value over dynamics near the source's; in
the dual form, this is the smallest value over perturbed next states. Here these states are s' and the predictions of an
ensemble of models of the target's dynamics. At beta = 1 the backup is the smallest of their values; u is zero where the
models agree with s'. Source rows have a Huber loss, because errors of the models are outliers.

Shape suffixes: B batch, b source rows, K ensemble members or critics, O observation dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from v2a_ray.data.loading.sampler import Batch
from v2a_ray.networks import TanhActor
from v2a_ray.stages.policy.config import DROCOConfig
from v2a_ray.stages.policy.inputs import LearnerInputs
from v2a_ray.stages.policy.iql import IQLLearner, Loss
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.support.dynamics import DynamicsModel


def value_penalty(value_b: Tensor, imagined_Kb: Tensor) -> Tensor:
    """(b,): how far the value of s' is above the smallest value of the predicted next states, at least 0."""
    return torch.relu(value_b - imagined_Kb.amin(dim=0))


def robust_loss(error: Tensor, threshold: float) -> Tensor:
    """Twice the Huber loss: the squared error up to `threshold`, as for target rows, and its tangent beyond."""
    return 2 * functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=threshold)


class DROCOLearner(IQLLearner):
    """Implicit Q-learning with a robust backup on source rows. Without source rows it equals `IQLLearner`."""

    config: DROCOConfig

    def __init__(
        self, sampler: MixedSampler, actor: TanhActor, config: DROCOConfig, seed: int, dynamics: DynamicsModel | None
    ) -> None:
        """`dynamics`: models of the target; None only if no source rows are drawn."""
        super().__init__(sampler, actor, config, seed)
        self.dynamics = dynamics

    def critic_loss(self, batch: Batch, state_action: Tensor, next_value_B: Tensor, weight_B: Tensor) -> Loss:
        """Weighted TD loss of both critics, robust on the source rows, which come first."""
        count = self.sampler.num_source_rows
        penalty_b = self.penalty(batch, next_value_B, count)
        robust_B = torch.cat([next_value_B[:count] - self.config.penalty_weight * penalty_b, next_value_B[count:]])
        return_B = batch.reward_B + self.config.discount * batch.not_done_B * robust_B
        error_KB = self.critics(state_action).squeeze(-1) - return_B
        source_Kb = robust_loss(error_KB[:, :count], self.config.huber_threshold)
        loss_KB = torch.cat([source_Kb, error_KB[:, count:].square()], dim=1)
        loss = (weight_B * loss_KB).mean(dim=1).sum()
        mean_penalty = penalty_b.sum() / max(1, count)
        return loss, {"policy/critic_loss": loss.detach(), "policy/value_penalty": mean_penalty}

    @torch.no_grad()
    def penalty(self, batch: Batch, next_value_B: Tensor, count: int) -> Tensor:
        """(b,): u of the first `count` rows."""
        if not count:
            return next_value_B[:0]
        assert self.dynamics is not None  # a plan that uses the source contains them
        imagined_KbO = self.dynamics.next_observation(batch.observation_BO[:count], batch.action_BA[:count])
        return value_penalty(next_value_B[:count], self.value(imagined_KbO).squeeze(-1))


def make(inputs: LearnerInputs[DROCOConfig]) -> DROCOLearner:
    """The learner of `policy.learner=droco`."""
    return DROCOLearner(inputs.sampler, inputs.actor, inputs.config, inputs.seed, inputs.dynamics)
