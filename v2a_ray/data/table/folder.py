"""Episode tables on disk: a folder of `part-*.parquet` files with whole episodes, and a `manifest.json`.

A folder is written under a temporary name and renamed when complete, so an existing folder is complete.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from v2a_ray.data.checks.findings import Finding, place
from v2a_ray.data.formats.claims import require_parquet_stored
from v2a_ray.data.table.episodes import LABELS, EpisodeTable, episode_schema
from v2a_ray.data.table.manifest import SCHEMA_VERSION, PartSummary, make_manifest, summarize_part
from v2a_ray.errors import DataError
from v2a_ray.files import read_json
from v2a_ray.outputs import new_folder, storage_errors

MANIFEST = "manifest.json"
ROW_GROUP_EPISODES = 32
"""Episodes per row group: some megabytes, so that parts of a table can be read without the rest."""
CONVERT = "an episode table has one row per episode; make one with `v2a data convert`"


def write_table(
    table: EpisodeTable,
    path: Path,
    *,
    robot: str = "unknown",
    num_files: int = 1,
    findings: Sequence[Finding] = (),
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a table folder, replacing an existing one, and return its manifest.

    Args:
        robot: the robot's name, for the manifest.
        num_files: part files, of about equal numbers of consecutive episodes; fewer if there are fewer episodes.
        findings: of reading and checking, kept in the manifest.
        extra: more keys for the manifest, for example how the data were made.

    Raises:
        StorageError: no space, or no permission.
    """
    with new_folder(path) as partial:
        parts = []
        for index, (begin, end) in enumerate(part_bounds(table.num_episodes, num_files)):
            part = table.select(range(begin, end)) if (begin, end) != (0, table.num_episodes) else table
            write_part(part, partial, index)
            parts.append(summarize_part(part))
        return finish_folder(partial, parts, robot=robot, findings=findings, extra=extra)


def part_bounds(num_episodes: int, num_files: int) -> list[tuple[int, int]]:
    """(begin, end) episodes of each part: consecutive, none empty, sizes differing by at most one."""
    edges = np.linspace(0, num_episodes, min(num_files, num_episodes) + 1).round().astype(int).tolist()
    return list(pairwise(edges))


def write_part(table: EpisodeTable, folder: Path, index: int) -> None:
    """Write one part file into a folder made by `new_folder`."""
    # Small row groups let a reader load few episodes at a time; zstd halves float columns at little cost.
    # Only labels repeat: a dictionary of float values costs time and saves nothing.
    with storage_errors(folder):
        pq.write_table(
            table.to_arrow(),
            part_path(folder, index),
            row_group_size=ROW_GROUP_EPISODES,
            compression="zstd",
            use_dictionary=list(LABELS),
        )


def part_path(folder: Path, index: int) -> Path:
    """Path of a part file; the names sort in the order of the parts."""
    return folder / f"part-{index:05d}.parquet"


def finish_folder(
    partial: Path,
    parts: Sequence[PartSummary],
    *,
    robot: str,
    findings: Sequence[Finding] = (),
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the manifest of a folder whose parts are written, and return it."""
    manifest = make_manifest(parts, robot=robot, findings=findings) | (extra or {})
    with storage_errors(partial):
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a table folder. Raises DataError if it is missing or has another schema version."""
    file = path / MANIFEST
    try:
        manifest: dict[str, Any] = read_json(file)
        version = manifest["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"not a readable manifest: {error}", where=str(file), remedy=CONVERT) from error
    if version != SCHEMA_VERSION:
        raise DataError(
            f"schema version {version}, this program reads {SCHEMA_VERSION}",
            where=str(file),
            remedy="make the table again with this version",
        )
    return manifest


def part_files(path: Path) -> list[Path]:
    """The Parquet files of a table: the file itself, or the files of a folder in order. Raises DataError if none."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError("holds no .parquet file", where=str(path), remedy=CONVERT)
    return files


def read_parts(files: Sequence[Path]) -> EpisodeTable:
    """Read part files, in the given order, as one table. Raises DataError if they are not an episode table."""
    tables = []
    for file in files:
        try:
            parquet = _open(file)
            require_parquet_stored(parquet.metadata, file.stat().st_size, str(file))
            # `pq.read_table` would take a folder called `length=5` for a column.
            tables.append(_to_schema(with_labels(parquet.read(), file), file))
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(file, error) from error
        if tables[-1].schema != tables[0].schema:
            raise DataError(
                f"has other (observation, action) dimensions than {files[0].name}",
                where=str(file),
                remedy="one dataset holds the data of one robot",
            )
    combined = pa.concat_tables(tables)
    _check_lists(combined, files)
    return EpisodeTable.from_arrow(combined, where=str(files[0]))


def read_table_folder(path: Path, files: Sequence[Path] | None = None) -> EpisodeTable:
    """Read a table folder or a single Parquet file. A manifest, if there is one, must agree with the parts.

    `files` are its parts, by default the files directly in the folder.
    """
    table = read_parts(files or part_files(path))
    if (path / MANIFEST).exists():
        manifest = read_manifest(path)
        expected = (manifest.get("num_episodes"), manifest.get("num_transitions"))
        if expected != (table.num_episodes, table.num_transitions):
            raise DataError(
                f"holds {table.num_episodes} episodes and {table.num_transitions} transitions where its manifest says "
                f"{expected[0]} and {expected[1]}",
                where=str(path),
                remedy="part files are missing or changed; make the table again",
            )
    return table


def read_row_groups(path: Path) -> Iterator[EpisodeTable]:
    """The episodes of a table folder or file in order, as tables of a few hundred episodes.

    Raises DataError if it is not an episode table.
    """
    for file in part_files(path):
        try:
            parquet = _open(file)
            for index in range(parquet.num_row_groups):
                group = _to_schema(parquet.read_row_group(index), file)
                _check_lists(group, [file])
                yield EpisodeTable.from_arrow(group, where=str(file))
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(file, error) from error


def read_lengths(path: Path) -> NDArray[np.int64]:
    """(E,) steps of every episode of a table folder or file. Raises DataError if it is not an episode table."""
    return np.concatenate([values.astype(np.int64) for values in read_field(path, "length")])


def read_field(path: Path, name: str) -> Iterator[NDArray[Any]]:
    """The numbers of one field of a table folder or file in order, flat, in pieces of some episodes.

    Raises DataError if it is not an episode table.
    """
    for file in part_files(path):
        try:
            parquet = _open(file)
            for index in range(parquet.num_row_groups):
                values = parquet.read_row_group(index, columns=[name]).column(name).combine_chunks()
                while pa.types.is_nested(values.type):
                    values = values.flatten()
                yield values.to_numpy(zero_copy_only=False)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise _unreadable(file, error) from error


def count_episodes(path: Path) -> int:
    """Number of episodes of a table folder or file, from its metadata alone. Raises DataError if it is not Parquet."""
    return sum(_open(file).metadata.num_rows for file in part_files(path))


def table_bytes(path: Path) -> int:
    """Bytes of a table folder or file in memory, from its metadata alone. Raises DataError if it is not Parquet."""
    metadata = [_open(file).metadata for file in part_files(path)]
    return sum(each.row_group(group).total_byte_size for each in metadata for group in range(each.num_row_groups))


def read_episodes(path: Path, episodes: NDArray[np.int64]) -> EpisodeTable:
    """The given episodes (sorted indices) of a table folder or file; row groups without any of them are not read.

    Raises DataError if it is not an episode table.
    """
    tables, first = [], 0
    for file in part_files(path):
        parquet = _open(file)
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        edges = first + np.cumsum([0, *sizes])
        first = int(edges[-1])
        wanted = episodes[np.searchsorted(episodes, edges[0]) : np.searchsorted(episodes, edges[-1])]
        # The row group of each episode, and the number of episodes in groups that are not read.
        groups = np.searchsorted(edges, wanted, side="right") - 1
        chosen = np.unique(groups)
        if not len(chosen):
            continue
        start = np.zeros(len(sizes), dtype=np.int64)
        start[chosen] = np.cumsum([0, *(sizes[group] for group in chosen[:-1])])
        try:
            read = parquet.read_row_groups(chosen.tolist())
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(file, error) from error
        tables.append(_to_schema(read, file).take(pa.array(start[groups] + wanted - edges[groups])))
        _check_lists(tables[-1], [file])
    return EpisodeTable.from_arrow(pa.concat_tables(tables), where=str(path))


def _open(file: Path) -> pq.ParquetFile:
    try:
        opened = pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error
    require_parquet_stored(opened.metadata, file.stat().st_size, str(file), by_group=True)
    return opened


def _unreadable(file: Path, error: Exception) -> DataError:
    first_line = str(error).splitlines()[0]
    return DataError(f"not readable as an episode table: {first_line}", where=str(file), remedy=CONVERT)


def folder_labels(file: PurePath) -> dict[str, str]:
    """The labels that folder names give, as Hive writes them: `domain=hopper/part.parquet`."""
    named = dict(part.split("=", 1) for part in file.parts[:-1] if "=" in part)
    return {label: unquote(named[label]) for label in LABELS if label in named}


def with_labels(table: pa.Table, file: Path) -> pa.Table:
    """A table with the labels that only folder names give (`folder_labels`)."""
    for label, text in folder_labels(file).items():
        if label not in table.column_names:
            table = table.append_column(label, pa.array([text] * table.num_rows, pa.string()))
    return table


def _to_schema(table: pa.Table, file: Path) -> pa.Table:
    """Convert a table written by pandas, polars or DuckDB (variable lists, float64) to the exact schema."""
    missing = [name for name in episode_schema(1, 1).names if name not in table.column_names]
    if missing:
        raise DataError(f"column {', '.join(missing)} missing", where=str(file), remedy=CONVERT)
    twice = [name for name in episode_schema(1, 1).names if table.column_names.count(name) > 1]
    if twice:
        raise DataError(f"column {', '.join(twice)} is there twice", where=str(file), remedy=CONVERT)
    if not table.num_rows:
        raise DataError("holds zero rows", where=str(file), remedy="record at least one episode")
    widths = {}
    for field in ("observation", "action"):
        kind = table.schema.field(field).type
        if not (_is_list(kind) and _is_list(kind.value_type)):
            raise DataError(
                f"has type {kind}, expected a list of lists", where=place(file, field=field), remedy=CONVERT
            )
        steps = table.column(field)[0].as_py()
        if not steps or not steps[0]:
            raise DataError("has no step", where=place(file, episode=0, field=field), remedy="leave the episode out")
        widths[field] = len(steps[0])
    schema = episode_schema(widths["observation"], widths["action"])
    return table.select(schema.names).cast(schema)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _check_lists(table: pa.Table, files: Sequence[Path]) -> None:
    """Check that every list of an episode has `length` entries and no null, because offsets come from lengths."""
    where = str(files[0]) if len(files) == 1 else str(files[0].parent)
    for field in table.column_names:
        if table.column(field).null_count:
            raise DataError("has null entries", where=place(where, field=field), remedy="fill every column")
    lengths = table.column("length").to_numpy()
    for field in ("observation", "action", "reward", "next_observation"):
        actual = pa.compute.list_value_length(table.column(field)).to_numpy()
        wrong = (actual != lengths) | (lengths < 1)
        if wrong.any():
            episode = int(wrong.argmax())
            raise DataError(
                f"has {actual[episode]} steps where length says {lengths[episode]}",
                where=place(where, episode=episode, field=field),
                remedy="every list needs one entry per step, and an episode at least one step",
            )
        null = table.column(field).combine_chunks().flatten().is_null().to_numpy(zero_copy_only=False)
        if null.any():
            ends = np.cumsum(lengths)
            episode = int(np.searchsorted(ends, null.argmax(), side="right"))
            step = int(null.argmax() - (ends - lengths)[episode])
            raise DataError(
                "is null", where=place(where, episode=episode, step=step, field=field), remedy="fill every step"
            )
    ids = table.column("episode_id")
    if len(ids.unique()) != len(ids):
        raise DataError(
            "names an episode twice", where=place(where, field="episode_id"), remedy="make the names unique"
        )
