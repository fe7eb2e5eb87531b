"""Columns that a stage adds to the source table, as separate Parquet files joined by `episode_id` and step.

The base table is never rewritten. `z` is one vector per episode; columns per step hold one number (`advantage`,
`alignment`) or one vector (a corrected action).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from v2a_ray.data.table.folder import part_files
from v2a_ray.errors import DataError

Float = NDArray[np.float32]
TARGET_COLUMN = "target.parquet"
"""File of the target's column, next to the source's, if a stage scores both tables."""


class Named(Protocol):
    """Something with names of episodes."""

    @property
    def episode_id(self) -> Sequence[str]:
        """E names."""
        ...


class EpisodeIndex(Named, Protocol):
    """The episodes of a table: an `EpisodeTable` or a `MemoryMappedTransitions`."""

    @property
    def offsets(self) -> NDArray[np.int64]:
        """(E + 1,); episode e has the transitions offsets[e]:offsets[e + 1]."""
        ...

    @property
    def num_transitions(self) -> int:
        """N, number of transitions."""
        ...


@dataclass(frozen=True)
class Names:
    """Names of E episodes."""

    episode_id: Sequence[str]


def write_episode_column(path: Path, name: str, table: Named, values_EZ: Float) -> None:
    """Write one vector (Z,) per episode."""
    pq.write_table(episode_column(name, table, values_EZ), path)


def episode_column(name: str, table: Named, values_EZ: Float) -> pa.Table:
    """The table for `write_episode_column`: each episode's id and its vector (Z,)."""
    flat = pa.array(np.ascontiguousarray(values_EZ).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, values_EZ.shape[1])
    return pa.table({"episode_id": pa.array(table.episode_id, pa.string()), name: column})


def write_step_column(path: Path, name: str, table: EpisodeIndex, values: Float) -> None:
    """Write one number (N,) or vector (N, D) per transition, as one list per episode."""
    offsets = table.offsets * (values.size // max(1, len(values)))
    column = pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.ascontiguousarray(values).reshape(-1)))
    pq.write_table(pa.table({"episode_id": pa.array(table.episode_id), name: column}), path)


def read_episode_column(path: Path | Sequence[Path], name: str, table: EpisodeIndex) -> Float:
    """(E, Z) in the table's order of episodes, from one file or from several files with different episodes."""
    paths = [path] if isinstance(path, Path) else path
    stored = pa.concat_tables(pq.read_table(each) for each in paths)
    order = _order(stored, table, paths[0])
    column = stored.column(name).combine_chunks()
    values = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)
    return np.ascontiguousarray(values[order])


def read_step_column(path: Path, name: str, table: EpisodeIndex, width: int | None = None) -> Float:
    """(N,), or (N, width) for vectors, in the table's order of transitions."""
    stored = pq.read_table(path)
    order = _order(stored, table, path)
    column = stored.column(name).combine_chunks().take(pa.array(order))
    values = column.flatten().to_numpy(zero_copy_only=False)
    if len(values) != table.num_transitions * (width or 1):
        raise DataError(f"{len(values)} values for {table.num_transitions} transitions", where=f"{path} · {name}")
    return np.ascontiguousarray(values if width is None else values.reshape(-1, width))


def read_labels(folder: Path, table: EpisodeIndex, name: str) -> list[str]:
    """The label `name` of every episode, from a table folder, in the order of `table`. For oracles and diagnosis only:
    a learner never sees labels."""
    stored = pa.concat_tables(pq.read_table(file, columns=["episode_id", name]) for file in part_files(folder))
    found: list[str] = stored.column(name).take(pa.array(_order(stored, table, folder))).to_pylist()
    return found


def one_hot(labels: Sequence[str]) -> Float:
    """(E, number of distinct labels), with the labels in alphabetical order."""
    names = np.asarray(labels)
    return np.asarray(names[:, None] == np.unique(names), dtype=np.float32)


def _order(stored: pa.Table, table: EpisodeIndex, path: Path) -> NDArray[np.int64]:
    position = {episode: index for index, episode in enumerate(stored.column("episode_id").to_pylist())}
    missing = [episode for episode in table.episode_id if episode not in position]
    if missing:
        raise DataError(
            f"no value for episode {missing[0]!r}",
            where=str(path),
            remedy="the column was computed for another table; remove it from the artifact store",
        )
    return np.asarray([position[episode] for episode in table.episode_id], dtype=np.int64)
