"""Reading and writing data of any format, at a path or URI. The formats are in `data/formats`."""

from __future__ import annotations

from pathlib import Path

from pyarrow import fs

from v2a_ray.data.action_scaling import with_scaled_actions
from v2a_ray.data.checks import Severities, regrade
from v2a_ray.data.checks.findings import Reading, raise_errors
from v2a_ray.data.config import ActionBounds, Columns
from v2a_ray.data.formats.known_formats import check_format, detect_format, format_for_output, format_named
from v2a_ray.data.formats.location import Location, locate, publishing
from v2a_ray.data.rewards import with_reward
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.errors import DataError
from v2a_ray.robot_interface import RobotInterface

MINARI_SCHEME = "minari://"
LARGE_BYTES = 512 * 2**20
"""From this size on an HDF5 file is read with Ray: one process takes several times as long as Ray takes to start."""


def read_table(
    path: str | Path | Location,
    *,
    robot: RobotInterface | None = None,
    format: str | None = None,
    filesystem: fs.FileSystem | None = None,
    checks: Severities | None = None,
    columns: Columns | None = None,
    reward: float | str | None = None,
    action_bounds: ActionBounds | None = None,
) -> Reading:
    """Read and check a dataset, and raise if a check of severity `error` fails; see `examine_table`.

    Raises:
        DataError: the first error found, with its place: unreadable, missing keys, shapes, types, values.
    """
    reading = examine_table(
        path,
        robot=robot,
        format=format,
        filesystem=filesystem,
        checks=checks,
        columns=columns,
        reward=reward,
        action_bounds=action_bounds,
    )
    raise_errors(reading.findings)
    return reading


def examine_table(
    path: str | Path | Location,
    *,
    robot: RobotInterface | None = None,
    format: str | None = None,
    filesystem: fs.FileSystem | None = None,
    checks: Severities | None = None,
    columns: Columns | None = None,
    reward: float | str | None = None,
    action_bounds: ActionBounds | None = None,
) -> Reading:
    """Read and check a dataset, and return it even if a check of its values fails.

    Args:
        path: a file or folder, a URI, or `minari://` and the id of a published dataset, which is downloaded once.
        robot: what the dimensions must fit, or None to accept any.
        format: a name of the registry; by default found by looking.
        filesystem: of pyarrow, for `path` to be a path in it.
        checks: severities of checks that are to be others than by default.
        columns: which columns make up a transition, where the format lets the user say.
        reward: a number, or `module:function`, in place of the recorded rewards.
        action_bounds: what actions are scaled from; without, they have to be in [-1, 1].

    Returns:
        The table and its findings (`table, findings = read_table(...)`); `.ordered` says whether its
        rows are in order of time. Labels are "unknown" unless the format stores them.

    Raises:
        DataError: it cannot be read as a table: unreadable, missing keys, shapes, types.
    """
    location = resolve_location(path, filesystem)
    chosen = check_format(location, format) if format else detect_format(location, with_columns=columns is not None)
    found = chosen.read(location, robot, columns)
    if reward is not None:
        found = with_reward(found, reward, str(location))
    if action_bounds is not None:
        found = with_scaled_actions(found, action_bounds, location)
    return Reading(found.table, regrade(found.findings, checks or {}))


def export_table(table: EpisodeTable, path: str | Path | Location, *, format: str | None = None) -> str:
    """Write a table atomically in any format, at a path or URI, and return the format's name.

    Raises:
        DataError: there is no such format, or `path` does not imply one.
        StorageError: no space, or no permission.
    """
    location = locate(path)
    chosen = format_named(format) if format else format_for_output(location)
    if not chosen.is_written:
        raise DataError(f"{chosen.name} is read only", where=str(location), remedy="write parquet")
    with publishing(location) as local:
        chosen.load().write(table, local)
    return chosen.name


def resolve_location(path: str | Path | Location, filesystem: fs.FileSystem | None = None) -> Location:
    """The location of data to read; a published Minari dataset is downloaded. Raises DataError."""
    if isinstance(path, str) and path.startswith(MINARI_SCHEME):
        from v2a_ray.data.formats.minari_download import download

        return download(path.removeprefix(MINARI_SCHEME))
    return locate(path, filesystem)


def is_worth_ray(location: Location, format: str | None = None) -> bool:
    """Whether `orchestration.convert` can read the data faster than one process, including the start of Ray."""
    local = location.local
    if local is None or not local.is_file() or local.stat().st_size < LARGE_BYTES:
        return False
    return (format or detect_format(location).name) == "d4rl"
