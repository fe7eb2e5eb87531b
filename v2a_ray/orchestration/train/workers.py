"""Data-parallel workers with Ray Train, shared by the stages that can use them.

Gradients are summed over all workers (gloo on CPU, NCCL on GPU). Worker 0 writes the checkpoints into the stage's
folder. After a failure Ray Train starts all workers again, and they continue from the newest checkpoint.
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
from v2a_ray.orchestration.cluster.capacity import capacity
from v2a_ray.orchestration.cluster.gpus import cluster_gpus, workers_have_gpus
from v2a_ray.orchestration.cluster.node_loss import node_was_lost
from v2a_ray.orchestration.cluster.session import user_error
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.policy.config import IQLConfig

MAX_FAILURES = 3
"""How often workers are started again after a failure that no lost node explains."""
IN_ORDER = ExecutionOptions(preserve_order=True)
"""Blocks arrive in the order of the pieces, not as they become ready: draws depend on the place of an episode."""


def with_gpus(job: Job, config: ModalityConfig | IQLConfig) -> Job:
    """The job for its workers: each worker with its own GPU, or all on the CPU."""
    return replace(job, may_use_gpu=workers_have_gpus(config.device, config.num_workers, cluster_gpus()))


def fit_on_workers(
    fit: Callable[[Job, Workers], None],
    job: Job,
    config: ModalityConfig | IQLConfig,
    datasets: Mapping[str, Dataset] | None = None,
) -> None:
    """Run `fit(job, workers)` in `config.num_workers` connected processes. The caller must reserve no CPU.

    Args:
        fit: must be importable. Only worker 0 reports progress.
        job: from `with_gpus`.
        config: of the stage.
        datasets: name to dataset, which every worker gets whole (`ray.train.get_dataset_shard`).

    Raises:
        V2AError: a user's error, raised without a second attempt.
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
            failure_config=FailureConfig(max_failures=-1),  # the callback counts
            callbacks=[_Retries()],
        ),
        datasets=dict(datasets or {}),
        dataset_config=DataConfig(datasets_to_split=[], execution_options=IN_ORDER),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise user_error(error) or error from None


def _worker(settings: dict[str, Any]) -> None:
    """The function that each worker runs."""
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
    """CPUs that each worker reserves. Workers share the cores if there can be no more: Ray would wait for them."""
    cores = int(capacity().total("CPU"))
    return share_of_cores(cores, config.num_workers, config.num_threads)


def share_of_cores(cores: int, num_workers: int, num_threads: int) -> float:
    """CPUs for each worker such that all workers fit: whole CPUs, or equal shares of a CPU."""
    if not cores or cores >= num_workers * num_threads:
        return num_threads
    return cores // num_workers or math.floor(1000 / math.ceil(num_workers / cores)) / 1000


class _Retries(UserCallback):
    """Ends the run on a user's error, which would happen again on every attempt, or after too many failures.

    A lost node counts as no failure. When one worker is lost the others fail with it, so one lost node explains all.
    """

    def __init__(self) -> None:
        self.failures = 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        for error in worker_exceptions.values():
            if mine := user_error(error):
                raise mine
        if any(node_was_lost(error) for error in worker_exceptions.values()):
            return
        self.failures += 1
        if self.failures > MAX_FAILURES:
            raise next(iter(worker_exceptions.values()))
