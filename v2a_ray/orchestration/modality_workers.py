"""The modality stage on several workers: Ray Train's TorchTrainer, each worker with its shard of the episodes.

Every worker draws its part of the batch from its own shard and all gradients are summed (gloo on CPU, NCCL on GPU), so
the parameters stay equal on all workers and the step is the one that a single worker would take on the whole batch.
Worker 0 writes the checkpoints; after a failure Ray Train restarts the workers and they go on from the newest one.
"""

from __future__ import annotations

from typing import Any

import ray
import ray.data
import ray.train
import torch
import torch.distributed
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from torch import Tensor

from v2a_ray.data.table import EpisodeTable, concatenate
from v2a_ray.errors import ConfigError
from v2a_ray.methods.execute import finish_modality
from v2a_ray.methods.job import Job, require_memory
from v2a_ray.orchestration.ingest import shard_files
from v2a_ray.orchestration.session import quiet_ray_data
from v2a_ray.stages.learner import Progress, silent, use_threads
from v2a_ray.stages.modality import ModalityModel, moments
from v2a_ray.stages.modality_learner import ModalityLearner

MAX_FAILURES = 3


def fit_modality_parallel(job: Job) -> None:
    """Fit the modality with `modality.num_workers` workers and write the column z. Runs inside a Ray task."""
    config = job.config.modality
    if config.batch_size % config.num_workers:
        raise ConfigError(
            f"a batch of {config.batch_size} trajectories cannot be shared by {config.num_workers} workers",
            where="modality.batch_size",
            remedy="make it a multiple of modality.num_workers",
        )
    roles = ["source", "target"] if config.include_target else ["source"]
    require_memory(job, "modality", *roles)
    files = shard_files([job.inputs[role] / "table" for role in roles], config.num_workers)
    # One dataset per worker instead of one that is split while it streams: which episodes a worker gets then depends
    # on nothing but its rank, and equal seeds give equal results. Reading takes no CPU from the workers that hold all.
    with quiet_ray_data():
        shards = {f"shard-{rank}": ray.data.read_parquet(mine, num_cpus=0) for rank, mine in enumerate(files)}
    job.work.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job, "progress": job.progress},
        scaling_config=ScalingConfig(num_workers=config.num_workers, resources_per_worker={"CPU": config.num_threads}),
        run_config=RunConfig(
            name="modality",
            storage_path=str(job.work.resolve() / "train"),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
        ),
        datasets=shards,
        dataset_config=DataConfig(datasets_to_split=[]),
    )
    trainer.fit()


def _worker(settings: dict[str, Any]) -> None:
    """What each worker runs."""
    job: Job = settings["job"]
    progress: Progress = settings["progress"]
    config, seed = job.config.modality, job.config.upstream_seed
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    use_threads(config.num_threads)
    shard = _read_shard(rank)
    torch.manual_seed(seed)
    model = ModalityModel(shard.observation_dim, shard.action_dim, config)
    model.set_statistics(sum_over_workers(moments(shard)))
    learner = ModalityLearner(shard, model, config, seed, rank, sum_over_workers, world_size)
    loop = job.loop(config, **learner.stopping())
    loop.progress = progress if rank == 0 else silent
    loop.saves = rank == 0
    history = loop.run(learner)
    if rank == 0:
        finish_modality(job, model, history)


def _read_shard(rank: int) -> EpisodeTable:
    batches = ray.train.get_dataset_shard(f"shard-{rank}").iter_batches(batch_size=None, batch_format="pyarrow")
    return concatenate([EpisodeTable.from_arrow(batch, where=f"shard {rank}") for batch in batches if len(batch)])


def sum_over_workers(tensor: Tensor) -> Tensor:
    """All-reduce, in place."""
    torch.distributed.all_reduce(tensor)
    return tensor
