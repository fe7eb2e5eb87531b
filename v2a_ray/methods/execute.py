"""What computes a node of a plan: read the inputs, fit, write the outputs. No Ray here.

`compute(node, ...)` is the whole method in one process; the orchestration calls the same functions on a cluster.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from v2a_ray.config import (
    AdvantageConfig,
    AlignmentConfig,
)
from v2a_ray.data.rows import RowFile, write_rows
from v2a_ray.data.sampler import Column, EpisodeValues, Preprocessing, Transitions, TransitionSampler
from v2a_ray.data.streaming import StreamedTransitions, open_transitions
from v2a_ray.data.table import EpisodeTable
from v2a_ray.domains import parse_domain
from v2a_ray.evaluation.rollout import evaluate
from v2a_ray.methods.job import Job, preprocessing, require_memory
from v2a_ray.methods.modality import fit_modality, load_modality
from v2a_ray.methods.target_models import (
    corrections,
    fit_correction,
    fit_density,
    fit_dynamics,
    load_density,
    load_dynamics,
)
from v2a_ray.stages.advantage import AdvantageLearner
from v2a_ray.stages.alignment import Alignment, modality_scores, ranks, split_target, window_average
from v2a_ray.stages.classifier import ClassifierLearner
from v2a_ray.stages.columns import (
    EpisodeIndex,
    one_hot,
    read_episode_column,
    read_labels,
    read_step_column,
    write_step_column,
)
from v2a_ray.stages.conditional_vae import DynamicsDensityLearner
from v2a_ray.stages.contrastive import ContrastiveLearner
from v2a_ray.stages.filtering import SourceFilter, normalized_columns
from v2a_ray.stages.grouped import episode_groups
from v2a_ray.stages.learner import Metrics, use_threads
from v2a_ray.stages.optimal_transport import OptimalTransport
from v2a_ray.stages.policy import MixedSampler, make_actor
from v2a_ray.stages.policy_learners import make_learner
from v2a_ray.stages.residual import ResidualLearner
from v2a_ray.stages.state_ratio import StateRatioLearner

Float = NDArray[np.float32]
TARGET_COLUMN = "target.parquet"
"""Beside the source's column that of the target, where the policy reads it."""


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
    transitions = open_transitions(
        source, preprocessing(job), columns, memory_bytes=job.memory_bytes, seed=job.config.upstream_seed
    )
    torch.manual_seed(job.config.upstream_seed)
    learner = AdvantageLearner(transitions, latent_dim, config, job.config.upstream_seed)
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
    target_bytes = require_memory(job, "alignment", "target")
    target = job.table("target")
    fitted, held_out = split_target(target, config.held_out_fraction, seed)
    if config.kind == "modality":
        return _modality_alignment(job, target, held_out), []
    prepared = preprocessing(job)
    sources = open_transitions(source, prepared, memory_bytes=job.memory_bytes - target_bytes, seed=seed)
    targets, control = (Transitions(table, prepared) for table in (fitted, held_out))
    torch.manual_seed(seed)
    if config.kind == "contrastive":
        contrastive = ContrastiveLearner(targets, sources, config, seed)
        history = job.loop(config, feeds={"source": sources}).run(contrastive)
        return Alignment(contrastive.score(sources).numpy(), contrastive.score(control).numpy()), history
    if config.kind == "classifier":
        classifier = ClassifierLearner(targets, sources, config, seed)
        history = job.loop(config, feeds={"source": sources}).run(classifier)
        return Alignment(classifier.score(sources).numpy(), classifier.score(control).numpy()), history
    if config.kind == "state_ratio":
        ratio = StateRatioLearner(targets, sources, config, seed)
        history = job.loop(config, feeds={"source": sources}).run(ratio)
        scored = ratio.score(Transitions(target, prepared)).numpy()
        write_step_column(job.output / TARGET_COLUMN, "alignment", target, scored)
        return Alignment(ratio.score(sources).numpy(), ratio.score(control).numpy()), history
    if config.kind == "dynamics_density":
        feeds = [targets] if config.fit_dynamics_to == "target" else [targets, sources]
        dynamics = DynamicsDensityLearner(targets, feeds, config, seed)
        history = job.loop(config, feeds={"source": sources}).run(dynamics)
        return Alignment(dynamics.score(sources).numpy(), dynamics.score(control).numpy()), history
    if config.kind == "optimal_transport":
        transport = OptimalTransport(targets, config, seed)
        moved = transport.score(sources, lambda done, total: job.progress(done, total, {}))
        return Alignment(moved.numpy(), transport.score(control).numpy()), []
    residual = ResidualLearner(targets, config, seed)
    history = job.loop(config).run(residual)
    scores = residual.score(sources).numpy(), residual.score(control).numpy()
    return _ranked(*scores, source, held_out, config.window_steps), history


def _modality_alignment(job: Job, target: EpisodeTable, held_out: EpisodeTable) -> Alignment:
    require_memory(job, "alignment", "source", "target")
    source = job.table("source")
    folder = job.inputs["modality"]
    model = load_modality(folder, source.observation_dim, source.action_dim)
    target_latent = read_episode_column(folder / "column.parquet", "z", target)
    centre = np.average(target_latent, axis=0, weights=target.lengths).astype(np.float32)

    def scores(table: EpisodeTable) -> Float:
        latent = read_episode_column(folder / "column.parquet", "z", table)
        return modality_scores(model, table, latent, centre)

    return _ranked(scores(source), scores(held_out), source, held_out, job.config.alignment.window_steps)


def _ranked(
    source_score: Float, control: Float, source: EpisodeIndex, held_out: EpisodeTable, window: int
) -> Alignment:
    """Raw scores, averaged over windows, as ranks among the source's: h is then uniform on [0, 1] over the source."""
    pool = window_average(source_score, source, window)
    return Alignment(ranks(pool, pool), ranks(window_average(control, held_out, window), pool))


def fit_policy(job: Job) -> None:
    """Train the policy on what the filter keeps, evaluating it in the target environment."""
    use_threads(job.config.policy.num_threads)
    training = PolicyTraining(job, PolicyTables.open(job))
    training.loop.run(training.learner)
    training.finish()


@dataclass(frozen=True)
class PolicyTables:
    """What policies train on. Jobs that `policy_pack.pack_key` puts together can share it, unless it is streamed.

    Attributes:
        target, source: the tables with the columns that the filter, corrections and groups read.
        alignment: (N,) h of the source, if there is that column.
    """

    target: TransitionSampler
    source: TransitionSampler
    alignment: Float | None
    preprocessing: Preprocessing

    @staticmethod
    def open(job: Job) -> PolicyTables:
        """The tables of a job, in its memory or streamed."""
        config, prepared, seed = job.config.policy, preprocessing(job), job.config.seed
        source, target = job.rows("source"), job.rows("target")
        columns = {
            name: read_step_column(job.inputs[name] / "column.parquet", name, source)
            for name in ("advantage", "alignment")
            if name in job.inputs
        }
        columns |= normalized_columns(config.filter, columns)
        extra: dict[str, Column] = {**columns, **corrections(job, source)}
        if job.config.groups_by_z:
            latent = read_episode_column(job.inputs["modality"] / "column.parquet", "z", source)
            groups = episode_groups(latent, config.grouped.num_groups, job.config.upstream_seed)
            extra["group"] = EpisodeValues(groups, source.offsets)
        # The target is small as a rule; one that is not leaves the source half of the memory.
        for_target = min(target.num_bytes, job.memory_bytes // 2)
        return PolicyTables(
            open_transitions(target, prepared, _target_columns(job, target), memory_bytes=for_target, seed=seed),
            open_transitions(source, prepared, extra, memory_bytes=job.memory_bytes - for_target, seed=seed),
            columns.get("alignment"),
            prepared,
        )

    @property
    def streamed(self) -> list[str]:
        """The tables that do not fit in memory."""
        tables = {"target": self.target, "source": self.source}
        return [role for role, table in tables.items() if isinstance(table, StreamedTransitions)]


class PolicyTraining:
    """One policy ready to be trained: `learner` by `loop`, then `finish`."""

    def __init__(self, job: Job, tables: PolicyTables) -> None:
        self.job, self.tables = job, tables
        config, evaluation = job.config.policy, job.config.evaluation
        source_filter = SourceFilter.prepare(config.filter, tables.alignment, _held_out_scores(job))
        scale = tables.preprocessing.reward_scale
        self.sampler = MixedSampler(tables.target, tables.source, source_filter, config, scale)
        density = load_density(job) if "density" in job.inputs else None
        dynamics = load_dynamics(job) if "dynamics" in job.inputs else None
        torch.manual_seed(job.config.seed)
        dims = tables.target.observation_dim, tables.target.action_dim
        self.actor = make_actor(*dims, config.width, tables.preprocessing)
        self.learner = make_learner(self.sampler, self.actor, config, job.config.seed, density, dynamics)
        self.results: dict[str, Any] = {}
        self.loop = job.loop(
            config,
            feeds={"target": self.sampler.target, "source": self.sampler.source},
            evaluate=self.evaluate,
            evaluation_interval_steps=evaluation.interval_steps,
        )

    def evaluate(self) -> Metrics:
        """Roll the policy out in the target environment; `results` holds the last time's."""
        evaluation, domain = self.job.config.evaluation, parse_domain(self.job.config.target.domain)
        results = evaluate(self.actor.act_numpy, domain, evaluation.num_episodes, evaluation.seed)
        self.results = results.summary()
        self.results |= {"returns": results.returns.tolist(), "lengths": results.lengths.tolist()}
        return {f"evaluation/{name}": self.results[name] for name in ("return_mean", "normalized_score_mean")}

    def finish(self) -> None:
        """Write the trained actor, its evaluation and the curves."""
        output = self.job.output
        save_file(self.actor.state_dict(), output / "actor.safetensors")
        eligible = len(self.sampler.source) if self.sampler.uses_source else 0
        about = {
            "source_transitions_eligible": eligible,
            "data_kept": self.sampler.num_source_rows / self.sampler.num_drawn * eligible / len(self.tables.source),
            "streamed_tables": self.tables.streamed,
        }
        (output / "evaluation.json").write_text(json.dumps(self.results | about, indent=1))
        self.job.write_history(self.loop.history)


def _target_columns(job: Job, target: RowFile) -> dict[str, Column]:
    if "alignment" not in job.inputs or job.config.policy.reward_correction_data == "source":
        return {}
    return {"alignment": read_step_column(job.inputs["alignment"] / TARGET_COLUMN, "alignment", target)}


def _held_out_scores(job: Job) -> Float | None:
    if "alignment" not in job.inputs:
        return None
    column = pq.read_table(job.inputs["alignment"] / "held_out.parquet").column("alignment")
    return np.asarray(column.to_numpy(), dtype=np.float32)


FIT = {
    "rows": fit_rows,
    "modality": fit_modality,
    "advantage": fit_advantage,
    "alignment": fit_alignment,
    "density": fit_density,
    "dynamics": fit_dynamics,
    "correction": fit_correction,
    "policy": fit_policy,
}
