"""Rows, advantage and alignment from files to files: read the inputs, fit, write the outputs. No Ray here."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from v2a_ray.data.loading.memory_mapped import RowFile, write_rows
from v2a_ray.data.loading.sampler import Column, EpisodeValues
from v2a_ray.data.loading.streaming import open_transitions
from v2a_ray.engine.columns import one_hot, read_episode_column, read_labels, write_step_column
from v2a_ray.engine.context import Job, preprocessing
from v2a_ray.engine.trainer import use_threads
from v2a_ray.stages.advantage.learner import AdvantageLearner
from v2a_ray.stages.alignment.estimators import estimate_alignment
from v2a_ray.stages.sections import AdvantageConfig

Float = NDArray[np.float32]


def fit_rows(job: Job) -> None:
    """Lay a table out for sampling."""
    write_rows(job.inputs["table"] / "table", job.output)


def fit_advantage(job: Job) -> None:
    """Fit Sparse QL on the source table and write the column `advantage`."""
    config: AdvantageConfig = job.config.advantage
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
    history = job.loop(config, feeds={"source": transitions}).run(learner)
    write_step_column(job.output / "column.parquet", "advantage", source, learner.score(transitions))
    job.write_history(history)


def _latent(job: Job, source: RowFile) -> Float:
    """(E, Z): what the advantage is conditioned on. The oracle alone reads labels: it is an ablation, not a method."""
    if job.config.advantage.latent == "oracle":
        return one_hot(read_labels(job.inputs["source"] / "table", source, "domain"))
    learned = read_episode_column(job.inputs["modality"] / "column.parquet", "z", source)
    if job.config.advantage.latent == "shuffled":
        return np.random.default_rng(job.config.upstream_seed).permutation(learned)
    return learned


def fit_alignment(job: Job) -> None:
    """Fit the configured estimator and write the column `alignment`, with the held-out target scores beside it."""
    use_threads(job.config.alignment.num_threads)
    source = job.rows("source")
    alignment, history = estimate_alignment(job)
    write_step_column(job.output / "column.parquet", "alignment", source, alignment.source)
    pq.write_table(pa.table({"alignment": pa.array(alignment.held_out)}), job.output / "held_out.parquet")
    job.write_history(history)
