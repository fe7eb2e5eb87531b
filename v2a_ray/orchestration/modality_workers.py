"""The modality stage on several workers: Ray Train fits the model, an actor pool of Ray Data encodes every episode.

Every worker draws its part of the batch from its own shard and all gradients are summed (gloo on CPU, NCCL on GPU), so
the parameters stay equal on all workers and the step is the one that a single worker would take on the whole batch.
Worker 0 writes the checkpoints; after a failure Ray Train restarts the workers and they go on from the newest one.

A shard is a dataset of its own, no split of one (`streaming_split`): a split deals out blocks as they arrive, and which
episodes a worker gets has to depend on its rank alone, or equal seeds would not give equal results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
import ray.train
import torch
import torch.distributed
from ray.data import ActorPoolStrategy, Dataset, ExecutionOptions
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, UserCallback
from ray.train.torch import TorchTrainer
from torch import Tensor

from v2a_ray.config import ModalityConfig
from v2a_ray.data.pieces import Piece, pieces, shards
from v2a_ray.data.table import EpisodeTable, concatenate
from v2a_ray.methods.job import Job
from v2a_ray.methods.modality import COLUMN, load_modality, modality_tables, save_modality
from v2a_ray.orchestration.session import quiet_ray_data, user_error
from v2a_ray.stages.columns import episode_column
from v2a_ray.stages.learner import Progress, silent, use_threads
from v2a_ray.stages.modality import ModalityModel, encode_episodes, moments
from v2a_ray.stages.modality_learner import ModalityLearner

MAX_FAILURES = 3
IN_ORDER = ExecutionOptions(preserve_order=True)
"""Blocks arrive in the order of the pieces and not as they get ready: crops are drawn by an episode's place."""


def fit_modality_parallel(job: Job) -> None:
    """Fit the modality with `modality.num_workers` workers and write the column z. Runs inside a Ray task."""
    config = job.config.modality
    tables = modality_tables(job)
    with quiet_ray_data():
        datasets = {f"shard-{rank}": _episodes(mine) for rank, mine in enumerate(shards(tables, config.num_workers))}
    job.work.mkdir(parents=True, exist_ok=True)
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"job": job, "progress": job.progress},
        scaling_config=ScalingConfig(num_workers=config.num_workers, resources_per_worker={"CPU": _cpus(config)}),
        run_config=RunConfig(
            name="modality",
            storage_path=str(job.work.resolve() / "train"),
            failure_config=FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[_NoSecondTry()],
        ),
        datasets=datasets,
        dataset_config=DataConfig(datasets_to_split=[], execution_options=IN_ORDER),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise user_error(error) or error from None
    encode_parallel(job, pieces(tables, config.num_workers))


def _cpus(config: ModalityConfig) -> float:
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


def _worker(settings: dict[str, Any]) -> None:
    """What each worker runs."""
    job: Job = settings["job"]
    progress: Progress = settings["progress"]
    config, seed = job.config.modality, job.config.upstream_seed
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    use_threads(config.num_threads)
    batches = ray.train.get_dataset_shard(f"shard-{rank}").iter_batches(batch_size=None, batch_format="pyarrow")
    shard = concatenate([EpisodeTable.from_arrow(batch, where=f"shard {rank}") for batch in batches if len(batch)])
    torch.manual_seed(seed)
    model = ModalityModel(shard.observation_dim, shard.action_dim, config)
    model.set_statistics(sum_over_workers(moments(shard)))
    learner = ModalityLearner(shard, model, config, seed, rank, sum_over_workers, world_size)
    loop = job.loop(config, **learner.stopping())
    loop.progress = progress if rank == 0 else silent
    loop.saves = rank == 0
    history = loop.run(learner)
    if rank == 0:
        save_modality(job, model, history)


def sum_over_workers(tensor: Tensor) -> Tensor:
    """All-reduce, in place."""
    torch.distributed.all_reduce(tensor)
    return tensor


def encode_parallel(job: Job, parts: Sequence[Piece]) -> None:
    """Write z of every episode of `parts`, by as many actors as the fit had workers.

    They encode an episode beside others than one process would, which moves z by rounding (1e-6).
    """
    config = job.config.modality
    with quiet_ray_data():
        encoded = _episodes(parts).map_batches(
            _Encoder,
            fn_constructor_kwargs={"job": job},
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=min(config.num_workers, len(parts))),
            num_cpus=_cpus(config),
        )
        encoded.context.execution_options = IN_ORDER
        columns = list(encoded.iter_batches(batch_size=None, batch_format="pyarrow"))
    pq.write_table(pa.concat_tables(columns).combine_chunks(), job.output / COLUMN)


class _Encoder:
    """An actor that holds the fitted model."""

    def __init__(self, job: Job) -> None:
        manifest, self.config = job.manifest("source"), job.config.modality
        use_threads(self.config.num_threads)
        self.model = load_modality(job.output, manifest["observation_dim"], manifest["action_dim"])

    def __call__(self, batch: pa.Table) -> pa.Table:
        table = EpisodeTable.from_arrow(batch)
        return episode_column("z", table, encode_episodes(self.model, table, self.config))


def _episodes(parts: Sequence[Piece]) -> Dataset:
    """The episodes of `parts`, in order. Reading takes no CPU from the workers that hold all."""
    numbers = ray.data.from_items(list(range(len(parts))), override_num_blocks=len(parts))
    return numbers.map_batches(_read, fn_kwargs={"parts": parts}, batch_size=1, num_cpus=0)


def _read(batch: dict[str, Any], parts: Sequence[Piece]) -> pa.Table:
    return concatenate([parts[number].read() for number in batch["item"].tolist()]).to_arrow()
