"""Data-parallel workers by Ray Train: what stages that are fitted by several have in common.

Gradients are summed over all (gloo on CPU, NCCL on GPU). Worker 0 writes the checkpoints, which lie in the stage's
folder; after a failure Ray Train starts all workers again, and they go on from the newest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
import ray.train
import torch
import torch.distributed
from ray.data import Dataset, ExecutionOptions
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchTrainer
from torch import Tensor

from v2a_ray.engine.context import Job
from v2a_ray.engine.data_parallel import Workers
from v2a_ray.engine.trainer import silent, use_threads
from v2a_ray.orchestration.cluster.gpus import cluster_gpus, workers_have_gpus
from v2a_ray.orchestration.cluster.session import user_error
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.policy.config import IQLConfig

MAX_FAILURES = 3
IN_ORDER = ExecutionOptions(preserve_order=True)
"""Blocks arrive in the order of the pieces and not as they get ready: what is drawn depends on an episode's place."""


def with_gpus(job: Job, config: ModalityConfig | IQLConfig) -> Job:
    """The job as its workers get it: each with a GPU of its own, or all on the CPU."""
    return replace(job, may_use_gpu=workers_have_gpus(config.device, config.num_workers, cluster_gpus()))


def fit_on_workers(
    fit: Callable[[Job, Workers], None],
    job: Job,
    config: ModalityConfig | IQLConfig,
    datasets: Mapping[str, Dataset] | None = None,
) -> None:
    """Run `fit(job, workers)` in `config.num_workers` processes that see each other. Runs where no CPU is held.

    Args:
        fit: has to be importable; of the job's progress only worker 0 calls it.
        job: as `with_gpus` gives it.
        config: of the stage.
        datasets: whole for every worker, by name (`ray.train.get_dataset_shard`).

    Raises:
        V2AError: what a user caused, without a second try.
    """
    job.work.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"fit": fit, "job": job, "num_threads": config.num_threads},
        scaling_config=ScalingConfig(
            num_workers=config.num_workers,
            use_gpu=job.may_use_gpu,
            resources_per_worker={"CPU": cpus_per_worker(config)},
        ),
        run_config=RunConfig(
            name="workers",
            storage_path=str(job.work.resolve() / "train"),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[_NoSecondTry()],
        ),
        datasets=dict(datasets or {}),
        dataset_config=DataConfig(datasets_to_split=[], execution_options=IN_ORDER),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise user_error(error) or error from None


def _worker(settings: dict[str, Any]) -> None:
    """What each worker runs."""
    job: Job = settings["job"]
    context = ray.train.get_context()
    workers = Workers(context.get_world_rank(), context.get_world_size(), sum_over_workers)
    use_threads(settings["num_threads"])
    settings["fit"](job if workers.rank == 0 else replace(job, progress=silent), workers)


def sum_over_workers(tensor: Tensor) -> Tensor:
    """All-reduce, in place."""
    torch.distributed.all_reduce(tensor)
    return tensor


def cpus_per_worker(config: ModalityConfig | IQLConfig) -> float:
    """CPUs that each worker reserves. Fewer cores than they ask for are shared: Ray would wait for more."""
    cores = int(ray.cluster_resources().get("CPU", 0))
    return share_of_cores(cores, config.num_workers, config.num_threads)


def share_of_cores(cores: int, num_workers: int, num_threads: int) -> float:
    """CPUs for each worker, such that all fit: whole ones, or as many workers to a core as it takes."""
    if not cores or cores >= num_workers * num_threads:
        return num_threads
    return cores // num_workers or math.floor(1000 / math.ceil(num_workers / cores)) / 1000


class _NoSecondTry(UserCallback):
    """What a user caused happens again, however often it is tried; raised here, it ends the run."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if mine := user_error(error):
                raise mine
