"""Our learners as an experiment makes them: published batch and network sizes, Hopper's dimensions, random tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.tables import OBSERVATION_DIM, random_episodes
from v2a_ray.data.loading.sampler import Column, EpisodeValues, Preprocessing, Transitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.stages.advantage.config import ADVANTAGES
from v2a_ray.stages.advantage.learner import AdvantageLearner
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.alignment.contrastive import ContrastiveLearner
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, moments
from v2a_ray.stages.policy.config import FILTERS, LEARNERS
from v2a_ray.stages.policy.filtering import SourceFilter
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.policy.training import make_actor

SOURCE_EPISODES, TARGET_EPISODES = 30, 5
LATENT_DIM = 128
PUBLISHED_MODALITY = ModalityConfig(
    num_steps=100_000,
    batch_size=16,
    crop_steps=200,
    latent_dim=LATENT_DIM,
    encoder="gru",
    encoder_width=256,
    decoder_width=256,
    decoder_layers=2,
    num_decoders=3,
    kl_weight=1e-3,
    optimization="em",
    learning_rate=3e-4,
    gradient_norm_clip=10.0,
    patience_evaluations=None,
)
"""V2A's constants, whatever our defaults are; of the published sizes of z, 8 to 128, the largest."""
STANDARDIZED = Preprocessing(np.zeros(OBSERVATION_DIM, np.float32), np.ones(OBSERVATION_DIM, np.float32), 0.1)


@cache
def source_table() -> EpisodeTable:
    """30,000 transitions in episodes of 1,000."""
    return random_episodes(SOURCE_EPISODES)


def source(columns: Mapping[str, Column] | None = None) -> Transitions:
    """The source's transitions with additional `columns`."""
    return Transitions(source_table(), STANDARDIZED, columns)


def target() -> Transitions:
    """5,000 transitions."""
    return Transitions(random_episodes(TARGET_EPISODES, first=SOURCE_EPISODES), STANDARDIZED)


def latent_column() -> EpisodeValues:
    """One z per source episode."""
    values = np.random.default_rng(0).standard_normal((SOURCE_EPISODES, LATENT_DIM), dtype=np.float32)
    return EpisodeValues(values, source_table().offsets)


def modality_learner(optimization: Literal["em", "joint"]) -> ModalityLearner:
    """TC-ELBO on 16 crops of 200 steps; GRU 256, z 128, three decoders."""
    torch.manual_seed(0)
    config = PUBLISHED_MODALITY.model_copy(update={"optimization": optimization})
    table = source_table()
    model = ModalityModel(table.observation_dim, table.action_dim, config)
    model.set_statistics(moments(table))
    return ModalityLearner(table, model, config, seed=0)


def advantage_learner() -> AdvantageLearner:
    """Sparse QL given z, on batches of 256."""
    torch.manual_seed(0)
    config = ADVANTAGES(kind="sparse_q", conditioning="modality")
    return AdvantageLearner(source({"z": latent_column()}), LATENT_DIM, config, seed=0)


def contrastive_learner() -> ContrastiveLearner:
    """128 positives and 127 negatives."""
    torch.manual_seed(0)
    return ContrastiveLearner(target(), source(), ALIGNMENTS(kind="contrastive"), seed=0)


def policy_learner() -> IQLLearner:
    """Filtered IQL as V2A trains it: 64 of 128 source transitions, which h and A choose, beside 128 of the target."""
    generator = np.random.default_rng(1)
    columns: dict[str, Column] = {
        name: generator.uniform(-1, 1, len(source_table().observation)).astype(np.float32)
        for name in ("alignment", "advantage")
    }
    config = LEARNERS(filter=FILTERS(rule="top_fraction", weight="exp_alignment"))
    return _iql(source(columns), config)


def target_policy_learner() -> IQLLearner:
    """IQL on 256 transitions of the target alone."""
    return _iql(source(), LEARNERS(data="target"))


def _iql(transitions: Transitions, config: Any) -> IQLLearner:
    torch.manual_seed(0)
    sampler = MixedSampler(target(), transitions, SourceFilter.prepare(config.filter), config)
    actor = make_actor(transitions.observation_dim, transitions.action_dim, config.width, STANDARDIZED)
    return IQLLearner(sampler, actor, config, seed=0)
