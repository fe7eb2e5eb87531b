"""What of a section of settings is part of an artifact's key: all that moves its numbers, and nothing else."""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from pathlib import Path
from typing import Any

from v2a_ray.settings.base import Settings

BOOKKEEPING = frozenset({"checkpoint_interval_steps", "log_interval_steps", "device", "cuda_graph"})
"""How often a stage reports and saves does not move its numbers, and where it computes moves them as a seed would:
`device: auto` means another one on every machine, and an artifact has to be found on all of them."""


def moving(settings: Settings) -> dict[str, Any]:
    """The settings that can move a stage's numbers: not those of bookkeeping.

    Settings of a class that did not come with the package carry the content of the file that defines it: another
    version of a plugin computes other artifacts.
    """
    content = settings.model_dump(mode="json", exclude=set(BOOKKEEPING))
    module = type(settings).__module__
    return content if module.partition(".")[0] == "v2a_ray" else content | {"plugin": module_digest(module)}


@cache
def module_digest(name: str) -> str:
    """SHA-256 of the file that a module was loaded from."""
    module = sys.modules[name]
    source = getattr(module, "PLUGIN_SOURCE", None)
    content = source.encode() if isinstance(source, str) else Path(str(module.__file__)).read_bytes()
    return hashlib.sha256(content).hexdigest()
