"""Flat recordings with D4RL's keys, in any kind of file: their checks and their segmentation into episodes.

Required: observations (N, O), actions (N, A), rewards and terminals (N,) or (N, 1). Optional: next_observations (N, O),
timeouts (N,) or (N, 1). OTDF and ODRL publish the same keys, OTDF without `timeouts`.

Shape suffixes: N transitions, O observation dimension, A action dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks import check_table
from v2a_ray.data.checks.arrivals import mend
from v2a_ray.data.checks.findings import Finding, Reading, place
from v2a_ray.data.checks.reset_rows import detector_of
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.segmentation import Rows, breaks, is_unordered, shift_by_one
from v2a_ray.errors import DataError
from v2a_ray.robot_interface import RobotInterface

REQUIRED = {"observations": 2, "actions": 2, "rewards": 1, "terminals": 1}
OPTIONAL = {"next_observations": 2, "timeouts": 1}
FLAGS = ("terminals", "timeouts")
Arrays = dict[str, NDArray[Any]]


def check_keys(present: Collection[str], where: str) -> list[str]:
    """The keys to read. Raises DataError if a required one is missing."""
    for key in REQUIRED:
        if key not in present:
            held = ", ".join(sorted(map(str, present))[:12]) or "nothing"
            raise DataError(
                f"missing (the file holds: {held})",
                where=place(where, field=key),
                remedy="D4RL layout needs " + ", ".join(REQUIRED),
            )
    return [key for key in (*REQUIRED, *OPTIONAL) if key in present]


def check_shape(array: Any, rank: int, where: str) -> int:
    """The number of rows of a NumPy or HDF5 array, before it is read. Raises DataError for an unusable array."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"holds {array.dtype}, not numbers", where=where, remedy="store it as float32")
    shape: tuple[int, ...] = array.shape or ()
    if 0 in shape:
        raise DataError("holds zero rows", where=where, remedy="record at least one transition")
    column = rank == 1 and len(shape) == 2 and shape[1] == 1
    if len(shape) != rank and not column:
        expected = "(rows, features)" if rank == 2 else "(rows,) or (rows, 1)"
        raise DataError(f"has shape {shape}, expected {expected}", where=where, remedy="store one row per transition")
    return int(shape[0])


def check_rows(shapes: Mapping[str, Sequence[int]], where: str) -> int:
    """The common number of rows. Raises DataError if the arrays do not fit together."""
    expected = shapes["observations"][0]
    for key, shape in shapes.items():
        if shape[0] != expected:
            raise DataError(
                f"has {shape[0]} rows where observations has {expected}",
                where=place(where, field=key),
                remedy="every array needs one row per transition",
            )
    following = shapes.get("next_observations")
    if following is not None and following[1] != shapes["observations"][1]:
        raise DataError(
            f"has {following[1]} features where observations has {shapes['observations'][1]}",
            where=place(where, field="next_observations"),
            remedy="observations and next_observations must have one layout",
        )
    return expected


def convert(key: str, values: Any, where: str, first_row: int = 0) -> NDArray[Any]:
    """Values of a checked array as float32, without the trailing 1 of (N, 1). Raises DataError for a flag that is NaN.

    Flags become (N,) bool. NaN in other fields is kept for a later check, which names the episode and step.
    """
    with np.errstate(over="ignore"):
        # A value that single precision cannot hold becomes infinite, which a later check reports.
        array = np.asarray(values, dtype=np.float32)
    if (REQUIRED | OPTIONAL)[key] == 1:
        array = array.reshape(-1)
    if key not in FLAGS:
        return array
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise DataError(
            f"value {array[bad[0]]} is no flag",
            where=place(where, row=int(bad[0]) + first_row, field=key),
            remedy="store 0 or 1",
        )
    flags: NDArray[np.bool_] = array > 0.5
    return flags


def read_arrays(fetch: Callable[[str], Any], present: Collection[str], where: str) -> Arrays:
    """All arrays of a flat recording, checked and converted; `fetch` reads one by its key. Raises DataError."""
    found = {key: fetch(key) for key in check_keys(present, where)}
    for key, array in found.items():
        check_shape(array, (REQUIRED | OPTIONAL)[key], place(where, field=key))
    check_rows({key: array.shape for key, array in found.items()}, where)
    return {key: convert(key, array[()], where) for key, array in found.items()}


def segment(arrays: Arrays, where: str, first_row: int = 0) -> tuple[Rows, list[Finding]]:
    """Mark where episodes end: terminals, timeouts, and breaks between next_observations[i] and observations[i + 1].

    Args:
        arrays: converted, all rows of a recording or a slice that begins and ends with an episode.
        where: the file, for messages.
        first_row: the first row's number in the file.

    Raises:
        DataError: no row is left.
    """
    observation, terminal = arrays["observations"], arrays["terminals"]
    last = terminal | arrays["timeouts"] if "timeouts" in arrays else terminal.copy()
    findings: list[Finding] = []
    keep = np.ones(len(observation), dtype=bool)
    if "next_observations" in arrays:
        next_observation = arrays["next_observations"]
        last |= breaks(observation, next_observation)
    else:
        next_observation, keep = shift_by_one(observation, last, terminal)
        findings = derived_findings(int((~keep).sum()), "timeouts" in arrays, where)
    rows = Rows(
        observation=observation,
        action=arrays["actions"],
        reward=arrays["rewards"],
        next_observation=next_observation,
        terminal=terminal,
        last=last,
        number=np.arange(first_row, first_row + len(observation)),
    )
    if not keep.any():
        raise DataError(
            "no row has a successor, so nothing is left without next_observations",
            where=where,
            remedy="record next_observations",
        )
    return (rows if keep.all() else rows.keep(keep)), findings


def to_reading(rows: Rows, findings: list[Finding], name: str, where: str, robot: RobotInterface | None) -> Reading:
    """The checked table of a whole recording, without rows whose next observation is another episode's reset."""
    detector = None if is_unordered(rows.to_table(name)) else detector_of(rows)
    rows, bad = mend(rows, detector, robot.max_episode_steps if robot else None)
    require_rows(rows, where)
    table = rows.to_table(name)
    checked = check_table(table, where=where, robot=robot, row_number=rows.number)
    return Reading(table, findings + bad.findings(where) + checked)


def require_rows(rows: Rows, where: str) -> None:
    """Raise DataError if no row is left."""
    if not len(rows):
        raise DataError(
            "no row is left whose next observation is known", where=where, remedy="record true next observations"
        )


def arrays_of(table: EpisodeTable) -> Arrays:
    """D4RL's arrays of a table, with next_observations and timeouts; float32 and bool."""
    timeouts = np.zeros(table.num_transitions, dtype=bool)
    timeouts[table.offsets[1:][~table.terminated] - 1] = True
    return {
        "observations": table.observation,
        "actions": table.action,
        "rewards": table.reward,
        "terminals": table.terminal_rows.astype(bool),
        "timeouts": timeouts,
        "next_observations": table.next_observation,
    }


def derived_findings(num_dropped: int, has_timeouts: bool, where: str) -> list[Finding]:
    """Findings about a recording without next observations; `num_dropped` rows have no following row."""
    message = (
        f"no next_observations: taken from the following row; {num_dropped} last rows of episodes without a "
        "terminal state dropped"
    )
    findings = [Finding("next_observation_derived", "info", message, where)]
    if not has_timeouts:
        findings.append(
            Finding(
                "episode_ends_unknown",
                "warning",
                "neither next_observations nor timeouts: episodes end at terminals only, so a time limit joins "
                "two episodes by a step that never happened",
                where,
                "record timeouts or next_observations",
            )
        )
    return findings
