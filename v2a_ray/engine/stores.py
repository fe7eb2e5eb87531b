"""Which store a configuration names: a folder, or an address in object storage."""

from __future__ import annotations

import os
from pathlib import Path

from v2a_ray.engine.object_store import ObjectStore
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.objects import is_address


def store_address(name: str | None) -> str:
    """The store that a configuration names: a URI, or an absolute folder.

    Without one it is $V2A_STORE, or `runs/artifacts` in the current folder.
    """
    text = name or os.environ.get("V2A_STORE") or "runs/artifacts"
    return text if is_address(text) else str(Path(text).expanduser().resolve())


def open_store(name: str | None) -> ArtifactStore:
    """The store that a configuration names. Raises ConfigError for a URI that can hold none."""
    address = store_address(name)
    return ObjectStore(address) if is_address(address) else ArtifactStore(Path(address))
