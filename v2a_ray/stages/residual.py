"""Residual alignment (ours): how badly do models of the TARGET dynamics predict a source transition, against how unsure
they are?

The contrastive score separates source from target by whatever separates best, which is the state distribution of the
behaviour policy rather than the dynamics. An ensemble fitted to target data alone errs where dynamics differ, and its
disagreement says where it errs for want of data; their ratio is large only for the former.

Shape suffixes: B batch, N transitions, K ensemble members, O observation dimension, A action dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from v2a_ray.config import AlignmentConfig
from v2a_ray.data.sampler import Batch, Transitions, TransitionSampler
from v2a_ray.networks import EnsembleMLP, adam


class ResidualLearner:
    """An ensemble of deterministic models (s, a) -> s' - s, each fitted to its own random batches of target data."""

    def __init__(self, target: Transitions, config: AlignmentConfig, seed: int) -> None:
        self.target, self.config = target, config
        self.generator = torch.Generator(target.device).manual_seed(seed)
        observation, action = target.observation_dim, target.action_dim
        self.ensemble = EnsembleMLP(config.num_members, observation + action, [config.width] * 2, observation)
        batch = target.all()
        self.delta_std_O = (batch.next_observation_BO - batch.observation_BO).std(dim=0).clamp(min=1e-3)
        self.networks: dict[str, nn.Module] = {"ensemble": self.ensemble}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "ensemble": adam(self.ensemble.parameters(), config.learning_rate)
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step; every member sees a batch of its own."""
        members, size = self.config.num_members, self.config.batch_size
        batch = self.target.sample(members * size, self.generator)
        inputs, delta = self._inputs(batch), self._delta(batch)
        predicted = self.ensemble(inputs.view(members, size, -1))
        loss = (predicted - delta.view(members, size, -1)).square().mean()
        self.optimizers["ensemble"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers["ensemble"].step()
        return {"alignment/dynamics_loss": loss.detach()}

    @torch.no_grad()
    def score(self, transitions: TransitionSampler, chunk_rows: int = 8192) -> Tensor:
        """(N,): log(disagreement / error); higher is better aligned.

        Error is the distance of the ensemble's mean prediction from what happened, disagreement the root mean square
        distance of its members from that mean, both over standardised features.
        """
        scores = []
        for batch in transitions.chunks(chunk_rows):
            predicted_KBO = self.ensemble(self._inputs(batch))
            mean_BO = predicted_KBO.mean(dim=0)
            error_B = (mean_BO - self._delta(batch)).norm(dim=1)
            disagreement_B = (predicted_KBO - mean_BO).square().mean(dim=0).sum(dim=1).sqrt()
            scores.append(torch.log(disagreement_B + 1e-6) - torch.log(error_B + 1e-6))
        return torch.cat(scores)

    def _inputs(self, batch: Batch) -> Tensor:
        return torch.cat([batch.observation_BO, batch.action_BA], dim=1)

    def _delta(self, batch: Batch) -> Tensor:
        return (batch.next_observation_BO - batch.observation_BO) / self.delta_std_O
