"""The settings of a section that are part of an artifact's key: all that change its numbers, and no others."""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

from v2a_ray.settings.base import Settings

BOOKKEEPING = frozenset({"checkpoint_interval_steps", "log_interval_steps", "device", "cuda_graph"})
"""Logging and checkpoint intervals do not change a stage's numbers. The device changes them as another seed would, but
`device: auto` differs between machines, and an artifact must be found on all of them."""


def moving(settings: Settings) -> dict[str, Any]:
    """The settings that can change a stage's numbers: all except `BOOKKEEPING`.

    For a settings class from a plugin, the digest of the plugin's file is added, because another version of the plugin
    computes other artifacts.
    """
    content = settings.model_dump(mode="json", exclude=set(BOOKKEEPING))
    module = type(settings).__module__
    return content if module.partition(".")[0] == "v2a_ray" else content | {"plugin": module_digest(module)}


@cache
def module_digest(name: str) -> str:
    """SHA-256 of a module's source file."""
    module = sys.modules[name]
    source = getattr(module, "PLUGIN_SOURCE", None)
    content = source.encode() if isinstance(source, str) else Path(str(module.__file__)).read_bytes()
    return hashlib.sha256(content).hexdigest()
