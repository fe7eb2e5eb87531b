"""Runs the advantage stage on files: read the tables and z, fit, write the column. No Ray here."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions
from v2a_ray.data.loading.sampler import Column, EpisodeValues
from v2a_ray.data.loading.streaming import open_transitions
from v2a_ray.engine.columns import one_hot, read_episode_column, read_labels, write_step_column
from v2a_ray.engine.context import Job, preprocessing
from v2a_ray.engine.trainer import use_threads
from v2a_ray.stages.advantage.learner import AdvantageLearner

Float = NDArray[np.float32]


def fit_advantage(job: Job) -> None:
    """Fit Q and V to the source table and write the column `advantage`."""
    config = job.config.advantage
    use_threads(config.num_threads)
    source = job.rows("source")
    columns: dict[str, Column] = {}
    latent_dim = 0
    if config.conditioning == "modality":
        latent = _latent(job, source)
        latent_dim = latent.shape[1]
        columns["z"] = EpisodeValues(latent, source.offsets)
    memory, seed = job.memory_bytes, job.config.upstream_seed
    device = job.device(config, source=memory)
    transitions = open_transitions(source, preprocessing(job), columns, memory_bytes=memory, seed=seed, device=device)
    torch.manual_seed(seed)
    learner = AdvantageLearner(transitions, latent_dim, config, seed)
    history = job.loop(config, samplers={"source": transitions}).run(learner)
    write_step_column(job.output / "column.parquet", "advantage", source, learner.score(transitions))
    job.write_history(history)


def _latent(job: Job, source: MemoryMappedTransitions) -> Float:
    """(E, Z): the z that conditions the advantage. Only `oracle`, an ablation, reads labels."""
    if job.config.advantage.latent == "oracle":
        return one_hot(read_labels(job.inputs["source"] / "table", source, "domain"))
    learned = read_episode_column(job.inputs["modality"] / "column.parquet", "z", source)
    if job.config.advantage.latent == "shuffled":
        return np.random.default_rng(job.config.upstream_seed).permutation(learned)
    return learned
