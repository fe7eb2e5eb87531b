"""Stage 2, advantage: the value column, by Sparse Q-learning (2303.15810) or IQL (2110.06169), with z (V2A) or without
(DVDF).

Shape suffixes: B batch, K = 2 critics, O observation dimension, A action dimension, Z latent dimension (0 without z).
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import Batch, TransitionSampler
from v2a_ray.engine.stage import imported
from v2a_ray.networks import MLP, EnsembleMLP, adam, update_target
from v2a_ray.stages.advantage.config import AdvantageConfig, ExpectileConfig, SparseQConfig


def sparse_value_loss(q_B: Tensor, value_B: Tensor, alpha: float) -> Tensor:
    """mean( 1[u > 0] u^2 + V / alpha ) with u = 1 + (Q - V) / (2 alpha)  (Sparse QL, equation for V)."""
    u_B = 1 + (q_B - value_B) / (2 * alpha)
    return (torch.relu(u_B).square() + value_B / alpha).mean()


def expectile_value_loss(q_B: Tensor, value_B: Tensor, expectile: float) -> Tensor:
    """mean( |tau - 1[Q < V]| (Q - V)^2 )  (IQL, equation 5)."""
    return expectile_errors(q_B, value_B, expectile).mean()


def expectile_errors(q_B: Tensor, value_B: Tensor, expectile: float | Tensor) -> Tensor:
    """(..., B): the terms of `expectile_value_loss`; `expectile` is a number or broadcasts to their shape."""
    difference_B = q_B - value_B
    asymmetry_B = torch.where(difference_B > 0, expectile, 1 - expectile)
    return asymmetry_B * difference_B.square()


def sparse_loss(q_B: Tensor, value_B: Tensor, config: SparseQConfig) -> Tensor:
    """The loss of V by `advantage.kind=sparse_q`."""
    return sparse_value_loss(q_B, value_B, config.alpha)


def expectile_loss(q_B: Tensor, value_B: Tensor, config: ExpectileConfig) -> Tensor:
    """The loss of V by `advantage.kind=iql`."""
    return expectile_value_loss(q_B, value_B, config.expectile)


class AdvantageLearner:
    """Fits Q(s, a, z) and V(s, z) on the source table; A = min(Q1, Q2) - V.

    `transitions` has z as the extra column `z` when the advantage is conditioned on it. `config` chooses the loss of V;
    the loss of the critics is always the same.
    """

    def __init__(self, transitions: TransitionSampler, latent_dim: int, config: AdvantageConfig, seed: int) -> None:
        self.transitions, self.config = transitions, config
        assert config.value_loss is not None  # kind=none has no such stage
        self.loss_of_value = imported(config.value_loss)
        self.generator = torch.Generator(transitions.device).manual_seed(seed)
        state_dim, hidden = transitions.observation_dim + latent_dim, [config.width] * 2
        self.value = MLP(state_dim, hidden, 1)
        self.critics = EnsembleMLP(2, state_dim + transitions.action_dim, hidden, 1)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.networks: dict[str, nn.Module] = {
            "value": self.value,
            "critics": self.critics,
            "target_critics": self.target_critics,
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "value": adam(self.value.parameters(), config.learning_rate),
            "critics": adam(self.critics.parameters(), config.learning_rate),
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of V, then of both critics."""
        return self.fit(self.transitions.sample(self.config.batch_size, self.generator), step)

    def fit(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """`update` on a given batch."""
        state_BS = with_latent(batch.observation_BO, batch)
        state_action = torch.cat([state_BS, batch.action_BA], dim=1)

        value_loss, metrics = self.value_loss(state_BS, state_action)
        self._descend("value", value_loss)
        critic_loss, critic_metrics = self.critic_loss(batch, state_action)
        self._descend("critics", critic_loss)
        if (step + 1) % self.config.target_interval_steps == 0:
            update_target(self.target_critics, self.critics, self.config.target_rate)
        return metrics | critic_metrics

    def value_loss(self, state_BS: Tensor, state_action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of V against the smaller target critic."""
        with torch.no_grad():
            q_B = self.target_critics(state_action).squeeze(-1).amin(dim=0)
        value_B = self.value(state_BS).squeeze(-1)
        loss = self.loss_of_value(q_B, value_B, self.config)
        return loss, {"advantage/value_loss": loss.detach(), "advantage/value": value_B.detach().mean()}

    def critic_loss(self, batch: Batch, state_action: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Temporal-difference loss of both critics on r + gamma * (1 - terminated) * V(s', z)."""
        with torch.no_grad():
            next_value_B = self.value(with_latent(batch.next_observation_BO, batch)).squeeze(-1)
            return_B = batch.reward_B + self.config.discount * batch.not_done_B * next_value_B
        loss = (self.critics(state_action).squeeze(-1) - return_B).square().mean()
        return loss, {"advantage/critic_loss": loss.detach()}

    def _descend(self, name: str, loss: Tensor) -> None:
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[name].step()

    @torch.no_grad()
    def score(self, transitions: TransitionSampler, chunk_rows: int = 16384) -> NDArray[np.float32]:
        """(N,): A = min(Q1, Q2) - V of every transition, in order."""
        scores = []
        for batch in transitions.chunks(chunk_rows):
            state_BS = with_latent(batch.observation_BO, batch)
            q_B = self.critics(torch.cat([state_BS, batch.action_BA], dim=1)).squeeze(-1).amin(dim=0)
            scores.append(q_B - self.value(state_BS).squeeze(-1))
        return torch.cat(scores).cpu().numpy()


def with_latent(observation_BO: Tensor, batch: Batch) -> Tensor:
    """(B, O + Z): observations followed by their trajectory's z, or the observations if the batch has no z."""
    return torch.cat([observation_BO, batch.extra["z"]], dim=1) if "z" in batch.extra else observation_BO
