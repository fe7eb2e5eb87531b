"""NumPy archives with D4RL's keys (`formats/arrays.py`). Arrays of Python objects are pickles and are refused."""

from __future__ import annotations

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from v2a_ray.data.checks.findings import Reading, place
from v2a_ray.data.formats.arrays import arrays_of, read_arrays, segment, to_reading
from v2a_ray.data.formats.claims import require_stored as require_stored_bytes
from v2a_ray.data.formats.location import Location
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.errors import DataError
from v2a_ray.outputs import MARK, new_file
from v2a_ray.robot_interface import RobotInterface

REMEDY = "it may be incomplete; download or copy it again, or write it with numpy.savez"


def holds(location: Location) -> bool:
    """True for any archive: no other format is a zip file."""
    return not location.is_folder


def read(location: Location, robot: RobotInterface | None) -> Reading:
    """Read, segment into episodes and check. Raises DataError if the file cannot be read or an array is unusable."""
    where = str(location)
    with location.open() as file:
        try:
            archive = np.load(file, allow_pickle=False)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"not readable as an npz archive: {error}", where=where, remedy=REMEDY) from error
        # The registry accepts only zip files, so this is not a single array.
        assert isinstance(archive, np.lib.npyio.NpzFile)

        def fetch(key: str) -> Any:
            try:
                require_stored(archive, key, where)
                return archive[key]
            except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
                objects = "Object arrays" in str(error)
                what = "holds object, not numbers" if objects else f"not readable: {error}"
                remedy = "store it as float32" if objects else REMEDY
                raise DataError(what, where=place(where, field=key), remedy=remedy) from error

        arrays = read_arrays(fetch, archive.files, where)
    rows, findings = segment(arrays, where)
    return to_reading(rows, findings, location.stem, where, robot)


def require_stored(archive: np.lib.npyio.NpzFile, key: str, where: str) -> None:
    """Raise DataError if an array's header declares more than the archive stores; ValueError if it is no array."""
    assert archive.zip is not None
    member = archive.zip.getinfo(key if key in archive.zip.namelist() else f"{key}.npy")
    with archive.zip.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        stored = member.file_size - file.tell()
    claimed = math.prod(shape) * dtype.itemsize
    inside = place(where, field=key)
    if claimed > stored and not dtype.hasobject:
        raise DataError(f"claims {claimed:,} bytes, but the file stores {stored:,}", where=inside, remedy=REMEDY)
    require_stored_bytes(claimed, member.compress_size, inside)


def write(table: EpisodeTable, path: Path) -> None:
    """Write a table as compressed arrays, with next_observations and timeouts. Labels and ids are not kept."""
    with new_file(path) as partial:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays_of(table))  # type: ignore[arg-type]
        with zipfile.ZipFile(partial, "a") as archive:
            archive.comment = MARK.encode()
