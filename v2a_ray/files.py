"""JSON files that are whole whenever they are there, and folders that can be written to."""

from __future__ import annotations

import fcntl
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from v2a_ray.errors import StorageError


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text())


def temporary_name(path: Path) -> Path:
    """A hidden name beside `path` for a file or folder in the making, which nobody else uses on any node.

    A process number would not do: nodes that share storage number their processes alike.
    """
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes the place of `path` when the block ends well, and vanishes otherwise.

    Whoever reads `path` gets the old file or the new one, whole, whenever the process is killed, and when several
    processes write it.
    """
    fresh = temporary_name(path)
    try:
        yield fresh
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for it out of `folder` while the block runs; a kill ends that too.

    Raises StorageError when another one is inside.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                "another process is at work here", where=str(folder), remedy="wait for it, or choose another --run-dir"
            ) from None
        yield


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is the old one or the new one, whole, also when the process is killed."""
    with replacing(path) as fresh:
        fresh.write_text(json.dumps(content, indent=1) + "\n")


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
