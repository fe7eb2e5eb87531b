"""Checksums that find damaged files: JSON that holds its own SHA-256, and the SHA-256 of every file in a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from v2a_ray.files import parse_json, read_bytes, read_json, write_json

SEAL = "checksum"
"""The key under which a sealed JSON file holds the SHA-256 of the rest of its content."""
Digests = dict[str, tuple[int, str]]
"""File name, relative to its folder, to the file's size in bytes and its SHA-256."""
SMALL_BYTES = 2**20
NUM_THREADS = 4
"""Hashing releases the interpreter's lock; one thread reads some 1.5 GB/s."""


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its checksum, as `write_json` does. Values that JSON lacks are written as text."""
    write_json(path, sealed(content))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read a file of `write_sealed`. Raises OSError, or ValueError with the reason when the file is damaged."""
    return unsealed(read_json(path))


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its checksum. Values that JSON lacks become text."""
    plain = json.loads(json.dumps(content, default=str))
    return {**plain, SEAL: _digest_of(plain)}


def unsealed(content: Any) -> dict[str, Any]:
    """The content that `sealed` was given. Raises ValueError when the checksum is missing or does not match."""
    if not isinstance(content, dict) or SEAL not in content:
        raise ValueError("it has no checksum")
    rest = {key: value for key, value in content.items() if key != SEAL}
    if content[SEAL] != _digest_of(rest):
        raise ValueError("it does not match its checksum")
    return rest


def append_sealed(path: Path, contents: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON objects to a file, one per line with its checksum, and flush them to the disk.

    Raises OSError, also for a symbolic link, which may lead to a file of the user's.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o644), "a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            # A killed process may have left half a line; the new lines must not continue it.
            file.write(b"" if file.read(1) == b"\n" else b"\n")
        file.write("".join(json.dumps(sealed(content)) + "\n" for content in contents).encode())
        file.flush()
        os.fsync(file.fileno())


def read_sealed_lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """The objects that `append_sealed` wrote, in order; None for an incomplete or damaged line. Raises OSError."""
    for line in read_bytes(path).splitlines():
        try:
            yield unsealed(parse_json(line))
        except ValueError:
            yield None


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: Path) -> Digests:
    """Size and SHA-256 of every file below a folder."""
    files = list(_files(folder))
    with ThreadPoolExecutor(NUM_THREADS) as threads:
        digests = threads.map(file_digest, files)
        return {
            file.relative_to(folder).as_posix(): (file.stat().st_size, digest)
            for file, digest in zip(files, digests, strict=True)
        }


def damage(folder: Path, recorded: Mapping[str, tuple[int, str]]) -> str | None:
    """The first difference between a folder's files and the `recorded` digests, in words; None if they agree."""
    for name, (size, _) in recorded.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            return f"{name} cannot be read: {error.strerror or error}"
        if found != size:
            return f"{name} has {found:,} bytes where {size:,} were written"
    files = [folder / name for name in recorded]
    small = sum(size for size, _ in recorded.values()) < SMALL_BYTES
    # Threads take longer to start than a small folder to be hashed.
    with nullcontext() if small else ThreadPoolExecutor(NUM_THREADS) as threads:
        found_digests = (threads.map if threads else map)(_digest_or_error, files)
        for (name, (_, expected)), digest in zip(recorded.items(), found_digests, strict=True):
            if digest != expected:
                return f"{name} is not what was written (SHA-256 {digest[:12]}…, expected {expected[:12]}…)"
    return None


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _digest_or_error(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _digest_of(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
