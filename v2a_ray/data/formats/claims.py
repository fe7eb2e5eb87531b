"""Compares the array sizes that a file declares with the bytes that it stores, before memory is allocated."""

from __future__ import annotations

import os

import pyarrow.parquet as pq

from v2a_ray.errors import DataError

HARMLESS_BYTES = 256 * 1024**2
MAX_RATIO = 100
"""Limit for declared to stored bytes above `HARMLESS_BYTES`: recorded states compress by 2 to 10, constants by more."""


def require_stored(claimed_bytes: int, stored_bytes: int, where: str) -> None:
    """Raise DataError if an array declares far more bytes than are stored for it, or more than memory can hold."""
    if claimed_bytes <= HARMLESS_BYTES:
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if claimed_bytes > stored_bytes * MAX_RATIO:
        problem = f"the file stores {stored_bytes:,} bytes for it"
        remedy = "the file is damaged or was never filled; download or copy it again"
    elif claimed_bytes > memory:
        problem = f"this machine has {memory:,}"
        remedy = "split the dataset into smaller files"
    else:
        return
    raise DataError(f"claims {claimed_bytes:,} bytes, but {problem}", where=where, remedy=remedy)


_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of one value in memory, by Parquet's physical type; for text and bytes the stored size counts."""


def require_parquet_stored(metadata: pq.FileMetaData, stored_bytes: int, where: str, *, by_group: bool = False) -> None:
    """Raise DataError if a Parquet file declares far more values than it stores, or than memory can hold.

    A constant column of any length takes a few bytes on disk. `by_group`: row groups are read one at a time.
    """
    claimed = [
        sum(_claimed(metadata.row_group(group).column(index)) for index in range(metadata.num_columns))
        for group in range(metadata.num_row_groups)
    ]
    require_stored(max(claimed, default=0) if by_group else sum(claimed), stored_bytes, where)


def _claimed(chunk: pq.ColumnChunkMetaData) -> int:
    in_memory: int = chunk.num_values * _WIDTHS.get(chunk.physical_type, 0)
    stored: int = chunk.total_uncompressed_size
    return max(in_memory, stored)
