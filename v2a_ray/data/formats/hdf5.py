"""Opens HDF5 files at any location, and never reads beyond the file itself.

HDF5 can point to other files in four ways (external links, external storage, virtual datasets, and soft links that pass
through one of them). Such a dataset is refused, because the author of the file would choose which file is opened.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from v2a_ray.data.checks.findings import place
from v2a_ray.data.formats.claims import require_stored
from v2a_ray.data.formats.hdf5_errors import explained, require_filters
from v2a_ray.data.formats.location import Location
from v2a_ray.data.formats.names import natural
from v2a_ray.errors import DataError
from v2a_ray.outputs import MARK, new_file


@contextmanager
def opened(location: Location) -> Iterator[h5py.File]:
    """The file, open for reading. Raises DataError if it cannot be read, also from inside the block."""
    try:
        if location.local is not None:
            with h5py.File(location.local, "r") as file:
                names(file, str(location))
                yield file
        else:
            with location.open() as stream, h5py.File(stream, "r") as file:
                names(file, str(location))
                yield file
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        # h5py reports a truncated file, a damaged chunk and a missing permission as OSError, damaged metadata as
        # RuntimeError or KeyError, and damaged names as UnicodeDecodeError.
        raise explained(error, location) from error


def names(group: h5py.Group, where: str) -> list[str]:
    """Names of the members of a group. Raises DataError for a name that is not UTF-8, which h5py returns as bytes."""
    found = list(group)
    for name in found:
        if not isinstance(name, str):
            remedy = "the file is damaged; download or copy it again"
            raise DataError(f"holds a name that is not UTF-8: {name!r}", where=where, remedy=remedy)
    return found


def member(group: h5py.Group, key: str, where: str) -> Any:
    """A group or dataset by name. Raises DataError if it is a link, or its data are in another file."""
    inside = place(where, field=key)
    link = group.get(key, getlink=True)
    if isinstance(link, h5py.ExternalLink):
        raise DataError("is a link to another file", where=inside, remedy="store the array in this file")
    if isinstance(link, h5py.SoftLink):
        raise DataError("is a soft link", where=inside, remedy="store the array itself, or a hard link to it")
    found = group[key]
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise DataError("keeps its values in another file", where=inside, remedy="store the array in this file")
    return found


def dataset(group: h5py.Group, key: str, where: str) -> Any:
    """A dataset by name. Raises DataError for a group, a link, data in another file, or a missing filter."""
    found = member(group, key, where)
    if not isinstance(found, h5py.Dataset):
        raise DataError("is a group, not an array", where=place(where, field=key), remedy="store one flat array")
    require_filters(found, place(where, field=key))
    try:
        claimed = found.nbytes
    except (TypeError, ValueError) as error:
        remedy = "store it as float32; if it was, the file is damaged"
        raise DataError(
            f"is of a type that numpy lacks: {error}", where=place(where, field=key), remedy=remedy
        ) from None
    require_stored(claimed, found.id.get_storage_size(), place(where, field=key))
    return found


def write_text(group: h5py.Group, name: str, text: str) -> None:
    """Write an attribute that `read_text` reads."""
    content = text.encode()
    group.attrs.create(name, content, dtype=h5py.string_dtype("utf-8", max(1, len(content))))


def read_text(group: h5py.Group, name: str) -> str | None:
    """The fixed-length text of an attribute, as `write_text` writes it; None if there is none.

    Texts of variable length are stored elsewhere in the file. If that part is damaged, the HDF5 library searches for
    ever. Raises UnicodeDecodeError.
    """
    if name not in group.attrs:
        return None
    kind = group.attrs.get_id(name).get_type()
    if not isinstance(kind, h5py.h5t.TypeStringID) or kind.is_variable_str():
        return None
    return bytes(group.attrs[name]).decode()


def subgroups(group: h5py.Group, where: str) -> list[str]:
    """Names of the subgroups in the order of their numbers: `episode_2`, `episode_10`. Raises DataError for a link."""
    return sorted(
        (key for key in names(group, where) if isinstance(member(group, key, where), h5py.Group)), key=natural
    )


@contextmanager
def written(path: Path) -> Iterator[h5py.File]:
    """A file to fill; it appears at `path` when the block succeeds. Raises StorageError.

    The file is built in memory first, because the HDF5 library crashes the process when a disk is full.
    """
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["made_by"] = MARK
        yield file
    with new_file(path) as partial:
        partial.write_bytes(buffer.getbuffer())
