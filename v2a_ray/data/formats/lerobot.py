"""LeRobot's folders, v2.0 to v3.x read, v3.0 written (https://huggingface.co/docs/lerobot/lerobot-dataset-v3).

meta/info.json, and data/**/*.parquet with one row per frame: observation.state (O), action (A), episode_index,
frame_index, and maybe next.reward and next.done. v2 has a file per episode, v3 many episodes in one. Videos and images
are not read.

A folder that we write also has `next.observation.state` and `next.truncated`, by which it is read back bit by bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from v2a_ray.data.checks.catalogue import found as finding_of
from v2a_ray.data.checks.findings import Finding, Reading, place
from v2a_ray.data.config import Columns
from v2a_ray.data.formats.arrow_columns import vectors
from v2a_ray.data.formats.lerobot_files import INFO, is_lerobot_folder
from v2a_ray.data.formats.location import Location, reading
from v2a_ray.data.formats.names import natural
from v2a_ray.data.formats.parquet_files import read_columns, schema_names
from v2a_ray.data.formats.tables import choose, to_episodes
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.errors import DataError
from v2a_ray.files import parse_json, write_json
from v2a_ray.outputs import new_folder, storage_errors
from v2a_ray.robot_interface import RobotInterface

VERSION = "v3.0"
READ_VERSIONS = ("v2.", "v3.")
DATA_FILE, EPISODES_FILE, TASKS_FILE = (
    "data/chunk-000/file-000.parquet",
    "meta/episodes/chunk-000/file-000.parquet",
    "meta/tasks.parquet",
)
EPISODE = "episode_index"
DEFAULTS = {
    "observation": ["observation.state", "observation.environment_state"],
    "action": ["action"],
    "next_observation": ["next.observation.state"],
    "reward": ["next.reward"],
    "episode": [EPISODE],
    "step": ["frame_index"],
    "terminated": ["next.done"],
    "timeout": ["next.truncated"],
}
PICTURES = ("video", "image")
FRAMES_PER_SECOND = 1
"""A table counts steps and knows no seconds."""
CHUNK_FILES = 1000
"""Most files of a folder of LeRobot's."""
ROW_GROUP_ROWS = 65_536


def holds(location: Location) -> bool:
    """A folder with LeRobot's metadata; one of its files is Parquet like any other."""
    return location.is_folder and is_lerobot_folder(location)


def read(location: Location, robot: RobotInterface | None) -> Reading:
    """Read by the names in `DEFAULTS`. Raises DataError."""
    return read_named(location, robot, Columns())


def read_named(location: Location, robot: RobotInterface | None, columns: Columns) -> Reading:
    """Read by the features that `columns` names, else those of `DEFAULTS`. Raises DataError."""
    info = _info(location)
    names = [name for name in location.names() if name.startswith("data/") and name.endswith(".parquet")]
    if not names:
        raise DataError("is a folder without a dataset: data/ has no Parquet", where=str(location), remedy=_AGAIN)
    files = [location.member(name) for name in sorted(names, key=natural)]
    chosen = choose(columns, DEFAULTS, schema_names(files[0]), str(files[0]))
    wanted = list(dict.fromkeys(name for group in chosen.values() for name in group))
    tables = {str(file): read_columns(file, wanted) for file in files}
    table, findings = to_episodes(tables, chosen, location, robot)
    return Reading(table, [*_about(info, tables, location), *findings])


_AGAIN = "download or copy it again"


def _info(location: Location) -> dict[str, Any]:
    """What meta/info.json says. Raises DataError if it is none of LeRobot's, or of a version that is not read."""
    if not location.is_folder:
        remedy = "give the folder that has meta/ and data/"
        raise DataError("is a file, and LeRobot's dataset is a folder", where=str(location), remedy=remedy)
    file = location.member(INFO)
    with reading(file), file.open() as stream:
        content = stream.read()
    try:
        info = parse_json(content)
    except ValueError as error:
        raise DataError(f"is no JSON: {error}", where=str(file), remedy=_AGAIN) from error
    version = str(info.get("codebase_version")) if isinstance(info, dict) else "none"
    if not isinstance(info, dict) or not version.startswith(READ_VERSIONS):
        raise DataError(
            f"codebase_version {version} is not read",
            where=str(file),
            remedy="convert it with LeRobot's own scripts to v2.1 or v3.0",
        )
    return info


def _about(info: Mapping[str, Any], tables: Mapping[str, pa.Table], location: Location) -> Iterator[Finding]:
    """What the metadata say that is not in the table: pictures, and episodes that are not there."""
    described = info.get("features")
    pictures = [
        name
        for name, feature in (described.items() if isinstance(described, dict) else ())
        if isinstance(feature, dict) and feature.get("dtype") in PICTURES
    ]
    if pictures:
        yield Finding("videos_ignored", "info", f"pictures are not read: {', '.join(pictures)}", str(location))
    expected, rows = info.get("total_frames"), sum(table.num_rows for table in tables.values())
    if isinstance(expected, int) and expected != rows:
        yield finding_of("episodes_missing", f"{INFO} says {expected} frames, {rows} are there", place(location))


def write(table: EpisodeTable, path: Path) -> None:
    """Write a v3.0 folder without videos, whose `fps` is 1: time is counted in steps. Raises StorageError."""
    with new_folder(path) as partial, storage_errors(path):
        for name in (DATA_FILE, EPISODES_FILE):
            (partial / name).parent.mkdir(parents=True)
        columns = _columns(table)
        pq.write_table(pa.table(columns), partial / DATA_FILE, row_group_size=ROW_GROUP_ROWS)
        pq.write_table(_episodes(table), partial / EPISODES_FILE)
        pq.write_table(_tasks(), partial / TASKS_FILE)
        write_json(
            partial / "meta/stats.json", {name: _statistics(_values(values)) for name, values in columns.items()}
        )
        write_json(partial / INFO, _written_info(table, columns))


def _columns(table: EpisodeTable) -> dict[str, pa.Array]:
    ends = np.zeros(table.num_transitions, dtype=bool)
    ends[table.offsets[1:] - 1] = True
    episode = table.episode_of_row
    frame = np.arange(table.num_transitions) - table.offsets[episode]
    return {
        "observation.state": vectors(table.observation),
        "action": vectors(table.action),
        "next.observation.state": vectors(table.next_observation),
        "next.reward": pa.array(table.reward),
        "next.done": pa.array(ends & table.terminated[episode]),
        "next.truncated": pa.array(ends & table.truncated[episode]),
        "timestamp": pa.array((frame / FRAMES_PER_SECOND).astype(np.float32)),
        "frame_index": pa.array(frame, pa.int64()),
        EPISODE: pa.array(episode, pa.int64()),
        "index": pa.array(np.arange(table.num_transitions), pa.int64()),
        "task_index": pa.array(np.zeros(table.num_transitions, dtype=np.int64)),
    }


def _values(column: pa.Array) -> NDArray[np.float64]:
    """(N, F) the values of a column."""
    flat = column.flatten() if pa.types.is_fixed_size_list(column.type) else column
    return np.asarray(flat.to_numpy(zero_copy_only=False), dtype=np.float64).reshape(len(column), -1)


def _statistics(values: NDArray[np.float64]) -> dict[str, list[float]]:
    return {
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0).tolist(),
        "count": [len(values)],
    }


def _episodes(table: EpisodeTable) -> pa.Table:
    count = table.num_episodes
    zeros = pa.array(np.zeros(count, dtype=np.int64))
    return pa.table(
        {
            EPISODE: pa.array(np.arange(count), pa.int64()),
            "tasks": pa.array([[_TASK]] * count, pa.list_(pa.string())),
            "length": pa.array(table.lengths, pa.int64()),
            "dataset_from_index": pa.array(table.offsets[:-1], pa.int64()),
            "dataset_to_index": pa.array(table.offsets[1:], pa.int64()),
            **{f"{part}/{name}_index": zeros for part in ("data", "meta/episodes") for name in ("chunk", "file")},
        }
    )


_TASK = "reinforcement learning"


def _tasks() -> pa.Table:
    """The one task. LeRobot looks it up in the index of a pandas frame, which the schema's metadata declare."""

    def column(name: str, kind: str, numpy_kind: str) -> dict[str, Any]:
        return {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy_kind,
            "metadata": None,
        }

    about = {
        "index_columns": ["task"],
        "column_indexes": [],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array([0], pa.int64()), "task": pa.array([_TASK])})
    return table.replace_schema_metadata({"pandas": json.dumps(about)})


def _written_info(table: EpisodeTable, columns: Mapping[str, pa.Array]) -> dict[str, Any]:
    def feature(column: pa.Array) -> dict[str, Any]:
        is_vector = pa.types.is_fixed_size_list(column.type)
        kind = column.type.value_type if is_vector else column.type
        # numpy's names, which LeRobot uses: `float32`, where Arrow says `float`.
        dtype = str(np.dtype(kind.to_pandas_dtype()))
        return {"dtype": dtype, "shape": [column.type.list_size if is_vector else 1], "names": None}

    return {
        "codebase_version": VERSION,
        "robot_type": None,
        "total_episodes": table.num_episodes,
        "total_frames": table.num_transitions,
        "total_tasks": 1,
        "chunks_size": CHUNK_FILES,
        "fps": FRAMES_PER_SECOND,
        "splits": {"train": f"0:{table.num_episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None,
        "features": {name: feature(column) for name, column in columns.items()},
    }
