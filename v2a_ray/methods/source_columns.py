"""Rows, advantage and alignment from files to files: read the inputs, fit, write the outputs. No Ray here."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.config import (
    AdvantageConfig,
    AlignmentConfig,
)
from v2a_ray.data.rows import RowFile, write_rows
from v2a_ray.data.sampler import Column, EpisodeValues, Transitions, TransitionSampler, of_recorded_arrivals
from v2a_ray.data.streaming import open_transitions
from v2a_ray.data.table import EpisodeTable
from v2a_ray.methods.job import Job, preprocessing, require_memory
from v2a_ray.methods.modality import load_modality
from v2a_ray.methods.policy import TARGET_COLUMN
from v2a_ray.stages.advantage import AdvantageLearner
from v2a_ray.stages.alignment import Alignment, carried, modality_scores, ranks, split_target, window_average
from v2a_ray.stages.classifier import ClassifierLearner
from v2a_ray.stages.columns import (
    EpisodeIndex,
    one_hot,
    read_episode_column,
    read_labels,
    write_step_column,
)
from v2a_ray.stages.conditional_vae import DynamicsDensityLearner
from v2a_ray.stages.contrastive import ContrastiveLearner
from v2a_ray.stages.learner import use_threads
from v2a_ray.stages.optimal_transport import OptimalTransport
from v2a_ray.stages.residual import ResidualLearner
from v2a_ray.stages.state_ratio import StateRatioLearner

Float = NDArray[np.float32]


class Scorer(Protocol):
    """A fitted estimator of alignment."""

    def score(self, transitions: TransitionSampler) -> Tensor:
        """(N,), on the device of the transitions."""
        ...


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
    alignment, history = _alignment(job, source)
    write_step_column(job.output / "column.parquet", "alignment", source, alignment.source)
    pq.write_table(pa.table({"alignment": pa.array(alignment.held_out)}), job.output / "held_out.parquet")
    job.write_history(history)


def _alignment(job: Job, source: RowFile) -> tuple[Alignment, list[dict[str, Any]]]:
    config: AlignmentConfig = job.config.alignment
    seed = job.config.upstream_seed
    memory = job.memory_bytes - require_memory(job, "alignment", "target")
    target = job.table("target")
    # Only states matter to the state ratio; every other estimator compares where steps arrived.
    compared = target if config.kind == "state_ratio" else target.recorded_steps()
    fitted, held_out = split_target(compared, config.held_out_fraction, seed)
    if config.kind == "modality":
        return _modality_alignment(job, target, held_out), []
    prepared, device = preprocessing(job), job.device(config, source=memory)
    sources = open_transitions(source, prepared, memory_bytes=memory, seed=seed, device=device)
    if config.kind != "state_ratio":
        sources = of_recorded_arrivals(sources, source)
    targets, control = (Transitions(table, prepared, device=device) for table in (fitted, held_out))
    torch.manual_seed(seed)
    if config.kind == "contrastive":
        contrastive = ContrastiveLearner(targets, sources, config, seed)
        history = job.loop(config, feeds={"source": sources}).run(contrastive)
        return _scores(contrastive, sources, control, source), history
    if config.kind == "classifier":
        classifier = ClassifierLearner(targets, sources, config, seed)
        history = job.loop(config, feeds={"source": sources}).run(classifier)
        return _scores(classifier, sources, control, source), history
    if config.kind == "state_ratio":
        ratio = StateRatioLearner(targets, sources, config, seed)
        history = job.loop(config, feeds={"source": sources}).run(ratio)
        scored = ratio.score(Transitions(target, prepared, device=device)).cpu().numpy()
        write_step_column(job.output / TARGET_COLUMN, "alignment", target, scored)
        return Alignment(ratio.score(sources).cpu().numpy(), ratio.score(control).cpu().numpy()), history
    if config.kind == "dynamics_density":
        feeds = [targets] if config.fit_dynamics_to == "target" else [targets, sources]
        dynamics = DynamicsDensityLearner(targets, feeds, config, seed)
        history = job.loop(config, feeds={"source": sources}).run(dynamics)
        return _scores(dynamics, sources, control, source), history
    if config.kind == "optimal_transport":
        transport = OptimalTransport(targets, config, seed)
        moved = transport.score(sources, lambda done, total: job.progress(done, total, {}))
        return Alignment(carried(moved.cpu().numpy(), source), transport.score(control).cpu().numpy()), []
    residual = ResidualLearner(targets, config, seed)
    history = job.loop(config).run(residual)
    scores = _scores(residual, sources, control, source)
    return _ranked(scores.source, scores.held_out, source, held_out, config.window_steps), history


def _scores(fitted: Scorer, source: TransitionSampler, held_out: TransitionSampler, rows: RowFile) -> Alignment:
    """Both tables' scores, back from the device; `rows` are those of the source."""
    return Alignment(carried(fitted.score(source).cpu().numpy(), rows), fitted.score(held_out).cpu().numpy())


def _modality_alignment(job: Job, target: EpisodeTable, held_out: EpisodeTable) -> Alignment:
    require_memory(job, "alignment", "source", "target")
    source = job.table("source")
    folder = job.inputs["modality"]
    model = load_modality(folder, source.observation_dim, source.action_dim).to(job.device(job.config.alignment))
    target_latent = read_episode_column(folder / "column.parquet", "z", target)
    centre = np.average(target_latent, axis=0, weights=target.lengths).astype(np.float32)

    def scores(table: EpisodeTable) -> Float:
        latent = read_episode_column(folder / "column.parquet", "z", table)
        return carried(modality_scores(model, table, latent, centre), table)

    return _ranked(scores(source), scores(held_out), source, held_out, job.config.alignment.window_steps)


def _ranked(
    source_score: Float, control: Float, source: EpisodeIndex, held_out: EpisodeTable, window: int
) -> Alignment:
    """Raw scores, averaged over windows, as ranks among the source's: h is then uniform on [0, 1] over the source."""
    pool = window_average(source_score, source, window)
    return Alignment(ranks(pool, pool), ranks(window_average(control, held_out, window), pool))
