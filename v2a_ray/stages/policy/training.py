"""Runs the policy stage on files: open the tables with their columns, train, evaluate, write. No Ray here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions
from v2a_ray.data.loading.sampler import Column, Preprocessing, TransitionSampler
from v2a_ray.data.loading.streaming import StreamedTransitions, is_streamed, open_transitions
from v2a_ray.engine.columns import TARGET_COLUMN, read_step_column
from v2a_ray.engine.context import Job, preprocessing
from v2a_ray.engine.data_parallel import ONE_WORKER, Workers
from v2a_ray.engine.stage import imported
from v2a_ray.engine.trainer import Metrics, use_threads
from v2a_ray.networks import TanhActor
from v2a_ray.stages.policy.batched import BatchedIQL, PolicyBatch, as_it_is, train_together
from v2a_ray.stages.policy.config import IQLConfig, PolicyConfig
from v2a_ray.stages.policy.cuda_graph import RecordedPolicyBatch
from v2a_ray.stages.policy.evaluating import (
    alignment_of_target,
    as_metrics,
    held_out_alignment,
    make_evaluate,
    recorded_names,
)
from v2a_ray.stages.policy.filtering import SourceFilter, normalized_columns
from v2a_ray.stages.policy.inputs import LearnerInputs, make_learner
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.support.fit import corrections, load_density, load_dynamics

Float = NDArray[np.float32]


def fit_policy(job: Job) -> None:
    """Train the policy on the filtered data and evaluate it in the target environment."""
    use_threads(job.config.policy.num_threads)
    training = PolicyTraining(job, PolicyTables.open(job))
    learner, prepared = training.learner, policy_batch_preparation(job.config.policy, training.tables)
    if prepared is not as_it_is and isinstance(learner, IQLLearner):
        (error,) = train_together([training.loop], [learner], prepared)
        if error is not None:
            raise error
    else:
        training.loop.run(learner)
    training.finish()


def policy_batch_preparation(config: PolicyConfig, tables: PolicyTables) -> Callable[[BatchedIQL], PolicyBatch]:
    """How to run update steps on these tables: as a CUDA graph if `cuda_graph` is set and they are on a GPU."""
    recorded = isinstance(config, IQLConfig) and config.cuda_graph
    return RecordedPolicyBatch if recorded and tables.target.device.type == "cuda" else as_it_is


@dataclass(frozen=True)
class PolicyTables:
    """The training data of policies. Jobs with equal inputs in one batch share it, unless a table is streamed.

    Attributes:
        target, source: the tables with the columns for filter, corrections and groups.
        alignment: (N,) h of the source, if that column exists.
    """

    target: TransitionSampler
    source: TransitionSampler
    alignment: Float | None
    preprocessing: Preprocessing

    @staticmethod
    def open(job: Job) -> PolicyTables:
        """Open the tables of a job, in memory or streamed."""
        config, prepared, seed = job.config.policy, preprocessing(job), job.config.seed
        source, target = job.rows("source"), job.rows("target")
        columns = {
            name: read_step_column(job.inputs[name] / "column.parquet", name, source)
            for name in ("advantage", "alignment")
            if name in job.inputs
        }
        columns |= normalized_columns(config.filter, columns)
        extra: dict[str, Column] = {**columns, **corrections(job, source), **_own_columns(job, "source", source)}
        memory = memory_of_tables(job)
        opened = partial(open_transitions, seed=seed, device=job.device(config, **memory))
        return PolicyTables(
            opened(
                target,
                prepared,
                {**_target_columns(job, target), **_own_columns(job, "target", target)},
                memory_bytes=memory["target"],
            ),
            opened(source, prepared, extra, memory_bytes=memory["source"]),
            columns.get("alignment"),
            prepared,
        )

    @property
    def streamed(self) -> list[str]:
        """The tables that do not fit in memory."""
        tables = {"target": self.target, "source": self.source}
        return [role for role, table in tables.items() if isinstance(table, StreamedTransitions)]


def memory_of_tables(job: Job, num_sharing: int = 1) -> dict[str, int]:
    """Memory limit of each table in bytes, by role; a larger table is streamed. Jobs may share their memory equally."""
    memory = job.memory_bytes // num_sharing
    # The target is usually small; a large one leaves half of the memory to the source.
    target = min(job.rows("target").num_bytes, memory // 2)
    return {"target": target, "source": memory - target}


def fit_in_memory(jobs: Sequence[Job]) -> bool:
    """Whether the tables of all jobs fit in the memory that one of them may use."""
    return not any(
        is_streamed(job.rows(role), memory) for job in jobs for role, memory in memory_of_tables(job, len(jobs)).items()
    )


class PolicyTraining:
    """One policy ready for training: run `loop` on `learner`, then call `finish` (only on rank 0 of several workers).

    Every worker draws an equal part of each batch.
    """

    def __init__(self, job: Job, tables: PolicyTables, workers: Workers = ONE_WORKER) -> None:
        self.job, self.tables, self.workers = job, tables, workers
        config, evaluation = job.config.policy, job.config.evaluation
        config = config.model_copy(update={"batch_size": workers.share(config.batch_size)})
        held_out = held_out_alignment(job) if "alignment" in job.inputs else None
        source_filter = SourceFilter.prepare(config.filter, tables.alignment, held_out)
        scale = tables.preprocessing.reward_scale
        self.sampler = MixedSampler(tables.target, tables.source, source_filter, config, scale)
        device = tables.target.device
        density = load_density(job, device) if "density" in job.inputs else None
        dynamics = load_dynamics(job, device) if "dynamics" in job.inputs else None
        torch.manual_seed(job.config.seed)
        dims = tables.target.observation_dim, tables.target.action_dim
        self.actor = make_actor(*dims, config.width, tables.preprocessing)
        self.learner = make_learner(
            LearnerInputs(self.sampler, self.actor, config, job.config.seed, density, dynamics, workers)
        )
        self.results: dict[str, Any] = {}
        self.evaluate_actor = make_evaluate(job)
        self.loop = job.loop(
            config,
            samplers={"target": self.sampler.target, "source": self.sampler.source},
            evaluate=self.evaluate,
            evaluation_interval_steps=evaluation.interval_steps,
            saves=workers.rank == 0,
        )

    def evaluate(self) -> Metrics:
        """Evaluate the policy in the target, or on its recordings; `results` has the latest results.

        With several workers, rank 0 does this and sends the results to the others, which would wait anyway.
        """
        names = recorded_names(self.job)
        values = torch.zeros(len(names), dtype=torch.float64, device=self.tables.target.device)
        if self.workers.rank == 0:
            self.results = self.evaluate_actor(self.actor.act_numpy)
            # Without reference returns there is no score, without rewards no value.
            known = [math.nan if self.results[name] is None else self.results[name] for name in names]
            values += values.new_tensor(known)
        told = self.workers.reduce(values).tolist()
        known = [None if math.isnan(value) else value for value in told]
        return as_metrics(dict(zip(names, known, strict=True)), names)

    def finish(self) -> None:
        """Write the trained actor, its evaluation and the training history."""
        output = self.job.output
        save_file(self.actor.state_dict(), output / "actor.safetensors")
        eligible = len(self.sampler.source) if self.sampler.uses_source else 0
        kept = self.sampler.num_source_rows / self.sampler.num_drawn * eligible
        about = {
            "source_transitions_eligible": eligible,
            "data_kept": kept / len(self.tables.source) if self.job.config.sources else None,
            "streamed_tables": self.tables.streamed,
            **alignment_of_target(self.job),
        }
        (output / "evaluation.json").write_text(json.dumps(self.results | about, indent=1))
        self.job.write_history(self.loop.history)


def _target_columns(job: Job, target: MemoryMappedTransitions) -> dict[str, Column]:
    if "alignment" not in job.inputs or job.config.policy.reward_correction_data == "source":
        return {}
    return {"alignment": read_step_column(job.inputs["alignment"] / TARGET_COLUMN, "alignment", target)}


def _own_columns(job: Job, role: str, rows: MemoryMappedTransitions) -> dict[str, Column]:
    """Extra columns of a table for this learner."""
    added = type(job.config.policy).columns
    found: dict[str, Column] = {} if added is None else imported(added)(job, role, rows)
    return found


def make_actor(observation_dim: int, action_dim: int, width: int, preprocessing: Preprocessing) -> TanhActor:
    """An untrained actor that standardises observations by `preprocessing`."""
    actor = TanhActor(observation_dim, action_dim, [width] * 2)
    actor.observation_mean_O.copy_(torch.from_numpy(np.asarray(preprocessing.observation_mean)))
    actor.observation_std_O.copy_(torch.from_numpy(np.asarray(preprocessing.observation_std)))
    return actor
