"""Columns of Arrow tables as arrays, and rows as episodes, for every format with one row per step.

Shape suffixes: N rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from v2a_ray.data.checks.findings import Finding, place
from v2a_ray.data.formats.arrays import Arrays
from v2a_ray.errors import DataError


def matrix(column: pa.ChunkedArray, rank: int, where: str) -> NDArray[Any]:
    """A column of numbers (rank 1), or of lists of numbers of one length (rank 2); a list of one is a number, too.

    Raises DataError for anything else.
    """
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if isinstance(array.type, pa.BaseExtensionType):
        # Ray Data's tensors keep their values in plain lists.
        array = array.storage
    if array.null_count:
        row = pc.index(pc.is_null(array), True).as_py()
        raise DataError("has null entries", where=place(where, row=row), remedy="fill every row")
    if rank == 2:
        return _vectors(array, where)
    if is_list(array.type):
        vectors = _vectors(array, where)
        if vectors.shape[1] == 1:
            return vectors.reshape(-1)
    if not _is_number(array.type) and not pa.types.is_boolean(array.type):
        raise DataError(f"holds {array.type}, not numbers", where=where, remedy="store one number per row")
    return np.asarray(array.to_numpy(zero_copy_only=False))


def vectors(values: NDArray[Any]) -> pa.Array:
    """An array of lists from the rows of (N, F)."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def features(column: pa.ChunkedArray, where: str) -> NDArray[Any]:
    """(N, F): a column of vectors as it is, one of numbers as a single feature. Raises DataError for anything else."""
    values = matrix(column, 2 if is_list(column.type) else 1, where)
    return values if values.ndim == 2 else values[:, None]


def is_list(kind: pa.DataType) -> bool:
    """Whether each entry is a list, of any or of a fixed size."""
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return bool(pa.types.is_list(storage) or pa.types.is_large_list(storage) or pa.types.is_fixed_size_list(storage))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _vectors(array: pa.Array, where: str) -> NDArray[Any]:
    values = array.flatten() if is_list(array.type) else array
    if values is array or not _is_number(values.type) or values.null_count:
        raise DataError(f"holds {array.type}, not lists of numbers", where=where, remedy="store one vector per row")
    if not len(array):
        return np.zeros((0, 0), dtype=np.float32)
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    other = np.flatnonzero(lengths != lengths[0])
    if len(other):
        raise DataError(
            f"has {lengths[other[0]]} features where the first row has {lengths[0]}",
            where=place(where, row=int(other[0])),
            remedy="one dataset is of one robot; split it",
        )
    return np.asarray(values.to_numpy(zero_copy_only=False)).reshape(len(array), int(lengths[0]))


def labels(column: pa.ChunkedArray, where: str) -> NDArray[np.str_]:
    """(N,) a column of names or whole numbers, as text. Raises DataError for anything else."""
    if column.null_count:
        raise DataError("has null entries", where=where, remedy="fill every row")
    kind = column.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)):
        raise DataError(f"holds {kind}, not names or whole numbers", where=where, remedy="name every row's episode")
    return np.asarray(column.to_pylist()).astype(str)


def group_episodes(arrays: Arrays, episode: NDArray[Any], step: NDArray[Any] | None, where: str) -> list[Finding]:
    """Bring the rows of an episode together, in order of time, and mark its last row as a timeout; in place.

    Args:
        arrays: (N, ...) each.
        episode: (N,) equal for the rows of one episode. Episodes come in order of their first row.
        step: (N,) time within an episode; None if its rows are in order.
    """
    _, first, index = np.unique(episode, return_index=True, return_inverse=True)
    appearance = first[index]
    order = np.lexsort((np.arange(len(episode)) if step is None else step, appearance))
    for key, array in arrays.items():
        arrays[key] = array[order]
    ends = np.append(np.diff(appearance[order]) != 0, True)
    arrays["timeouts"] = arrays.get("timeouts", np.zeros(len(episode), dtype=bool)) | ends
    moved = int((order != np.arange(len(episode))).sum())
    if not moved:
        return []
    message = f"{moved} rows were moved, to bring those of an episode together in order of time"
    return [Finding("rows_moved", "info", message, where)]
