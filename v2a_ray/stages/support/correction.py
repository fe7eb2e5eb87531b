"""Selective transition correction (STC, 2602.05776): turns source transitions into ones possible in the target.

    a' = g(s, s'),   r' = r(s, a'),   kept where | f(s, a') - s' | < | f(s, a) - s' |

The inverse policy model g predicts the action that leads from s to s' in the target; the reward model r predicts the
target's reward for it. Both are fitted to the target alone and err where it has no data. So a correction is kept only
where the forward models f of the target's dynamics predict s' better from the corrected action than from the recorded
one.

Shape suffixes: B batch, N transitions, O observation dimension, A action dimension.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import Batch, TransitionSampler
from v2a_ray.networks import MLP, adam
from v2a_ray.stages.support.config import CorrectionConfig
from v2a_ray.stages.support.dynamics import MIN_SCALE, DynamicsModel

ACTION, REWARD, KEPT = "corrected_action", "corrected_reward", "correction_kept"
"""Columns of the source table: (N, A), (N,) in the scale of the batches' rewards, and (N,) 1 or 0."""


class CorrectionLearner:
    """Fits the inverse policy model and the reward model to the target by squared error."""

    def __init__(self, target: TransitionSampler, dynamics: DynamicsModel, config: CorrectionConfig, seed: int) -> None:
        self.target, self.dynamics, self.config = target, dynamics, config
        self.generator = torch.Generator(target.device).manual_seed(seed)
        observation, action, hidden = target.observation_dim, target.action_dim, [config.width] * 2
        self.inverse = MLP(2 * observation, hidden, action)
        self.reward = MLP(observation + action, hidden, 1)
        reward_N = torch.cat([batch.reward_B for batch in target.chunks(8192)])
        self.reward_mean, self.reward_std = reward_N.mean(), reward_N.std().clamp(min=MIN_SCALE)
        self.networks: dict[str, nn.Module] = {"inverse": self.inverse, "reward": self.reward}
        parameters = [*self.inverse.parameters(), *self.reward.parameters()]
        self.optimizers: dict[str, torch.optim.Optimizer] = {"models": adam(parameters, config.learning_rate)}

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of both models."""
        batch = self.target.sample(self.config.batch_size, self.generator)
        inverse_loss = (self.corrected_action(batch) - batch.action_BA).square().mean()
        error_B = self.predicted_reward(batch.observation_BO, batch.action_BA) - batch.reward_B
        reward_loss = (error_B / self.reward_std).square().mean()
        self.optimizers["models"].zero_grad(set_to_none=True)
        (inverse_loss + reward_loss).backward()  # type: ignore[no-untyped-call]
        self.optimizers["models"].step()
        return {"correction/inverse_loss": inverse_loss.detach(), "correction/reward_loss": reward_loss.detach()}

    def corrected_action(self, batch: Batch) -> Tensor:
        """(B, A): g(s, s'), inside the action range. The input for s' is s' - s, in units of its standard deviation in
        the target, because s' - s can be small against s."""
        inputs_BX = torch.cat([batch.observation_BO, self.dynamics.delta(batch)], dim=1)
        return torch.tanh(self.inverse(inputs_BX))

    def predicted_reward(self, observation_BO: Tensor, action_BA: Tensor) -> Tensor:
        """(B,): r(s, a), in the scale of the batches' rewards."""
        standardized_B = self.reward(torch.cat([observation_BO, action_BA], dim=1)).squeeze(-1)
        reward_B: Tensor = self.reward_mean + self.reward_std * standardized_B
        return reward_B

    @torch.no_grad()
    def correct(self, transitions: TransitionSampler, chunk_rows: int = 8192) -> dict[str, Tensor]:
        """The columns `ACTION`, `REWARD` and `KEPT` of every transition, in order."""
        parts = [self._correct(batch) for batch in transitions.chunks(chunk_rows)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _correct(self, batch: Batch) -> dict[str, Tensor]:
        action_BA = self.corrected_action(batch)
        better_B = fits_better(self.dynamics, batch, action_BA) & batch.arrival_recorded
        return {
            ACTION: action_BA,
            REWARD: self.predicted_reward(batch.observation_BO, action_BA),
            KEPT: better_B.float(),
        }


def fits_better(dynamics: DynamicsModel, batch: Batch, action_BA: Tensor) -> Tensor:
    """(B,) bool: whether the dynamics models predict s' better from `action_BA` than from the recorded action."""
    return dynamics.error(batch, action_BA) < dynamics.error(batch, batch.action_BA)


def with_corrections(batch: Batch) -> Batch:
    """A source batch with corrected actions and rewards in the rows whose correction was kept."""
    kept_B = batch.extra[KEPT] > 0
    return replace(
        batch,
        action_BA=torch.where(kept_B.unsqueeze(1), batch.extra[ACTION], batch.action_BA),
        reward_B=torch.where(kept_B, batch.extra[REWARD], batch.reward_B),
    )
