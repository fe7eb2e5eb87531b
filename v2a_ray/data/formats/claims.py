"""What a file claims to hold, compared with what is stored, before anything is allocated."""

from __future__ import annotations

import os

from v2a_ray.errors import DataError

HARMLESS_BYTES = 256 * 1024**2
MAX_RATIO = 100
"""Of claimed to stored bytes, above `HARMLESS_BYTES`: recorded states compress by 2 to 10, constant columns by more."""


def require_stored(claimed_bytes: int, stored_bytes: int, where: str) -> None:
    """Raise DataError if an array claims far more bytes than are stored for it, or more than memory can hold."""
    if claimed_bytes <= HARMLESS_BYTES:
        return
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if claimed_bytes > stored_bytes * MAX_RATIO:
        problem = f"the file stores {stored_bytes:,} bytes for it"
        remedy = "the file is damaged or was never filled; download or copy it again"
    elif claimed_bytes > memory:
        problem = f"this machine has {memory:,}"
        remedy = "split the dataset into smaller files"
    else:
        return
    raise DataError(f"claims {claimed_bytes:,} bytes, but {problem}", where=where, remedy=remedy)
