"""Dividing tables between processes: the episodes that each process reads, planned from counts alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import count_episodes, part_bounds, part_files, read_episodes
from v2a_ray.errors import DataError


@dataclass(frozen=True)
class Piece:
    """The episodes `begin` to before `end` of a table folder, or of one of its part files."""

    path: Path
    begin: int
    end: int

    def read(self) -> EpisodeTable:
        """Read the episodes; of the rest of the table, only row groups that hold some of them are read."""
        return read_episodes(self.path, np.arange(self.begin, self.end))


def pieces(tables: Sequence[Path], num_readers: int) -> list[Piece]:
    """All episodes of the tables, in order, as one piece per part file.

    If there are fewer part files than readers, each table is divided into as many pieces as there are readers.
    """
    files = [file for table in tables for file in part_files(table)]
    if len(files) >= num_readers:
        return [Piece(file, 0, count_episodes(file)) for file in files]
    return [Piece(table, *bounds) for table in tables for bounds in part_bounds(count_episodes(table), num_readers)]


def shards(tables: Sequence[Path], num_readers: int) -> list[list[Piece]]:
    """The pieces of every reader: number rank, rank + num_readers, ... They are disjoint and together cover everything.

    Raises:
        DataError: there are fewer episodes than readers.
    """
    parts = pieces(tables, num_readers)
    if len(parts) < num_readers:
        raise DataError(
            f"{len(parts)} episodes cannot be shared by {num_readers} workers",
            where=", ".join(str(table) for table in tables),
            remedy="fewer workers (modality.num_workers)",
        )
    return [parts[rank::num_readers] for rank in range(num_readers)]
