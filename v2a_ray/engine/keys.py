"""The settings of a section that are part of an artifact's key: all that change its numbers, and no others."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from v2a_ray.imports import is_ours, source_digest
from v2a_ray.settings.base import Settings

BOOKKEEPING = frozenset({"checkpoint_interval_steps", "log_interval_steps", "device", "cuda_graph"})
"""Logging and checkpoint intervals do not change a stage's numbers. The device changes them as another seed would, but
`device: auto` differs between machines, and an artifact must be found on all of them."""


def moving(settings: Settings) -> dict[str, Any]:
    """The settings that can change a stage's numbers: all except `BOOKKEEPING`.

    For a settings class from a plugin, also one inside a section, the digest of the plugin's file is added, because
    another version of the plugin computes other artifacts.
    """
    return _with_plugins(settings, settings.model_dump(mode="json", exclude=set(BOOKKEEPING)))


def plugin_content(code: str | Callable[..., Any]) -> dict[str, str]:
    """The digest of the file that has a class or function, or its `module:name`; nothing for those of this package."""
    module = code.partition(":")[0] if isinstance(code, str) else code.__module__
    return {} if is_ours(module) else {"plugin": source_digest(import_module(module))}


def _with_plugins(settings: Settings, content: dict[str, Any]) -> dict[str, Any]:
    inner = {
        name: _with_plugins(value, content[name])
        for name, value in settings
        if isinstance(value, Settings) and name in content
    }
    return content | inner | plugin_content(type(settings))
