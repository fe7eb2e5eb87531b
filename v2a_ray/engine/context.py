"""One stage to compute: its inputs, its resources, its output folder. No Ray here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions, transition_bytes, write_rows
from v2a_ray.data.loading.sampler import Preprocessing, make_preprocessing
from v2a_ray.data.loading.streaming import StreamedTransitions, is_streamed
from v2a_ray.data.rewards import require_rewards
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import read_manifest, read_table_folder
from v2a_ray.engine.devices import choose_device
from v2a_ray.engine.trainer import Progress, TrainingLoop, silent
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.settings.base import TrainingConfig

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Job:
    """One stage to compute.

    Attributes:
        config: the experiment.
        inputs: maps a role (`source`, `target`, `source_rows`, `modality`, ...) to the artifact's folder.
        output: folder to fill.
        work: folder for checkpoints.
        progress: called at every logging interval.
        part: the label of the source, for a stage that is computed per source.
        may_use_gpu: false if the GPU that this process sees was reserved for others.
    """

    config: ExperimentConfig
    inputs: Mapping[str, Path]
    output: Path
    work: Path
    progress: Progress = silent
    part: str | None = None
    may_use_gpu: bool = True

    def table(self, role: str) -> EpisodeTable:
        """The episode table of an input."""
        return read_table_folder(self.inputs[role] / "table")

    def rows(self, role: str) -> MemoryMappedTransitions:
        """The memory-mapped transitions of an input table."""
        return MemoryMappedTransitions.open(self.inputs[f"{role}_rows"])

    def manifest(self, role: str) -> dict[str, Any]:
        """The manifest of an input table."""
        return read_manifest(self.inputs[role] / "table")

    @property
    def memory_bytes(self) -> int:
        """Bytes that this stage may use for transitions."""
        return int(self.config.loading.memory_gib * 2**30)

    def device(self, training: TrainingConfig, **memory_bytes: int) -> torch.device:
        """The device of a stage. A streamed table is on the CPU, and so are the networks trained on it.

        Args:
            memory_bytes: memory limit for the transitions of each table, by role.

        Raises:
            ConfigError: device is `cuda`, but there is no GPU or a table is streamed.
        """
        streamed = [role for role, memory in memory_bytes.items() if is_streamed(self.rows(role), memory)]
        if streamed and training.device == "cuda":
            raise ConfigError(
                f"cuda is asked for, and the {streamed[0]} is more than {self.memory_bytes / 2**30:,.2f} GiB: it would "
                "be streamed, on the CPU",
                where="loading.memory_gib",
                remedy="raise it, if the GPU has the memory, or leave device at auto",
            )
        return choose_device("cpu" if streamed else training.device, may_use_gpu=self.may_use_gpu)

    def loop(self, training: TrainingConfig, **more: Any) -> TrainingLoop:
        """The training loop with this job's checkpoint and progress; reports which of the `samplers` are streamed."""
        for name, feed in more.get("samplers", {}).items():
            if isinstance(feed, StreamedTransitions):
                self.progress(0, training.num_steps, {f"streamed/{name}": 1.0})
        return TrainingLoop(
            num_steps=training.num_steps,
            checkpoint=self.work / CHECKPOINT,
            checkpoint_interval_steps=training.checkpoint_interval_steps,
            log_interval_steps=training.log_interval_steps,
            progress=self.progress,
            **more,
        )

    def write_history(self, history: list[dict[str, Any]]) -> None:
        """Recorded metrics as `curves.parquet`: one row per record, one column per metric."""
        names = sorted({name for row in history for name in row} - {"step"})
        columns = {name: pa.array([row.get(name) for row in history], pa.float64()) for name in names}
        steps = pa.array([row["step"] for row in history], pa.int64())
        pq.write_table(pa.table({"step": steps, **columns}), self.output / "curves.parquet")


def preprocessing(job: Job) -> Preprocessing:
    """Standardisation by target statistics and the reward scale over both tables, as configured.

    Raises DataError for a table without rewards, if the experiment reads them.
    """
    config = job.config.preprocessing
    target, source = job.manifest("target"), job.manifest("source")
    if job.config.needs_rewards:
        for manifest in (target, source):
            require_rewards(manifest, f"method {job.config.method_title}")
    return make_preprocessing(
        target,
        source,
        standardize=config.standardize_observations,
        reward_scale=None if config.reward_scale == "return_range" else float(config.reward_scale),
    )


def input_bytes(job: Job, *roles: str) -> int:
    """The bytes of the transitions of the tables `roles` in memory."""
    return sum(transition_bytes(job.manifest(role)) for role in roles)


def require_memory(job: Job, stage: str, *roles: str, remedy: str | None = None) -> int:
    """The bytes of the tables `roles`. Raises ConfigError if they exceed the memory of a stage that cannot stream."""
    needed = input_bytes(job, *roles)
    if needed > job.memory_bytes:
        raise ConfigError(
            f"{needed / 2**30:,.2f} GiB of transitions ({' and '.join(roles)}) are more than the "
            f"{job.memory_bytes / 2**30:,.2f} GiB allowed, and the {stage} stage cannot stream them",
            where="loading.memory_gib",
            remedy=remedy
            or "raise it on a node that has the memory, take less data with num_transitions, or choose a method that "
            "streams its source: igdf, dvdf, iql_* (`v2a methods`)",
        )
    return needed


def fit_rows(job: Job) -> None:
    """Write a table as memory-mapped rows for sampling."""
    write_rows(job.inputs["table"] / "table", job.output)
