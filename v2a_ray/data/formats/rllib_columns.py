"""RLlib's recorded columns: Parquet with one row per step and the names of RLlib's `Columns`.

eps_id, obs (O), actions (A), rewards, new_obs (O), terminateds, truncateds. RLlib 2.60 writes this with
`output_write_episodes=False` and reads it by default. Columns that RLlib compressed are pickles and are refused.

Shape suffixes: N rows, O observation dimension, A action dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from v2a_ray.data.checks.findings import Finding, Reading, place
from v2a_ray.data.formats.arrays import REQUIRED, Arrays, check_rows, check_shape, convert, segment, to_reading
from v2a_ray.data.formats.arrow_columns import group_episodes, labels, matrix, vectors
from v2a_ray.data.formats.folders import parquet_dataset
from v2a_ray.data.formats.location import Location
from v2a_ray.data.formats.parquet_files import read_columns, schema_names, write_folder
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.errors import DataError
from v2a_ray.robot_interface import RobotInterface

EPISODE, STEP = "eps_id", "t"
KEYS = {
    "obs": "observations",
    "actions": "actions",
    "rewards": "rewards",
    "terminateds": "terminals",
    "new_obs": "next_observations",
    "truncateds": "timeouts",
}
RANKS = {"obs": 2, "actions": 2, "rewards": 1, "terminateds": 1, "new_obs": 2, "truncateds": 1}
ROW_GROUP_ROWS = 65_536


def holds(location: Location) -> bool:
    """Whether a Parquet file has RLlib's column names."""
    return {"obs", "actions"} <= set(schema_names(location))


def read(location: Location, robot: RobotInterface | None) -> Reading:
    """Read, group the rows by episode, and check. Raises DataError."""
    where = str(location)
    tables = [read_columns(file) for file in parquet_dataset(location)]
    present = [name for name in KEYS if all(name in table.column_names for table in tables)]
    for name, key in KEYS.items():
        if key in REQUIRED and name not in present:
            raise DataError(
                f"missing (the file holds: {', '.join(tables[0].column_names[:12])})",
                where=place(where, field=name),
                remedy="RLlib's columns are needed: " + ", ".join(KEYS),
            )
    arrays: Arrays = {}
    for name in present:
        key, inside = KEYS[name], place(where, field=name)
        for table in tables:
            _require_plain(table.column(name), inside)
        pieces = [matrix(table.column(name), RANKS[name], inside) for table in tables]
        if len({piece.shape[1:] for piece in pieces}) > 1:
            raise DataError("differs in width between files", where=inside, remedy="one dataset is of one robot")
        arrays[key] = np.concatenate(pieces)
        check_shape(arrays[key], RANKS[name], inside)
        arrays[key] = convert(key, arrays[key], where)
    check_rows({key: array.shape for key, array in arrays.items()}, where)
    findings: list[Finding] = []
    if all(EPISODE in table.column_names for table in tables):
        ids = np.concatenate([labels(table.column(EPISODE), place(where, field=EPISODE)) for table in tables])
        steps = None
        if all(STEP in table.column_names for table in tables):
            steps = np.concatenate([matrix(table.column(STEP), 1, place(where, field=STEP)) for table in tables])
        findings = group_episodes(arrays, ids, steps, where)
    rows, more = segment(arrays, where)
    return to_reading(rows, findings + more, location.stem, where, robot)


def write(table: EpisodeTable, path: Path) -> None:
    """Write a folder that RLlib reads. Labels are not kept. Raises StorageError."""
    ends = np.zeros(table.num_transitions, dtype=np.int64)
    ends[table.offsets[1:] - 1] = 1
    episode = table.episode_of_row
    columns = {
        EPISODE: pa.array(np.asarray(table.episode_id, dtype=object)[episode], pa.string()),
        "obs": vectors(table.observation),
        "actions": vectors(table.action),
        "rewards": pa.array(table.reward),
        "new_obs": vectors(table.next_observation),
        "terminateds": pa.array(ends.astype(bool) & table.terminated[episode]),
        "truncateds": pa.array(ends.astype(bool) & table.truncated[episode]),
    }
    arrow = pa.table(columns)

    def groups() -> Iterator[pa.Table]:
        for begin in range(0, arrow.num_rows, ROW_GROUP_ROWS):
            yield arrow.slice(begin, ROW_GROUP_ROWS)

    write_folder(path, groups())


def _require_plain(column: pa.ChunkedArray, where: str) -> None:
    """Raise DataError for a column that RLlib has compressed."""
    kind = column.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_string(kind):
        raise DataError(
            "is compressed by RLlib, which pickles; nothing is unpickled",
            where=where,
            remedy="record with output_compress_columns=[]",
        )
