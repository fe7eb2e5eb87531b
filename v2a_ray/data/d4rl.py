"""D4RL-layout HDF5, flat keys: reader (also for what OTDF and ODRL publish in that layout) and writer.

Required: observations (N, O), actions (N, A), rewards and terminals (N,) or (N, 1). Optional: next_observations (N, O),
timeouts (N,) or (N, 1), and groups such as `metadata`, which are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from v2a_ray.data.checks import check_table
from v2a_ray.data.defects import reset_as_next
from v2a_ray.data.findings import Finding, Reading, RobotLike, place
from v2a_ray.data.segmentation import Rows, breaks, is_unordered, shift_by_one
from v2a_ray.data.table import EpisodeTable
from v2a_ray.errors import DataError, StorageError

REQUIRED = {"observations": 2, "actions": 2, "rewards": 1, "terminals": 1}
OPTIONAL = {"next_observations": 2, "timeouts": 1}
MAX_ROWS_NAMED = 20


def read(path: Path, robot: RobotLike | None) -> Reading:
    """Read, segment into episodes and check. Raises DataError if the file cannot be read or an array is unusable."""
    with _opened(path) as file:
        arrays = {key: _array(file, key, rank, path) for key, rank in REQUIRED.items()}
        arrays |= {key: _array(file, key, rank, path) for key, rank in OPTIONAL.items() if key in file}
    _same_number_of_rows(arrays, path)
    rows, findings = _segment(arrays, path)
    table = rows.to_table(path.stem)
    if not is_unordered(table):
        rows, named = _without_resets(rows, path)
        findings += named
        table = rows.to_table(path.stem) if named else table
    return Reading(table, findings + check_table(table, where=str(path), robot=robot, row_number=rows.number))


def write(table: EpisodeTable, path: Path) -> None:
    """Write a table as flat D4RL keys, with next_observations and timeouts. Labels and episode ids are not kept."""
    timeouts = np.zeros(table.num_transitions, dtype=bool)
    timeouts[table.offsets[1:][~table.terminated] - 1] = True
    arrays = {
        "observations": table.observation,
        "actions": table.action,
        "rewards": table.reward,
        "terminals": table.terminal_rows.astype(bool),
        "timeouts": timeouts,
        "next_observations": table.next_observation,
    }
    partial = path.with_name(path.name + ".partial")
    try:
        with h5py.File(partial, "w") as file:
            for key, values in arrays.items():
                file.create_dataset(key, data=values, compression="gzip")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(
            f"cannot be written: {error}", where=str(path), remedy="check space and permissions"
        ) from error


def _segment(arrays: dict[str, Any], path: Path) -> tuple[Rows, list[Finding]]:
    """Mark where episodes end: terminals, timeouts, and breaks between next_observations[i] and observations[i + 1]."""
    observation = arrays["observations"]
    terminal = arrays["terminals"] > 0.5
    last = terminal | (arrays["timeouts"] > 0.5) if "timeouts" in arrays else terminal.copy()
    findings: list[Finding] = []
    keep = np.ones(len(observation), dtype=bool)
    if "next_observations" in arrays:
        next_observation = arrays["next_observations"]
        last |= breaks(observation, next_observation)
    else:
        next_observation, keep = shift_by_one(observation, last, terminal)
        message = (
            f"no next_observations: taken from the following row; {int((~keep).sum())} last rows of episodes without a "
            "terminal state dropped"
        )
        findings.append(Finding("next_observation_derived", "info", message, place(path)))
        if "timeouts" not in arrays:
            findings.append(
                Finding(
                    "episode_ends_unknown",
                    "warning",
                    "neither next_observations nor timeouts: episodes end at terminals only, so a time limit joins "
                    "two episodes by a step that never happened",
                    place(path),
                    "record timeouts or next_observations",
                )
            )
    rows = Rows(
        observation=observation,
        action=arrays["actions"],
        reward=arrays["rewards"],
        next_observation=next_observation,
        terminal=terminal,
        last=last,
        number=np.arange(len(observation)),
    )
    if not keep.any():
        raise DataError(
            "no row has a successor, so nothing is left without next_observations",
            where=str(path),
            remedy="record next_observations",
        )
    return (rows if keep.all() else rows.keep(keep)), findings


def _without_resets(rows: Rows, path: Path) -> tuple[Rows, list[Finding]]:
    """Drop rows whose next observation is another episode's reset; the step before ends its episode as truncated."""
    found = reset_as_next(rows)
    if not len(found):
        return rows, []
    numbers = rows.number[found]
    named = ", ".join(str(number) for number in numbers[:MAX_ROWS_NAMED])
    named += f" and {len(numbers) - MAX_ROWS_NAMED} more" if len(numbers) > MAX_ROWS_NAMED else ""
    keep = np.ones(len(rows), dtype=bool)
    keep[found] = False
    finding = Finding(
        "reset_as_next",
        "warning",
        f"{len(found)} rows hold another episode's reset as their next observation: row {named}",
        place(path, field="next_observation"),
        "nothing: they were dropped and their episodes end as truncated one step earlier",
    )
    return rows.keep(keep), [finding]


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        # h5py reports a truncated file, a damaged chunk and a missing permission all as OSError.
        raise DataError(
            f"not readable as HDF5: {error}", where=str(path), remedy="it may be incomplete; download or copy it again"
        ) from error


def _array(file: h5py.File, key: str, rank: int, path: Path) -> Any:
    """One dataset as float32 of the given rank; (N, 1) is accepted for (N,)."""
    where = place(path, field=key)
    if key not in file:
        present = ", ".join(sorted(file)[:12]) or "nothing"
        raise DataError(
            f"missing (the file holds: {present})", where=where, remedy="D4RL layout needs " + ", ".join(REQUIRED)
        )
    if isinstance(file.get(key, getlink=True), h5py.ExternalLink):
        raise DataError("is a link to another file", where=where, remedy="store the array in this file")
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        raise DataError("is a group, not an array", where=where, remedy="only flat D4RL keys are read")
    if dataset.dtype.kind not in "fiub":
        raise DataError(f"holds {dataset.dtype}, not numbers", where=where, remedy="store it as float32")
    shape = dataset.shape or ()
    if 0 in shape:
        raise DataError("holds zero rows", where=where, remedy="record at least one transition")
    values = np.asarray(dataset[()], dtype=np.float32)
    if rank == 1 and values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != rank:
        expected = "(rows, features)" if rank == 2 else "(rows,) or (rows, 1)"
        raise DataError(f"has shape {shape}, expected {expected}", where=where, remedy="store one row per transition")
    return values


def _same_number_of_rows(arrays: dict[str, Any], path: Path) -> None:
    expected = len(arrays["observations"])
    for key, values in arrays.items():
        if len(values) != expected:
            raise DataError(
                f"has {len(values)} rows where observations has {expected}",
                where=place(path, field=key),
                remedy="every array needs one row per transition",
            )
    observation, following = arrays["observations"], arrays.get("next_observations")
    if following is not None and following.shape != observation.shape:
        raise DataError(
            f"has {following.shape[1]} features where observations has {observation.shape[1]}",
            where=place(path, field="next_observations"),
            remedy="observations and next_observations must have one layout",
        )
