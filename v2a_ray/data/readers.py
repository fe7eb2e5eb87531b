"""Reading data of any format into an episode table, through a registry whose entries are imported when used.

A format is chosen by the file's first bytes, not by trust in its name: a pickle called `data.hdf5` is refused.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from v2a_ray.data.findings import Reading, RobotLike, raise_errors
from v2a_ray.errors import DataError

MAGIC_BYTES = 8


@dataclass(frozen=True)
class Format:
    """One way to store episodes.

    Attributes:
        name: as written in settings.
        suffixes: usual endings of the name, for messages.
        magic: first bytes of a file.
        module: has `read(path, robot) -> Reading` and `write(table, path) -> None`.
        folder: whether a folder can hold it.
    """

    name: str
    suffixes: tuple[str, ...]
    magic: bytes
    module: str
    folder: bool = False


FORMATS = {
    entry.name: entry
    for entry in (
        Format("d4rl", (".hdf5", ".h5"), b"\x89HDF\r\n\x1a\n", "v2a_ray.data.d4rl"),
        Format("parquet", (".parquet",), b"PAR1", "v2a_ray.data.parquet", folder=True),
    )
}


def read_table(path: str | Path, *, robot: RobotLike | None = None) -> Reading:
    """Read and check a dataset.

    Args:
        path: a file, or the folder of an episode table.
        robot: what the dimensions must fit, or None to accept any.

    Returns:
        The table and its findings (`table, findings = read_table(...)`), warnings only; `.ordered` says whether its
        rows are in order of time. Labels are "unknown" unless the format keeps them.

    Raises:
        DataError: the first error found, with its place: unreadable, missing keys, shapes, types, values.
    """
    path = Path(path)
    read: Callable[[Path, RobotLike | None], Reading] = importlib.import_module(detect_format(path).module).read
    reading = read(path, robot)
    raise_errors(reading.findings)
    return reading


def detect_format(path: Path) -> Format:
    """The format of a file or folder. Raises DataError if it does not exist or is none of those known."""
    known = ", ".join(f"{entry.name} ({' '.join(entry.suffixes)})" for entry in FORMATS.values())
    try:
        if path.is_dir():
            if any(path.glob("*.parquet")):
                return FORMATS["parquet"]
            raise DataError(
                "is a folder without .parquet files",
                where=str(path),
                remedy="give a file, or an episode table's folder",
            )
        with path.open("rb") as file:
            magic = file.read(MAGIC_BYTES)
    except FileNotFoundError as error:
        raise DataError("no such file", where=str(path), remedy="check the path") from error
    except OSError as error:
        raise DataError(
            f"cannot be read: {error.strerror or error}", where=str(path), remedy="check the path and its permissions"
        ) from error
    for entry in FORMATS.values():
        if magic.startswith(entry.magic):
            return entry
    if not magic:
        raise DataError("is empty", where=str(path), remedy="download or copy it again")
    raise DataError("is of no known format", where=str(path), remedy=f"known formats: {known}")
