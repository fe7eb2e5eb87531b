"""The formats of data. A format's module is imported when the format is used.

The URI scheme or the content of the file decides the format, never the file's name: a pickle called `data.hdf5` is
refused. Every module of the registry has

    holds(location) -> bool                for a file, called when other formats share its first bytes
    read(location, robot) -> Reading       raises DataError
    write(table, path) -> None             atomic, to a local path; raises StorageError; not if `is_written` is false

One whose columns the user may name also has, or another module for it,

    read_named(location, robot, columns) -> Reading
"""

from __future__ import annotations

import importlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from v2a_ray.data.checks.findings import Reading
from v2a_ray.data.config import Columns
from v2a_ray.data.formats.folders import contents_of, no_dataset
from v2a_ray.data.formats.lerobot_files import is_lerobot_folder
from v2a_ray.data.formats.location import Location, locate
from v2a_ray.data.formats.minari_files import is_minari_folder
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.errors import DataError
from v2a_ray.imports import is_ours
from v2a_ray.robot_interface import RobotInterface

HDF5_MAGIC, PARQUET_MAGIC, ZIP_MAGIC = b"\x89HDF\r\n\x1a\n", b"PAR1", b"PK\x03\x04"
MAGIC_BYTES = 8
CSV_SUFFIX = ".csv"
MIN_USER_BLOCK = 512


class FormatModule(Protocol):
    """The interface of a module of the registry."""

    def holds(self, location: Location) -> bool:
        """Whether a file with the right first bytes, or a Minari folder, is of this format."""
        ...

    def read(self, location: Location, robot: RobotInterface | None) -> Reading:
        """Read, segment into episodes and check. Raises DataError."""
        ...

    def read_named(self, location: Location, robot: RobotInterface | None, columns: Columns) -> Reading:
        """As `read`, by the columns that the user names."""
        ...

    def write(self, table: EpisodeTable, path: Path) -> None:
        """Write a table atomically. Raises StorageError."""
        ...


@dataclass(frozen=True)
class Format:
    """One way to store episodes.

    Attributes:
        name: as written in settings and commands, and a URI scheme if `scheme`.
        summary: one line of help.
        suffixes: usual endings of the name, for messages; none if it is a folder.
        magic: first bytes of a file.
        folder: whether a folder can hold it.
        keeps_labels: whether ids of episodes and labels survive.
        module: that reads and writes it; by default the module of that name beside this one.
        named: module that reads it by named columns; none where names are fixed.
        is_written: whether it can be written.
    """

    name: str
    summary: str
    suffixes: tuple[str, ...]
    magic: bytes
    folder: bool = False
    keeps_labels: bool = False
    module: str = ""
    named: str = ""
    is_written: bool = True

    @property
    def plugin_modules(self) -> list[str]:
        """The modules with its code that a plugin brings; none for a format of this package."""
        return [name for name in (self.module, self.named) if name and not is_ours(name)]

    def load(self) -> FormatModule:
        """Import the format's module."""
        module = self.module or f"v2a_ray.data.formats.{self.name.replace('-', '_')}"
        return cast(FormatModule, importlib.import_module(module))

    def read(self, location: Location, robot: RobotInterface | None, columns: Columns | None = None) -> Reading:
        """Read it. Raises DataError, also for columns where names are fixed."""
        if columns is None:
            return self.load().read(location, robot)
        if not self.named:
            raise DataError(
                f"is {self.name}, whose arrays have fixed names", where=str(location), remedy="leave `columns` out"
            )
        module = cast(FormatModule, importlib.import_module(self.named))
        return module.read_named(location, robot, columns)


_FORMATS = "v2a_ray.data.formats"
_TABLES = f"{_FORMATS}.tables"
# Those that share first bytes are asked in this order, and the last takes what no other claims.
FORMATS = {
    entry.name: entry
    for entry in (
        Format("minari", "Minari dataset folder", (), HDF5_MAGIC, folder=True, keeps_labels=True),
        Format("robomimic", "HDF5 of robomimic", (), HDF5_MAGIC, named=f"{_FORMATS}.robomimic"),
        Format("d4rl", "HDF5 with D4RL keys, also of OTDF and ODRL", (".hdf5", ".h5"), HDF5_MAGIC),
        Format("npz", "numpy archive with D4RL keys", (".npz",), ZIP_MAGIC),
        Format("lerobot", "LeRobot dataset folder", (), PARQUET_MAGIC, folder=True, named=f"{_FORMATS}.lerobot"),
        Format("rllib", "RLlib's recorded episodes", (), PARQUET_MAGIC, folder=True, keeps_labels=True, named=_TABLES),
        Format(
            "rllib-columns", "RLlib's recorded columns, one row per step", (), PARQUET_MAGIC, folder=True, named=_TABLES
        ),
        Format("parquet", "episode table", (".parquet",), PARQUET_MAGIC, folder=True, keeps_labels=True, named=_TABLES),
        # It has no first bytes of its own, so that it is asked where all others deny.
        Format(
            "csv", "CSV, one row per step", (CSV_SUFFIX,), b"", folder=True, named=f"{_FORMATS}.csv", is_written=False
        ),
    )
}
OWN_FORMATS = frozenset(FORMATS)


def register_format(entry: Format) -> Format:
    """Register a format before the others with the same first bytes, which take the files that it does not claim.

    Raises ValueError when the name is that of a format of this package.
    """
    if entry.name in OWN_FORMATS:
        raise ValueError(f"format {entry.name!r} is there already")
    others = {name: other for name, other in FORMATS.items() if name != entry.name}
    FORMATS.clear()
    FORMATS.update({entry.name: entry, **others})
    return entry


def known_formats() -> str:
    """The formats and their endings, for messages."""

    def form(entry: Format) -> str:
        return " ".join(entry.suffixes) or ("folder" if entry.folder else "HDF5")

    return ", ".join(f"{entry.name} ({form(entry)})" for entry in FORMATS.values())


def format_named(name: str) -> Format:
    """A format by name. Raises DataError if there is no such format."""
    if name not in FORMATS:
        raise DataError(f"there is no format {name!r}", where="format", remedy=f"known formats: {known_formats()}")
    return FORMATS[name]


def format_for_output(location: Location) -> Format:
    """The format for the ending of an output's name. Raises DataError if the ending is unknown."""
    for entry in FORMATS.values():
        if location.suffix in entry.suffixes:
            return entry
    raise DataError(
        f"the ending {location.suffix!r} stands for no format" if location.suffix else "the name does not say a format",
        where=str(location),
        remedy=f"give --format; known formats: {known_formats()}",
    )


def check_format(location: Location, name: str) -> Format:
    """The format that a user gave for a file or folder. Raises DataError if it does not fit or there is no file."""
    chosen = format_named(name)
    if location.is_folder:
        if not chosen.folder:
            raise DataError(f"is a folder, and {name} is one file", where=str(location), remedy="give the file")
    else:
        magic = _magic(location)
        if not magic.startswith(chosen.magic):
            raise DataError(
                f"is not {name}: it begins with {magic!r}",
                where=str(location),
                remedy=f"known formats: {known_formats()}",
            )
    return chosen


def detect_format(path: str | Path | Location, *, with_columns: bool = False) -> Format:
    """The format of a file or folder. Raises DataError if it does not exist or is none of those known.

    This is what decides, everywhere, whether a folder is a dataset. CSV is one that the user says so of, by naming its
    columns (`with_columns`), or whose columns have our names.
    """
    location = locate(path)
    if location.is_folder:
        if is_minari_folder(location):
            return FORMATS["minari"]
        if is_lerobot_folder(location):
            return FORMATS["lerobot"]
        if with_columns and all(name.endswith(CSV_SUFFIX) for name in location.names()):
            return FORMATS["csv"]
        found = contents_of(location)
        if not found.parquet:
            raise no_dataset(location, found)
        # All files have one layout, so the first one decides the format.
        location = found.parquet[0]
    magic = _magic(location)
    candidates = [entry for entry in FORMATS.values() if entry.magic and magic.startswith(entry.magic)]
    for entry in candidates[:-1]:
        if entry.load().holds(location):
            return entry
    if candidates:
        return candidates[-1]
    table = FORMATS["csv"]
    if with_columns or table.load().holds(location):
        return table
    raise DataError(
        "is of no known format",
        where=str(location),
        remedy=f"known formats: {known_formats()}; of CSV name the `columns`",
    )


def plugin_modules(location: Location, *, with_columns: bool = False) -> list[str]:
    """The modules of the plugin whose format a file or folder is of; none for our formats, or if it is of none."""
    if not any(entry.plugin_modules for entry in FORMATS.values()):
        return []
    try:
        return detect_format(location, with_columns=with_columns).plugin_modules
    except DataError:
        return []  # Reading it will report the reason.


def _magic(location: Location) -> bytes:
    """The first bytes of a file, or HDF5's if they follow a user block. Raises DataError if there are none."""
    if not location.exists():
        raise DataError("no such file", where=str(location), remedy="check the path")
    magic = location.first_bytes(MAGIC_BYTES)
    if not magic:
        raise DataError("is empty", where=str(location), remedy="download or copy it again")
    if not any(entry.magic and magic.startswith(entry.magic) for entry in FORMATS.values()) and _has_user_block(
        location
    ):
        return HDF5_MAGIC
    return magic


def _has_user_block(location: Location) -> bool:
    """Whether a file is HDF5 after a user block, as MATLAB writes it, of 512 bytes or 512 times a power of two."""
    with location.open() as file:
        end, offset = file.seek(0, io.SEEK_END), MIN_USER_BLOCK
        while offset < end:
            file.seek(offset)
            if file.read(len(HDF5_MAGIC)) == HDF5_MAGIC:
                return True
            offset *= 2
    return False
