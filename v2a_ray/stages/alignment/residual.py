"""Residual alignment (ours): the error of models of the TARGET dynamics on a source transition, relative to their
disagreement.

The contrastive score separates source from target by the easiest difference, which is the state distribution of the
behaviour policy rather than the dynamics. An ensemble fitted to target data alone has large errors where dynamics
differ and where it lacks data; it disagrees only where it lacks data. So error / disagreement is large only where
dynamics differ.

Shape suffixes: B batch, N transitions, K ensemble members, O observation dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from v2a_ray.data.loading.sampler import TransitionSampler
from v2a_ray.stages.alignment.alignment_tables import AlignmentTables, Fitted
from v2a_ray.stages.alignment.config import ResidualConfig
from v2a_ray.stages.support.dynamics import DynamicsLearner


class ResidualLearner(DynamicsLearner):
    """An ensemble of models of the target's dynamics that scores transitions."""

    group = "alignment"

    @torch.no_grad()
    def score(self, transitions: TransitionSampler, chunk_rows: int = 8192) -> Tensor:
        """(N,): log(disagreement / error); higher is better aligned.

        Error is the distance of the ensemble's mean prediction from s' - s; disagreement is the root mean square
        distance of the members from that mean. Both are over standardised features.
        """
        scores = []
        for batch in transitions.chunks(chunk_rows):
            predicted_KBO = self.model(batch.observation_BO, batch.action_BA)
            mean_BO = predicted_KBO.mean(dim=0)
            error_B = (mean_BO - self.model.delta(batch)).norm(dim=1)
            disagreement_B = (predicted_KBO - mean_BO).square().mean(dim=0).sum(dim=1).sqrt()
            scores.append(torch.log(disagreement_B + 1e-6) - torch.log(error_B + 1e-6))
        return torch.cat(scores)


def fit(tables: AlignmentTables[ResidualConfig]) -> Fitted:
    """Ranked scores of an ensemble fitted to the target alone."""
    config = tables.config
    trained, history = tables.train(lambda targets: ResidualLearner(targets, config, tables.seed), draws_source=False)
    scores = tables.scores(trained)
    return tables.ranked(scores.source, scores.held_out, tables.rows, config.window_steps), history
