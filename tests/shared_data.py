"""Third-party data sets for tests. They are not shipped: tests skip if no parent folder has `shared/data`."""

from __future__ import annotations

from pathlib import Path

import pytest

_FOLDERS = [folder for parent in Path(__file__).parents if (folder := parent / "shared" / "data").is_dir()]
SHARED_DATA = _FOLDERS[0] if _FOLDERS else None
needs_shared_data = pytest.mark.skipif(
    SHARED_DATA is None, reason="no parent folder has shared/data: third-party data are not shipped"
)


def shared_file(name: str) -> Path:
    """The path of a file of `shared/data`, in a test with `needs_shared_data`."""
    assert SHARED_DATA is not None
    return SHARED_DATA / name
