"""JSON files that are whole whenever they are there, and folders that can be written to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from v2a_ray.errors import StorageError


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    return json.loads(path.read_text())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file that is the old one or the new one, whole, also when the process is killed."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(json.dumps(content, indent=1) + "\n")
    fresh.replace(path)


def prepare_folder(path: Path) -> Path:
    """Make a folder that can be written to. Raises StorageError when it cannot."""
    path = path.expanduser().resolve()
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / f".write-test-{os.getpid()}"
        probe.write_bytes(b"\0" * 4096)
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"cannot be written: {error.strerror or error}",
            where=str(path),
            remedy="choose another folder, or free space",
        ) from None
    return path
