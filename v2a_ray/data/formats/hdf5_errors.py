"""Translates h5py's errors into the cause and the remedy."""

from __future__ import annotations

import errno
import re
from contextlib import suppress

import h5py

from v2a_ray.data.formats.location import REMEDY, Location
from v2a_ray.errors import DataError

AGAIN = "download or copy it again"
# From the registry of filters at https://github.com/HDFGroup/hdf5_plugins; h5py itself has gzip, shuffle and lzf.
FILTERS = {307: "bzip2", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32015: "zstd", 32026: "blosc2"}
# Pattern in h5py's message, its meaning, and the remedy.
CAUSES = (
    (r"file signature not found", "is no HDF5 file", "check that it is the file you mean"),
    (
        r"already open for write",
        "was not closed by the program that writes it",
        "wait until that has ended; if it was killed, `h5clear --status FILE` marks the file as closed",
    ),
    (
        r"bad superblock version|version number is too high",
        "is of an HDF5 version newer than this h5py's",
        "update h5py",
    ),
    (r"unable to read raw data|filter returned failure|checksum", "is damaged", AGAIN),
)


def explained(error: Exception, location: Location) -> DataError:
    """An exception that h5py raised while it opened or read a file, as one message with a remedy."""
    message = " ".join(str(error).split()).strip("'\"")
    where, number = str(location), getattr(error, "errno", None)
    if "unable to lock file" in message:
        if number in (errno.EAGAIN, errno.EACCES):
            what, remedy = "is locked: another process has it open for writing", "wait until that has closed it"
        else:
            what, remedy = "cannot be locked on this file system", "set HDF5_USE_FILE_LOCKING=FALSE"
        return DataError(f"{what} ({message})", where=where, remedy=remedy)
    if number in (errno.EACCES, errno.EPERM):
        return DataError("cannot be read: Permission denied", where=where, remedy=REMEDY)
    if cut := re.search(r"truncated file: eof = (\d+), .*stored_eof = (\d+)", message):
        bytes_there, bytes_written = (f"{int(count):,}" for count in cut.groups())
        what = f"not readable as HDF5: it ends after {bytes_there} of {bytes_written} bytes"
        return DataError(what, where=where, remedy=f"it is incomplete; {AGAIN}")
    for pattern, what, remedy in CAUSES:
        if re.search(pattern, message):
            return DataError(f"not readable as HDF5: it {what} ({message})", where=where, remedy=remedy)
    return DataError(f"not readable as HDF5: {message}", where=where, remedy=f"it may be incomplete; {AGAIN}")


def require_filters(found: h5py.Dataset, where: str) -> None:
    """Raise DataError if an array uses a filter (mostly compression) that is not installed here."""
    settings = found.id.get_create_plist()
    for index in range(settings.get_nfilters()):
        code, _, _, name = settings.get_filter(index)
        if not _is_available(code):
            known = FILTERS.get(code) or name.decode("utf-8", "replace") or "of unknown name"
            raise DataError(
                f"is compressed by HDF5 filter {code} ({known}), which is not installed here",
                where=where,
                remedy="pip install hdf5plugin, or write the array with gzip",
            )


def _is_available(code: int) -> bool:
    if not h5py.h5z.filter_avail(code):
        # Importing this package registers its filters.
        with suppress(ImportError):
            import hdf5plugin  # noqa: F401
    return bool(h5py.h5z.filter_avail(code))
