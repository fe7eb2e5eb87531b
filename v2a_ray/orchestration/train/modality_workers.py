"""The modality stage on several workers: Ray Train fits the model, an actor pool of Ray Data encodes every episode.

Every worker draws its part of the batch from its own shard, and all gradients are summed. So the parameters stay equal
on all workers, and a step equals the step of a single worker on the whole batch.

Each shard is a separate dataset and not a split of one (`streaming_split`): a split deals out blocks as they arrive. A
worker's episodes must depend on its rank alone, so that equal seeds give equal results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data
import ray.train
import torch
from ray.data import ActorPoolStrategy, Dataset

from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.data.table.pieces import Piece, pieces, shards
from v2a_ray.engine.columns import episode_column
from v2a_ray.engine.context import Job
from v2a_ray.engine.data_parallel import Workers
from v2a_ray.engine.trainer import use_threads
from v2a_ray.orchestration.cluster.away_from_head import away_from_head
from v2a_ray.orchestration.cluster.session import quiet_ray_data
from v2a_ray.orchestration.train.workers import IN_ORDER, cpus_per_worker, fit_on_workers, with_gpus
from v2a_ray.stages.modality.fit import COLUMN, load_modality, modality_tables, require_modality_memory, save_modality
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, encode_episodes, moments


def fit_modality_parallel(job: Job) -> None:
    """Fit the modality with `modality.num_workers` workers and write the column z. The caller must reserve no CPU."""
    config = job.config.modality
    job = with_gpus(job, config)
    require_modality_memory(job)
    tables = modality_tables(job)
    with quiet_ray_data():
        datasets = {f"shard-{rank}": _episodes(mine) for rank, mine in enumerate(shards(tables, config.num_workers))}
    fit_on_workers(_fit, job, config, datasets)
    encode_parallel(job, pieces(tables, config.num_workers))


def _fit(job: Job, workers: Workers) -> None:
    """The function that each worker runs."""
    config, seed = job.config.modality, job.config.upstream_seed
    batches = ray.train.get_dataset_shard(f"shard-{workers.rank}").iter_batches(batch_size=None, batch_format="pyarrow")
    where = f"shard {workers.rank}"
    shard = concatenate([EpisodeTable.from_arrow(batch, where=where) for batch in batches if len(batch)])
    shard = shard.recorded_steps()
    torch.manual_seed(seed)
    model = ModalityModel(shard.observation_dim, shard.action_dim, config).to(job.device(config))
    model.set_statistics(workers.reduce(moments(shard).to(model.device)))
    learner = ModalityLearner(shard, model, config, seed, workers)
    history = job.loop(config, saves=workers.rank == 0, **learner.stopping()).run(learner)
    if workers.rank == 0:
        save_modality(job, model, history)


def encode_parallel(job: Job, parts: Sequence[Piece]) -> None:
    """Write z of every episode of `parts`, with one actor per worker of the fit.

    Batches hold other episodes than in a single process, which changes z by rounding (1e-6).
    """
    config = job.config.modality
    with quiet_ray_data():
        encoded = _episodes(parts).map_batches(
            _Encoder,
            fn_constructor_kwargs={"job": job},
            batch_size=None,
            batch_format="pyarrow",
            # Starts with what there is room for, and goes on when a node is lost or comes late.
            compute=ActorPoolStrategy(min_size=1, max_size=min(config.num_workers, len(parts))),
            # Ray Data accepts only one of the two.
            **({"num_gpus": 1} if job.may_use_gpu else {"num_cpus": cpus_per_worker(config)}),
        )
        encoded.context.execution_options = IN_ORDER
        columns = list(encoded.iter_batches(batch_size=None, batch_format="pyarrow"))
    pq.write_table(pa.concat_tables(columns).combine_chunks(), job.output / COLUMN)


class _Encoder:
    """An actor that holds the fitted model."""

    def __init__(self, job: Job) -> None:
        manifest, self.config = job.manifest("source"), job.config.modality
        use_threads(self.config.num_threads)
        model = load_modality(job.output, manifest["observation_dim"], manifest["action_dim"])
        self.model = model.to(job.device(self.config))

    def __call__(self, batch: pa.Table) -> pa.Table:
        table = EpisodeTable.from_arrow(batch)
        return episode_column("z", table, encode_episodes(self.model, table, self.config))


def _episodes(parts: Sequence[Piece]) -> Dataset:
    """The episodes of `parts`, in order. Reading reserves no CPU, because the workers reserve them all."""
    numbers = ray.data.from_items(list(range(len(parts))), override_num_blocks=len(parts))
    options = {"num_cpus": 0, "ray_remote_args_fn": away_from_head}
    return numbers.map_batches(_read, fn_kwargs={"parts": parts}, batch_size=1, **options)


def _read(batch: dict[str, Any], parts: Sequence[Piece]) -> pa.Table:
    return concatenate([parts[number].read() for number in batch["item"].tolist()]).to_arrow()
