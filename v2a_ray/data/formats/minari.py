"""Minari datasets in HDF5 (Farama's layout, version 0.4 and later), read and written without the `minari` package.

A dataset is a folder with `data/main_data.hdf5` and `data/metadata.json`. The file has a group `episode_N` per episode:
observations (T + 1, O), actions (T, A), rewards, terminations and truncations (T,). Our labels are attributes of the
groups, where Minari keeps an episode's metadata.

Shape suffixes: T steps of an episode, O observation dimension, A action dimension.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks import check_table
from v2a_ray.data.checks.findings import Finding, Reading, place
from v2a_ray.data.formats.arrays import check_shape
from v2a_ray.data.formats.d4rl import group_place
from v2a_ray.data.formats.hdf5 import dataset, member, opened, read_text, subgroups, write_text, written
from v2a_ray.data.formats.location import Location
from v2a_ray.data.formats.minari_files import MAIN_FILE, METADATA, main_file, read_metadata
from v2a_ray.data.table.episodes import LABELS, EpisodeTable, concatenate, unlabelled
from v2a_ray.errors import DataError
from v2a_ray.outputs import new_folder, storage_errors
from v2a_ray.robot_interface import RobotInterface

RANKS = {"observations": 2, "actions": 2, "rewards": 1, "terminations": 1, "truncations": 1}
MAX_NAME = len("episode_") + 18
# The version of the written layout.
MINARI_VERSION = "0.5.4"


def holds(location: Location) -> bool:
    """Whether a file has episode groups; `minari_files.is_minari_folder` answers for a folder."""
    with opened(location) as file:
        return any(re.fullmatch(r"episode_[0-9]+", key) for key in file)


def read(location: Location, robot: RobotInterface | None) -> Reading:
    """Read all episodes and check. Raises DataError if the file cannot be read or an array is unusable."""
    where = str(location)
    metadata = read_metadata(location) if location.is_folder else {}
    file_location = main_file(location) if location.is_folder else location
    if file_location is None:
        raise DataError(f"holds no {MAIN_FILE}", where=where, remedy="give a Minari dataset's folder")
    name = str(metadata.get("dataset_id") or location.stem)
    with opened(file_location) as file:
        names = [key for key in subgroups(file, where) if re.fullmatch(r"episode_[0-9]+", key)]
        if not names:
            raise DataError("holds no episode_N group", where=where, remedy="download or copy it again")
        episodes = [_episode(file[key], where, f"{name}/{key.removeprefix('episode_').zfill(6)}") for key in names]
    widths = [(episode.observation_dim, episode.action_dim) for episode in episodes]
    for key, width in zip(names, widths, strict=True):
        if width != widths[0]:
            raise DataError(
                f"has (observation, action) dimensions {width} where {names[0]} has {widths[0]}",
                where=place(where, group=key),
                remedy="one dataset holds the data of one robot",
            )
    table = concatenate(episodes)
    findings = _numbering(names, metadata, where)
    return Reading(table, findings + check_table(table, where=where, robot=robot))


def write(table: EpisodeTable, path: Path) -> None:
    """Write a dataset folder that Minari loads; labels and ids are kept. Raises StorageError."""
    with new_folder(path) as partial:
        folder = partial / "data"
        with written(folder / MAIN_FILE) as file:
            for episode in range(table.num_episodes):
                _write_episode(file, table, episode)
        metadata = {
            "dataset_id": _dataset_id(path.name),
            "total_episodes": table.num_episodes,
            "total_steps": table.num_transitions,
            "data_format": "hdf5",
            "minari_version": MINARI_VERSION,
            "observation_space": _box(table.observation_dim, np.inf),
            "action_space": _box(table.action_dim, 1.0),
        }
        with storage_errors(path):
            (folder / METADATA).write_text(json.dumps(metadata, indent=2) + "\n")


def _episode(group: h5py.Group, where: str, episode_id: str) -> EpisodeTable:
    inside = group_place(where, group)
    arrays: dict[str, NDArray[np.float32]] = {}
    for key, rank in RANKS.items():
        if key not in list(group):
            raise DataError("missing", where=place(inside, field=key), remedy="record it with Minari's DataCollector")
        if isinstance(member(group, key, inside), h5py.Group):
            raise DataError(
                "is a dictionary or tuple of arrays, not one array",
                where=place(inside, field=key),
                remedy="flatten the observations and actions before recording",
            )
        values = dataset(group, key, inside)
        check_shape(values, rank, place(inside, field=key))
        arrays[key] = np.asarray(values[()], dtype=np.float32)
        if rank == 1:
            arrays[key] = arrays[key].reshape(-1)
    steps = len(arrays["rewards"])
    for key, values in arrays.items():
        expected = steps + (key == "observations")
        if len(values) != expected:
            raise DataError(
                f"has {len(values)} rows, expected {expected}: {steps} rewards, and one observation more",
                where=place(inside, field=key),
                remedy="record it with Minari's DataCollector",
            )
    early = np.flatnonzero((arrays["terminations"] > 0.5)[:-1])
    if len(early):
        raise DataError(
            "is set before the episode's last step",
            where=place(inside, step=int(early[0]), field="terminations"),
            remedy="end the episode there",
        )
    labels = {label: text for label in LABELS if (text := read_text(group, f"v2a_{label}"))}
    terminated = bool(arrays["terminations"][-1] > 0.5)
    return unlabelled(
        observation=arrays["observations"][:-1],
        action=arrays["actions"],
        reward=arrays["rewards"],
        next_observation=arrays["observations"][1:],
        lengths=[steps],
        terminated=[terminated],
        episode_id=[read_text(group, "v2a_episode_id") or episode_id],
    ).replace(**{label: (value,) for label, value in labels.items()})


def _write_episode(file: h5py.File, table: EpisodeTable, episode: int) -> None:
    rows = table.rows(episode)
    group = file.create_group(f"episode_{episode}")
    steps = int(table.lengths[episode])
    ends = np.zeros(steps, dtype=bool)
    ends[-1] = True
    arrays = {
        "observations": np.concatenate([table.observation[rows], table.next_observation[rows][-1:]]),
        "actions": table.action[rows],
        "rewards": table.reward[rows],
        "terminations": ends & table.terminated[episode],
        "truncations": ends & table.truncated[episode],
    }
    for key, values in arrays.items():
        group.create_dataset(key, data=values, compression="gzip")
    group.attrs["id"] = episode
    group.attrs["total_steps"] = steps
    for label in ("episode_id", *LABELS):
        write_text(group, f"v2a_{label}", getattr(table, label)[episode])


def _numbering(names: list[str], metadata: dict[str, Any], where: str) -> list[Finding]:
    """Warnings about episodes that are missing according to the numbers or the metadata."""
    for name in names:
        if len(name) > MAX_NAME:
            raise DataError("is no episode's number", where=place(where, group=name[:MAX_NAME]), remedy="rename it")
    # A number from the file may be huge, so nothing of that length is allocated.
    numbers = {int(name.removeprefix("episode_")) for name in names}
    missing = max(numbers) + 1 - len(numbers)
    first = next(number for number in itertools.count() if number not in numbers)
    total = metadata.get("total_episodes", len(names))
    if not missing and total == len(names):
        return []
    named = f"; {missing} numbers are missing, the first is {first}" if missing else ""
    message = f"holds {len(names)} episodes where {total} are announced{named}"
    return [Finding("episodes_missing", "warning", message, where, "download or copy it again")]


def _dataset_id(name: str) -> str:
    """An id in Minari's grammar: letters, digits, _ and - with a version at the end."""
    cleaned = re.sub(r"[^\w-]+", "-", name).strip("-") or "v2a"
    return cleaned if re.search(r"-v\d+$", cleaned) else f"{cleaned}-v0"


def _box(width: int, bound: float) -> str:
    """A gymnasium Box of float32 as Minari writes it, in Python's JSON, which allows infinity."""
    space = {"type": "Box", "dtype": "float32", "shape": [width], "low": [-bound] * width, "high": [bound] * width}
    return json.dumps(space)
