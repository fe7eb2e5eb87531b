"""The share of a cluster's GPUs that each stage reserves, by its setting `device`. Stages use only reserved GPUs.

GPUs count where the cluster may have them, not where it has them now: a stage that asks for one makes the autoscaler
start a node with one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import ray

from v2a_ray.engine.devices import missing_gpu
from v2a_ray.engine.stage import STAGES
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.orchestration.cluster.capacity import capacity
from v2a_ray.settings.base import DeviceName

GPU_SHARE = 0.25
"""Share of one stage, trial or batch of policies: its networks fill a small part of a GPU."""


def stage_device(config: ExperimentConfig, stage: str) -> DeviceName:
    """The `device` of a stage; `cpu` if the stage trains nothing."""
    return STAGES[stage].device(config) if stage in STAGES else "cpu"


def stage_workers(config: ExperimentConfig, stage: str) -> int:
    """Data-parallel workers of a stage."""
    return STAGES[stage].num_workers(config) if stage in STAGES else 1


def gpu_share(device: DeviceName, num_gpus: float) -> float:
    """GPUs that a stage reserves in a cluster of `num_gpus`. One that insists reserves a share in any cluster."""
    return GPU_SHARE if device == "cuda" or (num_gpus and device == "auto") else 0.0


def workers_have_gpus(device: DeviceName, num_workers: int, num_gpus: float) -> bool:
    """Whether each data-parallel worker gets a whole GPU (NCCL refuses two workers on one). Otherwise all workers
    compute on the CPU."""
    return device == "cuda" or (device == "auto" and num_gpus >= num_workers)


def require_gpus(stages: Iterable[tuple[ExperimentConfig, str]], num_gpus: float) -> None:
    """Check that a cluster of `num_gpus` has those that stages require. Raises ConfigError for the first that lacks
    one."""
    for config, stage in stages:
        if stage_device(config, stage) != "cuda":
            continue
        if not num_gpus:
            raise missing_gpu("the cluster has no GPU", stage)
        workers = stage_workers(config, stage)
        if workers > num_gpus:
            raise ConfigError(
                f"{workers} workers need as many GPUs, and the cluster has {num_gpus:g}",
                where=f"{stage}.num_workers",
                remedy=f"as many workers as there are GPUs, or {stage}.device=cpu",
            )


def cluster_gpus() -> float:
    """GPUs that the cluster has, or has when its autoscaler has added all nodes that it may."""
    return capacity().total("GPU")


def most_gpus() -> float:
    """As `cluster_gpus`; without a limit where nobody can tell what the autoscaler may start."""
    return math.inf if capacity().unknown else cluster_gpus()


def reserved_gpu() -> bool:
    """Whether Ray gave this process a GPU or a share of one. Ask Ray, because all GPUs are visible to every process."""
    return bool(ray.get_runtime_context().get_accelerator_ids()["GPU"])
