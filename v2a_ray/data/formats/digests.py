"""SHA-256 digests of data files for artifact keys, cached because hashing is slow and a sweep plans every trial.

A cached digest is valid while the file's path, size, modification time and change time stay the same. A file that
changed within the last seconds is hashed every time, because a second change within one tick of the file system's
clock would leave the same times.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path, PurePath, PurePosixPath

from v2a_ray.checksums import read_sealed, write_sealed
from v2a_ray.data.formats.location import Location, locate, reading
from v2a_ray.data.table.folder import folder_labels
from v2a_ray.errors import DataError

FOLDER = "digests"
READ_BYTES = 2**24
SETTLED_SECONDS = 3.0
"""The coarsest file-system clocks in use tick every two seconds."""


def digest_path(path: str | Path | Location, store: Path | None = None) -> str:
    """SHA-256 that identifies a file, or all files in a folder, with the labels that names of folders hold.

    For a local file it is the digest of the bytes, cached in the folder `store` if given. For a remote file it is the
    digest of address, size and modification time, because reading everything may take as long as the experiment. If
    the storage knows no modification time, the bytes are hashed.

    Raises DataError when the path does not exist or cannot be read.
    """
    location = locate(path)
    if not location.exists():
        raise DataError(
            "no such file",
            where=str(location),
            remedy="give the folder of the data with data_root=DIR, or correct `path`",
        )
    digest = hashlib.sha256()
    if location.local is None:
        parts = [location.member(name) for name in location.names()] if location.is_folder else [location]
        for part in parts:
            digest.update(_labels(PurePosixPath(part.path)) + _remote_digest(part))
        return digest.hexdigest()
    local = location.local
    for file in sorted(local.rglob("*")) if local.is_dir() else [local]:
        if file.is_file():
            try:
                digest.update(_labels(file.absolute()) + _digest(file, store))
            except OSError as error:
                raise DataError(f"cannot be read: {error.strerror}", where=str(file)) from None
    return digest.hexdigest()


def _labels(file: PurePath) -> bytes:
    """The labels that readers take from the names of a file's folders; other names may change."""
    named = (f"{label}={text}" for label, text in folder_labels(file).items())
    return "/".join(named).encode(errors="surrogateescape")


def _remote_digest(location: Location) -> bytes:
    with reading(location):
        info = location.filesystem.get_file_info(location.path)
    if info.mtime_ns is not None:
        return hashlib.sha256(f"{location} {info.size} {info.mtime_ns}".encode()).digest()
    with location.open() as file:
        digest = hashlib.sha256()
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    return digest.digest()


def _digest(file: Path, store: Path | None) -> bytes:
    file = file.absolute()
    note = store / FOLDER / f"{hashlib.sha256(str(file).encode()).hexdigest()[:32]}.json" if store else None
    state = _state(file)
    # A cache entry that cannot be read or written only costs time.
    if note:
        with suppress(OSError, ValueError, KeyError, TypeError):
            remembered = read_sealed(note)
            if remembered["file"] == str(file) and remembered["state"] == state:
                return bytes.fromhex(remembered["sha256"])
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").digest()
    settled = time.time_ns() - max(state[1:]) > SETTLED_SECONDS * 1e9
    if note and settled and _state(file) == state:
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            write_sealed(note, {"file": str(file), "state": state, "sha256": digest.hex()})
    return digest


def _state(file: Path) -> list[int]:
    """Size, modification time and change time. A copy that keeps the modification time has another change time."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
