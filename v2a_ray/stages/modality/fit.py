"""Runs the modality stage on files: fit a model, encode every episode, write the column z. No Ray here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.data.table.folder import read_episodes, read_row_groups, read_table_folder
from v2a_ray.engine.columns import one_hot, read_episode_column, read_labels, write_episode_column
from v2a_ray.engine.context import Job, input_bytes, require_memory
from v2a_ray.engine.trainer import use_threads
from v2a_ray.files import read_json
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, encode_episodes, moments
from v2a_ray.stages.modality.streamed import fit_streamed

COLUMN = "column.parquet"


def fit_modality(job: Job) -> None:
    """Compute a node of the stage in this process: the shared fit, the fit of one source, or the joined column."""
    if job.config.modality.mode == "shared":
        tables = modality_tables(job)
        if is_streamed(job):
            fit_streamed(job, lambda: _groups(tables), save_modality, job.output / COLUMN)
        else:
            _fit(job, concatenate([read_table_folder(table) for table in tables]))
    elif job.part is None:
        _join_sources(job)
    else:
        _fit_source(job, job.part)


def _fit(job: Job, table: EpisodeTable) -> None:
    """Fit encoder and decoder to the recorded steps of `table` and write z for its episodes."""
    config, seed = job.config.modality, job.config.upstream_seed
    use_threads(config.num_threads)
    torch.manual_seed(seed)
    model = ModalityModel(table.observation_dim, table.action_dim, config).to(job.device(config))
    recorded = table.recorded_steps()
    model.set_statistics(moments(recorded))
    learner = ModalityLearner(recorded, model, config, seed)
    history = job.loop(config, **learner.stopping()).run(learner)
    save_modality(job, model, history)
    write_episode_column(job.output / COLUMN, "z", table, encode_episodes(model, table, config))


def _fit_source(job: Job, source: str) -> None:
    """`_fit` to the episodes of one source; writes nothing if the mix contains none of them."""
    (folder,) = modality_tables(job)
    episodes = np.flatnonzero(np.asarray(_source_labels(job)) == source)
    if not len(episodes):
        return
    if is_streamed(job):
        fit_streamed(job, lambda: _groups([folder], source), save_modality, job.output / COLUMN)
    else:
        _fit(job, read_episodes(folder, episodes))


def _groups(tables: Sequence[Path], source: str | None = None) -> Iterator[EpisodeTable]:
    """The episodes of table folders in order, or those of one source, some at a time."""
    for folder in tables:
        for table in read_row_groups(folder):
            mine = range(table.num_episodes) if source is None else np.flatnonzero(np.asarray(table.source) == source)
            if len(mine):
                yield table if len(mine) == table.num_episodes else table.select(mine)


def _join_sources(job: Job) -> None:
    """Write the column for all sources: [source label, one-hot in alphabetical order; z by that source's encoder].

    Without the label, equal z of two encoders would suggest equal dynamics, although they cannot be compared.
    """
    source, labels = job.rows("source"), _source_labels(job)
    fitted = [job.inputs[f"modality/{name}"] / COLUMN for name in sorted(set(labels))]
    values = np.concatenate([one_hot(labels), read_episode_column(fitted, "z", source)], axis=1)
    write_episode_column(job.output / COLUMN, "z", source, values)


def _source_labels(job: Job) -> list[str]:
    """The dataset of each of the E source episodes."""
    return read_labels(job.inputs["source"] / "table", job.rows("source"), "source")


def modality_tables(job: Job) -> list[Path]:
    """Folders of the tables to fit the modality to: the source, and with `include_target` the target."""
    return [job.inputs[role] / "table" for role in _roles(job)]


def require_modality_memory(job: Job) -> None:
    """Raise ConfigError if the tables exceed the memory of a stage; several workers hold them."""
    require_memory(
        job, "modality", *_roles(job), remedy="raise it, or one worker, which streams (modality.num_workers)"
    )


def is_streamed(job: Job) -> bool:
    """Whether the tables exceed the memory of a stage."""
    return input_bytes(job, *_roles(job)) > job.memory_bytes


def _roles(job: Job) -> list[str]:
    return ["source", "target"] if job.config.modality.include_target else ["source"]


def save_modality(job: Job, model: ModalityModel, history: list[dict[str, Any]]) -> None:
    """Write the fitted model, its settings and the training history."""
    save_file(model.state_dict(), job.output / "model.safetensors")
    (job.output / "config.json").write_text(job.config.modality.model_dump_json(indent=1))
    job.write_history(history)


def load_modality(folder: Path, observation_dim: int, action_dim: int) -> ModalityModel:
    """The model that `save_modality` wrote."""
    # Models without this entry were written before the encoder was a setting.
    config = ModalityConfig.model_validate({"encoder": "gru"} | read_json(folder / "config.json"))
    model = ModalityModel(observation_dim, action_dim, config)
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model
