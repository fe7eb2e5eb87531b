"""Memory-mapped transitions: an episode table laid out for sampling, one copy for all processes of a node.

A table's Parquet files are compressed and hold whole episodes; drawing single transitions from them would decode
everything. The file here holds every transition as one row of float32,

    [observation | action | next_observation | reward | continues],  continues = 1 - terminated,

in the table's order and without preprocessing, so that one file serves every preprocessing. It is read in two ways:
mapped into memory, where the operating system keeps one copy for all trials and actors of a node, or streamed block by
block by `streaming`.

Shape suffixes: N transitions, E episodes, O observation dimension, A action dimension, W = 2 O + A + 2 row width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import read_manifest, read_row_groups
from v2a_ray.errors import DataError
from v2a_ray.outputs import storage_errors

if TYPE_CHECKING:
    from torch import Tensor

ROWS = "rows.npy"
EPISODES = "episodes.parquet"
_REMEDY = "remove the folder; it is made again from the table"


def row_bytes(observation_dim: int, action_dim: int) -> int:
    """Bytes of one transition's row."""
    return (2 * observation_dim + action_dim + 2) * 4


def transition_bytes(manifest: Mapping[str, Any]) -> int:
    """Bytes of the transitions of a table in memory, from its manifest."""
    return int(manifest["num_transitions"]) * row_bytes(manifest["observation_dim"], manifest["action_dim"])


def raw_rows(table: EpisodeTable) -> NDArray[np.float32]:
    """(N, W) rows of a table."""
    parts = [table.observation, table.action, table.next_observation, table.reward[:, None]]
    return np.concatenate([*parts, 1.0 - table.terminal_rows[:, None]], axis=1, dtype=np.float32)


def write_rows(table: Path, output: Path) -> None:
    """Write the rows of a table folder into the folder `output`, with one group of episodes in memory at a time.

    Raises DataError when the table cannot be read, StorageError when there is no space.
    """
    manifest = read_manifest(table)
    observation_dim, action_dim = manifest["observation_dim"], manifest["action_dim"]
    count, width = manifest["num_transitions"], row_bytes(observation_dim, action_dim) // 4
    ids: list[str] = []
    lengths: list[int] = []
    with storage_errors(output):
        # Plain writes report a full disk as an error; writing through a memory map would kill the process.
        with (output / ROWS).open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (count, width)}
            np.lib.format.write_array_header_1_0(file, header)
            for piece in read_row_groups(table):
                file.write(raw_rows(piece).data)
                ids += piece.episode_id
                lengths += piece.lengths.tolist()
        if sum(lengths) != count:
            raise DataError(
                f"holds {sum(lengths)} transitions where its manifest says {count}",
                where=str(table),
                remedy="part files are missing or changed; make the table again",
            )
        episodes = pa.table({"episode_id": pa.array(ids, pa.string()), "length": pa.array(lengths, pa.int64())})
        about = {"observation_dim": str(observation_dim), "action_dim": str(action_dim)}
        pq.write_table(episodes.replace_schema_metadata(about), output / EPISODES)


@dataclass(frozen=True)
class MemoryMappedTransitions:
    """The memory-mapped transitions in a folder, and the episode of every row.

    Attributes:
        path: the `.npy` file.
        observation_dim: O.
        action_dim: A.
        episode_id: E names.
        offsets: (E + 1,) int64; episode e is the rows offsets[e]:offsets[e + 1].
    """

    path: Path
    observation_dim: int
    action_dim: int
    episode_id: tuple[str, ...]
    offsets: NDArray[np.int64]

    @staticmethod
    def open(folder: Path) -> MemoryMappedTransitions:
        """Open a folder of `write_rows`. Raises DataError when it is damaged."""
        try:
            episodes = pq.read_table(folder / EPISODES)
            about = {key.decode(): int(value) for key, value in (episodes.schema.metadata or {}).items()}
            file = MemoryMappedTransitions(
                path=folder / ROWS,
                observation_dim=about["observation_dim"],
                action_dim=about["action_dim"],
                episode_id=tuple(episodes.column("episode_id").to_pylist()),
                offsets=np.concatenate([[0], np.cumsum(episodes.column("length").to_numpy())]).astype(np.int64),
            )
            shape = file._map().shape
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DataError(f"not a readable row file: {error}", where=str(folder), remedy=_REMEDY) from error
        if shape != (file.num_transitions, file.row_bytes // 4):
            raise DataError(f"holds rows of shape {shape}", where=str(file.path), remedy=_REMEDY)
        return file

    @property
    def num_transitions(self) -> int:
        return int(self.offsets[-1])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return row_bytes(self.observation_dim, self.action_dim)

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return self.num_transitions * self.row_bytes

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(E,) steps per episode."""
        return np.diff(self.offsets)

    @cached_property
    def arrival_recorded(self) -> NDArray[np.bool_]:
        """(N,); see `EpisodeTable.arrival_recorded`."""
        ends = self.offsets[1:] - 1
        last = self._map()[ends]
        begin, width = self.observation_dim + self.action_dim, self.observation_dim
        stands = (last[:, :width] == last[:, begin : begin + width]).all(axis=1)
        recorded = np.ones(self.num_transitions, dtype=bool)
        recorded[ends[stands & (last[:, -1] == 0.0)]] = False
        return recorded

    def map(self) -> Tensor:
        """(N, W) rows, mapped into memory: read when touched, and held once for all processes of this node."""
        # Imported late: estimating a sweep needs only the size of a row, and importing torch takes a second.
        import torch

        return torch.from_numpy(self._map())

    def read(self, begin: int, end: int) -> NDArray[np.float32]:
        """(end - begin, W) consecutive rows, copied from disk. Raises DataError when the file is too short."""
        width = self.row_bytes // 4
        wanted = (min(end, self.num_transitions) - begin) * width
        try:
            values = np.fromfile(self.path, np.float32, wanted, offset=self._data_start + begin * self.row_bytes)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot be read: {error}", where=str(self.path), remedy=_REMEDY) from error
        if len(values) != wanted:
            raise DataError("ends before its last row", where=str(self.path), remedy=_REMEDY)
        return values.reshape(-1, width)

    @cached_property
    def _data_start(self) -> int:
        """Bytes of the header."""
        return int(self._map().offset)

    def _map(self) -> np.memmap[Any, np.dtype[np.float32]]:
        # Copy on write, because torch does not accept read-only memory. Nothing here writes to it.
        mapped: np.memmap[Any, np.dtype[np.float32]] = np.load(self.path, mmap_mode="c", allow_pickle=False)
        return mapped
