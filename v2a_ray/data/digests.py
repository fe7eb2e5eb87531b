"""SHA-256 of data files, remembered beside the artifacts: a sweep plans every trial, and hashing gigabytes takes long.

A digest is used again while the file's path, size, modification time and change time are what they were. It is not
remembered for a file that changed within the last seconds, because a second change within one tick of the file
system's clock would leave the same times; such a file is hashed every time.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from pathlib import Path

from v2a_ray.errors import DataError
from v2a_ray.files import read_json, write_json

FOLDER = "digests"
SETTLED_SECONDS = 3.0
"""The coarsest clocks of file systems in use tick every two seconds."""


def digest_path(path: Path, store: Path | None = None) -> str:
    """SHA-256 of a file, or of all files in a folder; remembered in the folder `store`, if there is one.

    Raises DataError when it does not exist or cannot be read.
    """
    if not path.exists():
        raise DataError(
            "no such file", where=str(path), remedy="give the folder of the data with data_root=DIR, or correct `path`"
        )
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            try:
                digest.update(_digest(file, store))
            except OSError as error:
                raise DataError(f"cannot be read: {error.strerror}", where=str(file)) from None
    return digest.hexdigest()


def _digest(file: Path, store: Path | None) -> bytes:
    file = file.absolute()
    note = store / FOLDER / f"{hashlib.sha256(str(file).encode()).hexdigest()[:32]}.json" if store else None
    state = _state(file)
    # A note that cannot be read or written costs time, nothing else.
    if note:
        with suppress(OSError, ValueError, KeyError, TypeError):
            remembered = read_json(note)
            if remembered["file"] == str(file) and remembered["state"] == state:
                return bytes.fromhex(remembered["sha256"])
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").digest()
    settled = time.time_ns() - max(state[1:]) > SETTLED_SECONDS * 1e9
    if note and settled and _state(file) == state:
        with suppress(OSError):
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, {"file": str(file), "state": state, "sha256": digest.hex()})
    return digest


def _state(file: Path) -> list[int]:
    """Size, modification time and change time; a copy that keeps the modification time has another change time."""
    status = file.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
