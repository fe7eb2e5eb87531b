"""Damage to a file on a disk: a bit flips, the end or all of the content is lost, or the file is missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def flip(file: Path, where: float = 0.5) -> None:
    """Flip one bit, at `where` of the file's length (0 first byte, 1 last)."""
    content = bytearray(file.read_bytes())
    content[round(where * (len(content) - 1))] ^= 1
    file.write_bytes(content)


def truncate(file: Path) -> None:
    """Lose the second half."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file: Path) -> None:
    """Lose everything but the name."""
    file.write_bytes(b"")


HARMS: dict[str, Callable[[Path], None]] = {
    "flipped": flip,
    "truncated": truncate,
    "emptied": empty,
    "removed": Path.unlink,
}
