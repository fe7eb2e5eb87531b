"""Fits the modality to tables that exceed the memory of a stage.

The tables are read a group of episodes at a time. Their standardised steps go to a file, which is mapped into memory:
crops are drawn from it, and the operating system drops pages when others need the memory. So draws and steps are those
of the fit in memory. Only sums over all steps and batches of encoded episodes are made up otherwise, which changes
results by rounding (1e-6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.engine.columns import Names, write_episode_column
from v2a_ray.engine.context import Job
from v2a_ray.engine.trainer import use_threads
from v2a_ray.errors import ConfigError
from v2a_ray.outputs import storage_errors
from v2a_ray.stages.modality.learner import ModalityLearner, Steps
from v2a_ray.stages.modality.model import ModalityModel, encode_episodes, moments

FOLDER = "streamed"
"""In a stage's work folder: files that are made again, and belong to this node."""
Read = Callable[[], Iterator[EpisodeTable]]
"""Reads the episodes, in order, as many small tables."""


def fit_streamed(
    job: Job, read: Read, save: Callable[[Job, ModalityModel, list[dict[str, object]]], None], column: Path
) -> None:
    """Fit encoder and decoder to the recorded steps and write z of all episodes to `column`.

    Raises ConfigError for `device: cuda`.
    """
    config, seed = job.config.modality, job.config.upstream_seed
    if config.device == "cuda":
        raise ConfigError(
            f"cuda is asked for, and the source is more than {job.memory_bytes / 2**30:,.2f} GiB: it would be "
            "streamed, on the CPU",
            where="loading.memory_gib",
            remedy="raise it, if the GPU has the memory, or leave device at auto",
        )
    use_threads(config.num_threads)
    torch.manual_seed(seed)
    manifest = job.manifest("source")
    model = ModalityModel(manifest["observation_dim"], manifest["action_dim"], config)
    sums = torch.zeros(1 + 4 * model.observation_dim, dtype=torch.float64)
    num_episodes = 0
    for table in read():
        num_episodes += table.num_episodes
        sums += moments(table.recorded_steps())
    model.set_statistics(sums)
    file = job.work / FOLDER / "steps"
    learner = ModalityLearner(write_steps(file, model, read), model, config, seed)
    job.progress(0, config.num_steps, {"streamed/source": 1.0})
    save(job, model, job.loop(config, **learner.stopping()).run(learner))
    file.unlink()
    # Small arrays of each group would lie between the large ones of the next, whose memory could not be used again.
    names, latent, end = list[str](), np.empty((num_episodes, config.latent_dim), dtype=np.float32), 0
    for table in read():
        begin, end = end, end + table.num_episodes
        latent[begin:end] = encode_episodes(model, table, config)
        names += table.episode_id
    write_episode_column(column, "z", Names(names), latent)


def write_steps(file: Path, model: ModalityModel, read: Read) -> Steps:
    """Write the standardised recorded steps (N, X) as float32, and map them. Raises StorageError."""
    lengths = list[int]()
    file.parent.mkdir(parents=True, exist_ok=True)
    # Plain writes report a full disk as an error; writing through a memory map would kill the process.
    with storage_errors(file.parent), file.open("wb") as opened:
        for table in read():
            recorded = table.recorded_steps()
            opened.write(model.steps(recorded).numpy().data)
            lengths += recorded.lengths.tolist()
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    width = 2 * model.observation_dim + model.action_dim
    # Copy on write, because torch does not accept read-only memory. Nothing here writes to it.
    mapped = np.memmap(file, dtype=np.float32, mode="c", shape=(int(offsets[-1]), width))
    return Steps(torch.from_numpy(mapped), offsets)
