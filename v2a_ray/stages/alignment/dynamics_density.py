"""Dynamics density (BOSA, 2306.12755): the log density of s' under models fitted to the target, or to both tables.

Shape suffixes: B batch, N transitions, K ensemble members, O observation dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from v2a_ray.data.loading.sampler import Batch, TransitionSampler
from v2a_ray.stages.alignment.alignment_tables import AlignmentTables, Fitted
from v2a_ray.stages.alignment.config import DynamicsDensityConfig
from v2a_ray.stages.support.conditional_vae import ConditionalVAE, DensityLearner
from v2a_ray.stages.support.dynamics import delta_std


class DynamicsDensityLearner(DensityLearner):
    """Fits the density of s' - s given s and a, in units of each feature's standard deviation in the target (BOSA)."""

    group = "alignment"

    def __init__(
        self, target: TransitionSampler, samplers: Sequence[TransitionSampler], config: DynamicsDensityConfig, seed: int
    ) -> None:
        self.scale_O = delta_std(target)
        observation, action = target.observation_dim, target.action_dim
        model = ConditionalVAE(
            config.num_members, observation + action, observation, config.density_latent_dim, config.width
        )
        super().__init__(model, self._dynamics, samplers, config, seed)
        self.num_samples = config.density_samples

    def _dynamics(self, batch: Batch) -> tuple[Tensor, Tensor]:
        moved_BO = (batch.next_observation_BO - batch.observation_BO) / self.scale_O
        return torch.cat([batch.observation_BO, batch.action_BA], dim=1), moved_BO

    @torch.no_grad()
    def score(self, transitions: TransitionSampler, chunk_rows: int = 2048) -> Tensor:
        """(N,): the smallest log p(s' | s, a) over members; higher is better aligned."""
        # A separate generator, so that scoring does not change the training.
        generator, scores = torch.Generator(self.generator.device).manual_seed(0), []
        for batch in transitions.chunks(chunk_rows):
            condition_BX, output_BY = self._dynamics(batch)
            noise = self.model.noise(self.num_samples, len(output_BY), generator)
            scores.append(self.model.log_density(condition_BX, output_BY, noise).amin(dim=0))
        return torch.cat(scores)


def fit(tables: AlignmentTables[DynamicsDensityConfig]) -> Fitted:
    """Scores by models fitted to the target, or to both tables."""
    config = tables.config
    both = config.fit_dynamics_to != "target"
    trained, history = tables.train(
        lambda targets: DynamicsDensityLearner(
            targets, [targets, tables.sources] if both else [targets], config, tables.seed
        )
    )
    return tables.scores(trained), history
