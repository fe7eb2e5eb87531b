"""Modality alignment (ours): how well does the modality's decoder predict a transition from the target's z?

Shape suffixes: N, M transitions, E episodes, Z latent dimension, X width of a step.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.engine.columns import read_episode_column
from v2a_ray.engine.context import require_memory
from v2a_ray.stages.alignment.alignment_tables import AlignmentTables, Fitted
from v2a_ray.stages.alignment.config import ModalityAlignmentConfig
from v2a_ray.stages.alignment.scores import carried
from v2a_ray.stages.modality.fit import load_modality
from v2a_ray.stages.modality.model import ModalityModel

Float = NDArray[np.float32]


@torch.no_grad()
def modality_scores(model: ModalityModel, table: EpisodeTable, latent_EZ: Float, target_latent_Z: Float) -> Float:
    """(N,): log-likelihood ratio (ours) of a transition given the target's z and given its own z.

        score = || d - p(s, a, z_own) ||^2 - || d - p(s, a, z_target) ||^2   with  d = s' - s, standardised

    Unlike a model fitted to the target alone, the decoder was also fitted to source states. If both z predict alike, as
    for the same dynamics under another behaviour, the score is near zero.
    """
    steps_NX = model.steps(table)
    own_NZ = torch.from_numpy(latent_EZ)[torch.from_numpy(table.episode_of_row)].to(model.device)
    target_Z = torch.from_numpy(target_latent_Z).to(model.device)
    scores = []
    for steps_MX, own_MZ in zip(torch.split(steps_NX, 8192), torch.split(own_NZ, 8192), strict=True):
        own = model.prediction_error(steps_MX, own_MZ)
        target = model.prediction_error(steps_MX, target_Z.expand(len(steps_MX), -1))
        scores.append(own - target)
    scores_N: Float = torch.cat(scores).cpu().numpy()
    return scores_N


def fit(tables: AlignmentTables[ModalityAlignmentConfig]) -> Fitted:
    """Ranked scores by the model that computed the column z. Nothing is trained."""
    job, target = tables.job, tables.target
    require_memory(job, "alignment", "source", "target")
    source, folder = job.table("source"), job.inputs["modality"]
    model = load_modality(folder, source.observation_dim, source.action_dim).to(job.device(tables.config))
    target_latent = read_episode_column(folder / "column.parquet", "z", target)
    centre = np.average(target_latent, axis=0, weights=target.lengths).astype(np.float32)

    def scores(table: EpisodeTable) -> Float:
        latent = read_episode_column(folder / "column.parquet", "z", table)
        return carried(modality_scores(model, table, latent, centre), table)

    return tables.ranked(scores(source), scores(tables.held_out), source, tables.config.window_steps), []
