"""Reader and writer of HDF5 files with D4RL's keys (`formats/arrays.py`), such as those of OTDF and ODRL.

The keys lie flat in the file, under one group, or under one group per trajectory; other groups, such as `metadata`, are
not read. A large file is read in slices: `scan` finds where episodes end, `read_rows` reads the rows between two ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.findings import Finding, Reading, place
from v2a_ray.data.formats.arrays import (
    FLAGS,
    OPTIONAL,
    REQUIRED,
    Arrays,
    arrays_of,
    check_keys,
    check_rows,
    check_shape,
    convert,
    segment,
    to_reading,
)
from v2a_ray.data.formats.hdf5 import dataset, names, opened, subgroups, written
from v2a_ray.data.formats.location import Location
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.segmentation import Rows, breaks
from v2a_ray.errors import DataError
from v2a_ray.robot_interface import RobotInterface

SCAN_ROWS = 65_536


@dataclass(frozen=True)
class Scan:
    """The position of episodes in a file.

    Attributes:
        bounds: (E + 1,) int64; rows bounds[e]:bounds[e + 1] begin and end with an episode. In a file with `timeouts`,
            `read_rows` may find more than one episode between two bounds.
        terminated: (E,) bool, whether the last row reached a terminal state.
    """

    bounds: NDArray[np.int64]
    terminated: NDArray[np.bool_]

    @property
    def num_rows(self) -> int:
        return int(self.bounds[-1])


def holds(location: Location) -> bool:
    """True for any HDF5 file that no other format claims: `read` reports the keys that it lacks."""
    return not location.is_folder


def read(location: Location, robot: RobotInterface | None) -> Reading:
    """Read, segment into episodes and check. Raises DataError if the file cannot be read or an array is unusable."""
    rows, findings = read_rows(location)
    return to_reading(rows, findings, location.stem, str(location), robot)


def write(table: EpisodeTable, path: Path) -> None:
    """Write a table as flat gzipped keys, with next_observations and timeouts. Labels and episode ids are not kept."""
    with written(path) as file:
        for key, values in arrays_of(table).items():
            file.create_dataset(key, data=values, compression="gzip")


def scan(location: Location) -> Scan:
    """Find where episodes end, from the flags alone, block by block.

    If the file has no `timeouts`, its observations are read to find breaks between rows. Raises DataError as `read`
    does for what it reads.
    """
    bounds, terminated = [np.zeros(1, dtype=np.int64)], []
    with open_recording(location) as recording:
        for begin in range(0, recording.num_rows, SCAN_ROWS):
            end = min(begin + SCAN_ROWS, recording.num_rows)
            terminal = recording.values("terminals", begin, end)
            last = terminal | recording.group_ends(begin, end)
            if "timeouts" in recording.keys:
                last |= recording.values("timeouts", begin, end)
            elif "next_observations" in recording.keys:
                # One more row, because a break lies between two rows.
                more = min(end + 1, recording.num_rows)
                pair = (recording.values(key, begin, more) for key in ("observations", "next_observations"))
                last |= breaks(*pair)[: end - begin]
            ends = np.flatnonzero(last)
            bounds.append(begin + ends + 1)
            terminated.append(terminal[ends])
    return Scan(np.concatenate(bounds), np.concatenate(terminated))


def read_rows(location: Location, begin: int = 0, end: int | None = None) -> tuple[Rows, list[Finding]]:
    """Read rows [begin, end) of a file, by default all, and segment them into episodes. No other rows are read.

    Both ends must be in `scan(location).bounds`. Then the segmentation does not depend on the slices.

    Raises:
        DataError: the file cannot be read, an array is unusable, or no row is left.
    """
    with open_recording(location) as recording:
        arrays = recording.arrays(recording.keys, begin, recording.num_rows if end is None else end)
    return segment(arrays, str(location), begin)


@dataclass(frozen=True)
class Recording:
    """The D4RL keys of an open file as one flat recording.

    Attributes:
        where: the file, for messages.
        groups: the groups that hold the keys, in order: one, or one per trajectory.
        keys: the keys of every group.
        counts: rows of each group.
    """

    where: str
    groups: list[h5py.Group]
    keys: list[str]
    counts: list[int]

    @property
    def num_rows(self) -> int:
        return sum(self.counts)

    def group_ends(self, begin: int, end: int) -> NDArray[np.bool_]:
        """(end - begin,) bool, true at the last row of every group."""
        last = np.cumsum(self.counts) - 1
        ends = np.zeros(end - begin, dtype=bool)
        ends[last[(last >= begin) & (last < end)] - begin] = True
        return ends

    def values(self, key: str, begin: int, end: int) -> NDArray[Any]:
        """Rows [begin, end) of one key, converted; flags are (N,) bool."""
        pieces, start = [], 0
        for group, count in zip(self.groups, self.counts, strict=True):
            low, high = max(begin - start, 0), min(end - start, count)
            if low < high:
                where = group_place(self.where, group)
                pieces.append(convert(key, dataset(group, key, where)[low:high], where, low))
            start += count
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def arrays(self, keys: Collection[str], begin: int, end: int) -> Arrays:
        """Rows [begin, end) of those of `keys` that there are, and `timeouts` at the ends of trajectories' groups."""
        found: Arrays = {key: self.values(key, begin, end) for key in self.keys if key in keys}
        if len(self.groups) > 1:
            # A trajectory ends with its group, whatever its flags say.
            found["timeouts"] = found.get("timeouts", np.zeros(end - begin, dtype=bool)) | self.group_ends(begin, end)
        return found


@contextmanager
def open_recording(location: Location) -> Iterator[Recording]:
    """The file's recording. Raises DataError for keys that are missing, of the wrong shape, or do not fit together."""
    where = str(location)
    with opened(location) as file:
        groups = _groups(file, where)
        # List the group's names, because testing whether a group has a name follows links.
        keys = check_keys(names(groups[0], group_place(where, groups[0])), group_place(where, groups[0]))
        counts, widths = [], set()
        for group in groups:
            inside = group_place(where, group)
            check_keys(names(group, inside), inside)
            missing = sorted(set(keys) - set(group))
            if missing:
                raise DataError(
                    "missing, where other trajectories have it",
                    where=place(inside, field=missing[0]),
                    remedy="give all trajectories the same keys",
                )
            shapes = {}
            for key in keys:
                found = dataset(group, key, inside)
                _check_orientation(found, key, inside)
                check_shape(found, (REQUIRED | OPTIONAL)[key], place(inside, field=key))
                shapes[key] = found.shape
            counts.append(check_rows(shapes, inside))
            widths.add((shapes["observations"][1], shapes["actions"][1]))
            if len(widths) > 1:
                raise DataError(
                    f"(observation, action) dimensions differ from other trajectories': {sorted(widths)}",
                    where=inside,
                    remedy="one file holds the data of one robot",
                )
        yield Recording(where, groups, keys, counts)


def _check_orientation(found: h5py.Dataset, key: str, where: str) -> None:
    """Raise DataError for an array that MATLAB stored transposed, with steps along its columns."""
    if "MATLAB_class" in found.attrs and found.ndim == 2 and found.shape[0] < found.shape[1]:
        raise DataError(
            f"lies transposed, {found.shape[0]} rows of {found.shape[1]}, because MATLAB stores columns first",
            where=place(where, field=key),
            remedy="transpose every array in MATLAB before saving it (x = x.'), or store it with h5py",
        )


def _groups(file: h5py.File, where: str) -> list[h5py.Group]:
    """The groups that hold the keys: the file itself, the one group inside that does, or all that do."""
    if {*REQUIRED, *FLAGS} & set(file):
        return [file]
    named = subgroups(file, where)
    found = [file[name] for name in named if "observations" in list(file[name])]
    if not found and len(named) == 1:
        inner = file[named[0]]
        found = [
            inner[name]
            for name in subgroups(inner, place(where, group=named[0]))
            if "observations" in list(inner[name])
        ]
    return found or [file]


def group_place(where: str, group: h5py.Group) -> str:
    """The file, and the group inside it unless the group is the file itself."""
    return where if group.name == "/" else place(where, group=group.name.lstrip("/"))
