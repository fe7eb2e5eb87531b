"""robomimic's HDF5 (https://robomimic.github.io/docs/datasets/overview.html): one group per demonstration.

data/demo_N/{obs/KEY, next_obs/KEY, actions, rewards, dones}. The observation is the chosen keys side by side; by
default all of low dimension (one number or vector per step), sorted, so that pictures are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from v2a_ray.data.checks.findings import Finding, Reading, place
from v2a_ray.data.config import Columns
from v2a_ray.data.formats.arrays import Arrays, check_rows, check_shape, convert, segment, to_reading
from v2a_ray.data.formats.hdf5 import dataset, member, names, opened, subgroups, written
from v2a_ray.data.formats.location import Location
from v2a_ray.data.formats.tables import NUMBERS, VECTORS, Chosen, choose
from v2a_ray.data.rewards import no_rewards
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.errors import DataError
from v2a_ray.robot_interface import RobotInterface

DATA, OBSERVATIONS, NEXT_OBSERVATIONS = "data", "obs", "next_obs"
DEFAULTS = {"action": ["actions"], "reward": ["rewards"], "terminated": ["dones"]}
LOW_RANK = 2
"""Of an array with one vector per step."""
UNUSED = ("episode", "step", "next_observation")
"""A demonstration is an episode, its rows are in order, and its `next_obs` has the keys of `obs`."""


def holds(location: Location) -> bool:
    """Whether an HDF5 file has demonstrations where robomimic has them."""
    where = str(location)
    if location.is_folder:
        return False
    with opened(location) as file:
        if DATA not in names(file, where) or not isinstance(member(file, DATA, where), h5py.Group):
            return False
        demos = subgroups(file[DATA], place(where, group=DATA))
        return bool(demos) and {OBSERVATIONS, "actions"} <= set(names(file[DATA][demos[0]], where))


def read(location: Location, robot: RobotInterface | None) -> Reading:
    """Read with all keys of low dimension. Raises DataError."""
    return read_named(location, robot, Columns())


def read_named(location: Location, robot: RobotInterface | None, columns: Columns) -> Reading:
    """Read with the keys of `obs` that `columns.observation` names, in its order. Raises DataError."""
    where = str(location)
    given = next((role for role in UNUSED if getattr(columns, role) is not None), None)
    if given:
        raise DataError(
            "is given by robomimic's layout", where=place(where, field=given), remedy=f"leave columns.{given} out"
        )
    with opened(location) as file:
        demos = subgroups(member(file, DATA, where), place(where, group=DATA))
        if not demos:
            raise DataError("holds no demonstration", where=where, remedy="record at least one")
        groups = {demo: file[DATA][demo] for demo in demos}
        first = place(where, episode=demos[0])
        found, skipped = _chosen(groups[demos[0]], columns, first)
        has_next = NEXT_OBSERVATIONS in names(groups[demos[0]], first)
        pieces = {demo: _demo(group, found, has_next, place(where, episode=demo)) for demo, group in groups.items()}
    _require_one_width(pieces, where)
    arrays: Arrays = {key: np.concatenate([piece[key] for piece in pieces.values()]) for key in pieces[demos[0]]}
    arrays["timeouts"][np.cumsum([len(piece["actions"]) for piece in pieces.values()]) - 1] = True
    findings = []
    if skipped:
        message = f"keys with pictures or without numbers are not read: {', '.join(skipped)}"
        findings.append(Finding("videos_ignored", "info", message, where))
    if "rewards" not in arrays:
        arrays["rewards"] = np.zeros(len(arrays["actions"]), dtype=np.float32)
        findings.append(no_rewards(where))
    arrays.setdefault("terminals", np.zeros(len(arrays["actions"]), dtype=bool))
    rows, more = segment(arrays, where)
    return to_reading(rows, findings + more, location.stem, where, robot)


def write(table: EpisodeTable, path: Path) -> None:
    """Write one demonstration per episode, with the single key `obs/observation`. Raises StorageError."""
    with written(path) as file:
        for episode in range(table.num_episodes):
            rows, group = table.rows(episode), f"{DATA}/demo_{episode}"
            done = np.zeros(int(table.lengths[episode]), dtype=np.int64)
            done[-1] = table.terminated[episode]
            arrays = {
                f"{OBSERVATIONS}/observation": table.observation[rows],
                f"{NEXT_OBSERVATIONS}/observation": table.next_observation[rows],
                "actions": table.action[rows],
                "rewards": table.reward[rows],
                "dones": done,
            }
            for name, values in arrays.items():
                file.create_dataset(f"{group}/{name}", data=values)
            file[group].attrs["num_samples"] = len(done)
        file[DATA].attrs["total"] = table.num_transitions


def _chosen(demo: h5py.Group, columns: Columns, where: str) -> tuple[Chosen, list[str]]:
    """Arrays by role, keys of `obs` for the observation, and the keys that are left out for what they hold."""
    observations = member(demo, OBSERVATIONS, where)
    keys = names(observations, where)
    low = [key for key in keys if _is_low(dataset(observations, key, place(where, group=OBSERVATIONS)))]
    if columns.observation is None and not low:
        raise DataError("has no key of low dimension", where=place(where, group=OBSERVATIONS), remedy="record joints")
    chosen = choose(columns, {"observation": sorted(low)}, keys, where, ["observation"])
    arrays = choose(columns, DEFAULTS, names(demo, where), where, ["action", *NUMBERS])
    return {**arrays, **chosen}, [] if columns.observation else sorted(set(keys) - set(low))


def _is_low(array: Any) -> bool:
    return array.dtype.kind in "fiub" and 1 <= len(array.shape) <= LOW_RANK


def _demo(demo: h5py.Group, found: Chosen, has_next: bool, where: str) -> Arrays:
    """The arrays of one demonstration. Raises DataError for a key that it lacks or that is not as it has to be."""
    arrays: Arrays = {"observations": _vector(demo, OBSERVATIONS, found["observation"], "observations", where)}
    if has_next:
        arrays["next_observations"] = _vector(demo, NEXT_OBSERVATIONS, found["observation"], "next_observations", where)
    arrays["actions"] = _vector(demo, "", found["action"], "actions", where)
    for role, key in NUMBERS.items():
        if role in found:
            arrays[key] = convert(key, _array(demo, found[role][0], where, 1), where)
    check_rows({key: array.shape for key, array in arrays.items()}, where)
    return {"timeouts": np.zeros(len(arrays["actions"]), dtype=bool)} | arrays


def _vector(demo: h5py.Group, group: str, keys: list[str], key: str, where: str) -> Any:
    """Arrays of a group side by side, (N, F). Raises DataError, also for one with another number of rows."""
    holder = demo
    if group:
        _require(demo, group, where)
        holder = member(demo, group, where)
    parts: list[Any] = []
    for name in keys:
        inside = place(where, group=group or None)
        values = _array(holder, name, inside, LOW_RANK)
        if parts and len(values) != len(parts[0]):
            raise DataError(
                f"has {len(values)} rows where {keys[0]} has {len(parts[0])}",
                where=place(inside, field=name),
                remedy="every key needs one row per step",
            )
        parts.append(values)
    return convert(key, np.concatenate(parts, axis=1), where)


def _array(group: h5py.Group, name: str, where: str, rank: int) -> Any:
    _require(group, name, where)
    found = dataset(group, name, where)
    check_shape(found, 1 if len(found.shape) == 1 else rank, place(where, field=name))
    values = found[()]
    return values if rank == 1 or values.ndim == LOW_RANK else values[:, None]


def _require(group: h5py.Group, name: str, where: str) -> None:
    if name not in names(group, where):
        raise DataError(
            f"missing (it holds: {', '.join(names(group, where)[:12]) or 'nothing'})",
            where=place(where, field=name),
            remedy="all demonstrations need the same keys; name those in common (columns.observation)",
        )


def _require_one_width(pieces: Mapping[str, Arrays], where: str) -> None:
    first_name, first = next(iter(pieces.items()))
    for name, piece in pieces.items():
        for key in VECTORS.values():
            if key in first and piece[key].shape[1] != first[key].shape[1]:
                raise DataError(
                    f"has {piece[key].shape[1]} features where {first_name} has {first[key].shape[1]}",
                    where=place(where, episode=name, field=key),
                    remedy="one dataset is of one robot; split it",
                )
