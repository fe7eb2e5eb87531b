"""Files and folders that are whole whenever they are there, and folders that can be written to."""

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
    """The content of a JSON file. Raises OSError, or ValueError for what is no JSON."""
    return parse_json(read_bytes(path))


def parse_json(content: str | bytes) -> Any:
    """What JSON says. Raises ValueError for what is none, and for what is nested deeper than anything of ours."""
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError(told(error)) from None


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises OSError for a FIFO or device too: to open one may wait for ever."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))
    return path.read_bytes()


def temporary_name(path: Path) -> Path:
    """A hidden name beside `path` for a file or folder in the making, which nobody else uses on any node.

    A process number would not do: nodes that share storage number their processes alike.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` when the block ends well, and vanishes otherwise.

    Whoever reads `path` gets the old file or the new one, whole, whenever the process is killed or the machine loses
    power, and when several processes write it.
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
    """Bring a file, or all that a folder holds, to the disk: a name may not become durable before what it names."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_dir():
            sync_entries(file)
        elif file.is_file():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    if path.is_dir():
        sync_entries(path)


def sync_entries(folder: Path) -> None:
    """Bring the names in a folder to the disk, where its file system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy_whole(source: Path, destination: Path) -> None:
    """Copy a file; `destination` is the old file or the new one, whole."""
    with replacing(destination) as fresh:
        shutil.copyfile(source, fresh)


def write_whole(path: Path, text: str) -> None:
    """Write a text file; `path` is the old file or the new one, whole."""
    with replacing(path) as fresh:
        fresh.write_text(text)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for it out of `folder` while the block runs; a kill ends that too.

    Raises StorageError when another one is inside.
    """
    path = folder / ".lock"
    try:
        # Neither emptied nor followed: it may be a link to something of the user's.
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
    """Write a JSON file that is the old one or the new one, whole, also when the process is killed."""
    write_whole(path, json.dumps(content, indent=1) + "\n")


def prepare_folder(path: Path) -> Path:
    """Make a folder that can be written to. Raises StorageError when it cannot."""
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
