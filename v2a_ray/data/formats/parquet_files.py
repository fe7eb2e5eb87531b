"""Parquet files that RLlib writes or reads: a file, or a folder with files at any depth."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from v2a_ray.data.findings import place
from v2a_ray.data.location import Location
from v2a_ray.data.store import new_folder, storage_errors
from v2a_ray.errors import DataError


def parquet_files(location: Location) -> list[Location]:
    """The files of a dataset, in order. Raises DataError if there are none."""
    files = location.files(".parquet") if location.is_folder else [location]
    if not files:
        raise DataError("holds no .parquet file", where=str(location), remedy="give a recording of RLlib")
    return files


def schema_names(location: Location) -> list[str]:
    """Column names of the first file; none if there is no file."""
    files = location.files(".parquet") if location.is_folder else [location]
    return list(_opened(files[0], lambda file: pq.read_schema(file).names)) if files else []


def read_columns(file: Location, columns: list[str] | None = None) -> pa.Table:
    """Columns of a file, by default all. Raises DataError if it cannot be read or lacks one."""
    present = _opened(file, lambda stream: pq.read_schema(stream).names)
    for name in columns or []:
        if name not in present:
            raise DataError(
                f"missing (the file holds: {', '.join(present[:12]) or 'nothing'})",
                where=place(file, field=name),
                remedy="all files of a recording have the same columns",
            )
    table = _opened(file, lambda stream: pq.read_table(stream, columns=columns))
    try:
        table.validate(full=True)
    except (ValueError, pa.ArrowException) as error:
        raise _damaged(file, error) from error
    return table


def write_folder(path: Path, groups: Iterable[pa.Table]) -> None:
    """Write one file in a folder, a row group for each table, whole or not at all. Raises StorageError."""
    with new_folder(path) as partial, storage_errors(path):
        writer = None
        try:
            for group in groups:
                writer = writer or pq.ParquetWriter(partial / "part-00000.parquet", group.schema, compression="zstd")
                writer.write_table(group)
        finally:
            if writer:
                writer.close()


def _opened(file: Location, use: Any) -> Any:
    with file.open() as stream:
        try:
            return use(stream)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _damaged(file, error) from error


def _damaged(file: Location, error: Exception) -> DataError:
    return DataError(
        f"not readable as Parquet: {str(error).splitlines()[0]}",
        where=str(file),
        remedy="it may be incomplete; download or copy it again",
    )
