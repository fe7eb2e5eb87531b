"""Parquet files of any format: their columns and layout, and reading and writing them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from v2a_ray.data.checks.findings import place
from v2a_ray.data.formats.claims import require_parquet_stored
from v2a_ray.data.formats.location import Location
from v2a_ray.errors import DataError
from v2a_ray.outputs import new_folder, storage_errors


def schema_names(file: Location) -> list[str]:
    """Column names of a file. Raises DataError if it is no Parquet file."""
    return list(_opened(file, lambda stream: pq.read_schema(stream).names))


Layout = dict[str, list[int]]


def layout(file: Location) -> Layout:
    """Columns of a file, with the widths of vectors if types give them. Raises DataError if it is no Parquet file."""
    schema = _opened(file, pq.read_schema)
    return {column.name: _widths(column.type) for column in schema}


def agree(first: Layout, second: Layout) -> bool:
    """Whether two files can belong to one dataset: they share columns, and no column differs in width."""
    common = first.keys() & second.keys()
    return bool(common) and not any(first[name] and second[name] and first[name] != second[name] for name in common)


def _widths(kind: pa.DataType) -> list[int]:
    """Sizes of the fixed-size lists in a type."""
    widths = []
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        widths += [kind.list_size] if pa.types.is_fixed_size_list(kind) else []
        kind = kind.value_type
    return widths


def read_columns(file: Location, columns: list[str] | None = None) -> pa.Table:
    """Columns of a file, by default all. Raises DataError if it cannot be read or lacks one."""
    metadata, stored_bytes = _opened(file, lambda stream: (pq.read_metadata(stream), stream.seek(0, 2)))
    require_parquet_stored(metadata, stored_bytes, str(file))
    present = metadata.schema.to_arrow_schema().names
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
    """Write one file in a folder atomically, with a row group for each table. Raises StorageError."""
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
