"""HDF5 in D4RL's layout as a Ray Data source: one row per episode, and many read tasks for one large file.

A slice of a file begins and ends with an episode, so no read task needs rows of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from ray.data import Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from v2a_ray.data.formats.d4rl import Scan, read_rows
from v2a_ray.data.formats.location import Location

FIRST_ROW = "first_row"
"""Extra column beside the episode table's: the first row of an episode in the file."""
SLICE_ROWS = 250_000
"""A few seconds of work, and a block that Ray Data does not split: 27 MB at 27 numbers per row."""


def slice_bounds(scan: Scan, rows_per_slice: int = SLICE_ROWS) -> list[tuple[int, int]]:
    """(begin, end) rows of slices of about equal size; each ends at the end of an episode."""
    num_slices = max(1, round(scan.num_rows / rows_per_slice))
    wanted = np.linspace(0, scan.num_rows, num_slices + 1)
    edges = np.unique(scan.bounds[np.searchsorted(scan.bounds, wanted.round().astype(np.int64))])
    return [(int(begin), int(end)) for begin, end in pairwise(edges)]


class EpisodeDatasource(Datasource):  # Ray is untyped here
    """Episodes of one file as recorded, not yet checked, with the column `first_row`.

    Args:
        location: the file; every node of the cluster must be able to read it.
        slices: `slice_bounds` of the file.
    """

    def __init__(self, location: Location, slices: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.location = location
        self.slices = list(slices)

    def estimate_inmemory_data_size(self) -> int | None:
        """Unknown without reading."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task per slice, whatever parallelism Ray Data asks for: fewer tasks would not fit a block."""
        metadata = BlockMetadata(num_rows=None, size_bytes=None, exec_stats=None, input_files=(str(self.location),))
        return [ReadTask(partial(_read, self.location, begin, end), metadata) for begin, end in self.slices]


def _read(location: Location, begin: int, end: int) -> Iterator[pa.Table]:
    rows, _ = read_rows(location, begin, end)
    table = rows.to_table(location.stem)
    yield table.to_arrow().append_column(FIRST_ROW, pa.array(rows.number[table.offsets[:-1]]))
