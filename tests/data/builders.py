"""Small made-up episodes and HDF5 files for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
import h5py
import numpy as np

from v2a_ray.data.formats.known_formats import FORMATS
from v2a_ray.data.formats.readers import export_table
from v2a_ray.data.table.episodes import EpisodeTable, concatenate

OBSERVATION_DIM, ACTION_DIM = 3, 2


def make_table(
    lengths: Sequence[int] = (5, 3, 4), terminated: Sequence[bool] | None = None, seed: int = 0, source: str = "made"
) -> EpisodeTable:
    """Random walks of these lengths; by default every other episode terminates."""
    generator = np.random.default_rng(seed)
    ends = terminated if terminated is not None else [index % 2 == 0 for index in range(len(lengths))]
    parts = []
    for length, terminal in zip(lengths, ends, strict=True):
        states = generator.normal(size=(length + 1, OBSERVATION_DIM)).cumsum(axis=0).astype(np.float32)
        parts.append(
            EpisodeTable(
                observation=states[:-1],
                action=generator.uniform(-1, 1, (length, ACTION_DIM)).astype(np.float32),
                reward=generator.normal(size=length).astype(np.float32),
                next_observation=states[1:],
                offsets=np.asarray([0, length]),
                terminated=np.asarray([terminal]),
                truncated=np.asarray([not terminal]),
                episode_id=("",),
                source=("",),
                domain=("",),
                behavior=("",),
            )
        )
    return concatenate(parts).labelled(source=source, domain="unknown", behavior="unknown")


def arrays_of(table: EpisodeTable, *, timeouts: bool = True, next_observations: bool = True) -> dict[str, Any]:
    """The arrays of a D4RL file that holds `table`."""
    arrays = {
        "observations": table.observation,
        "actions": table.action,
        "rewards": table.reward,
        "terminals": table.terminal_rows.astype(bool),
    }
    if timeouts:
        arrays["timeouts"] = np.zeros(table.num_transitions, dtype=bool)
        arrays["timeouts"][table.offsets[1:][table.truncated] - 1] = True
    if next_observations:
        arrays["next_observations"] = table.next_observation
    return arrays


def write_hdf5(path: Path, arrays: dict[str, Any]) -> Path:
    """An HDF5 file of these arrays."""
    with h5py.File(path, "w") as file:
        for key, values in arrays.items():
            file[key] = values
    return path


def store(table: EpisodeTable, path: Path | str, name: str) -> None:
    """Write a table in a format, also in one that is only read."""
    if FORMATS[name].is_written:
        export_table(table, path, format=name)
    else:
        write_csv(table, path)


def csv_columns(table: EpisodeTable) -> dict[str, Any]:
    """Columns of scalars, by the names that are read without being told."""
    vectors = {
        "observation": table.observation,
        "action": table.action,
        "next_observation": table.next_observation,
    }
    ends = arrays_of(table)
    return {
        "episode": table.episode_of_row,
        **{f"{name}_{index}": column for name, values in vectors.items() for index, column in enumerate(values.T)},
        "reward": table.reward,
        "terminated": ends["terminals"].astype(int),
        "timeout": ends["timeouts"].astype(int),
    }


def write_csv(table: EpisodeTable, path: Path | str) -> None:
    """A CSV file, at a path or URI."""
    columns = csv_columns(table)
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    with fsspec.open(str(path), "w", auto_mkdir=True) as file:
        file.write("\n".join(lines) + "\n")


def assert_same(first: EpisodeTable, second: EpisodeTable, *, labels: bool = True) -> None:
    """Equal content, bit for bit."""
    arrays = ("observation", "action", "reward", "next_observation", "offsets", "terminated", "truncated")
    for name in arrays:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    if labels:
        for name in ("episode_id", "source", "domain", "behavior"):
            assert getattr(first, name) == getattr(second, name), name
