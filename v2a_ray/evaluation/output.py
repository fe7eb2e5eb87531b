"""Files for use elsewhere carry a mark, and only what carries it is ever replaced."""

from __future__ import annotations

from pathlib import Path

from v2a_ray.data.store import storage_errors
from v2a_ray.errors import StorageError

MARK = "made by v2a_ray"
"""Stands as it is in the bytes of every such file; in a folder, in its `v2a.json`."""
ABOUT = "v2a.json"


def require_ours(output: Path) -> None:
    """Raise StorageError when `output` exists and the platform did not write it."""
    with storage_errors(output):
        file = output / ABOUT if output.is_dir() else output
        ours = not output.exists() or (file.is_file() and MARK.encode() in file.read_bytes())
    if not ours:
        raise StorageError("exists and is not ours", where=str(output), remedy="choose another name for the output")
