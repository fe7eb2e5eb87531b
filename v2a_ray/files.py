"""Files and folders that are written atomically, and checks that a folder can be written to."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from v2a_ray.errors import StorageError, told


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises OSError, or ValueError when the file is not JSON."""
    return parse_json(read_bytes(path))


def parse_json(content: str | bytes) -> Any:
    """Parse JSON. Raises ValueError for invalid JSON and for JSON that is nested too deeply."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(told(error)) from None


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises OSError, also for a FIFO or device, because opening one may block for ever."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return path.read_bytes()


def temporary_name(path: Path) -> Path:
    """A hidden name beside `path` for a file or folder that is being written. No other process on any node uses it.

    A process id would not be unique, because nodes that share storage use the same ids.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that replaces `path` when the block succeeds, and is removed otherwise.

    A reader of `path` always gets the complete old file or the complete new one, even if the process is killed, the
    machine loses power, or several processes write at once.
    """
    fresh = temporary_name(path)
    try:
        yield fresh
        sync(fresh)
        fresh.replace(path)
        sync_entries(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file, or everything in a folder, to the disk. A name must not become durable before its content."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_dir():
            sync_entries(file)
        elif file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    if path.is_dir():
        sync_entries(path)


def sync_entries(folder: Path) -> None:
    """Flush the names in a folder to the disk, if its file system supports that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy_whole(source: Path, destination: Path) -> None:
    """Copy a file atomically."""
    with replacing(destination) as fresh:
        shutil.copyfile(source, fresh)


def write_whole(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as fresh:
        fresh.write_text(text)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on `folder` while the block runs. The lock ends with the process, also when it is killed.

    Raises StorageError when another process holds the lock.
    """
    path = folder / ".lock"
    try:
        # Do not truncate the file or follow a link: it may lead to a file of the user's.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    except OSError as error:
        what = "is a symbolic link" if path.is_symlink() else f"cannot be opened: {error.strerror}"
        raise StorageError(what, where=str(path), remedy="remove it, or choose another --run-dir") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                "another process is at work here", where=str(folder), remedy="wait for it, or choose another --run-dir"
            ) from None
        yield
    finally:
        os.close(descriptor)


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_whole(path, json.dumps(content, indent=1) + "\n")


def prepare_folder(path: Path) -> Path:
    """Create a folder and check that it can be written to. Raises StorageError when it cannot."""
    path = path.expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = temporary_name(path / "write-test")
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            remedy="choose another folder, or free space",
        ) from None
    return path
