"""The settings of a section that are part of an artifact's key: all that change its numbers, and no others."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from types import FunctionType
from typing import Any

from v2a_ray.imports import is_ours, source_digest
from v2a_ray.settings.base import Settings

BOOKKEEPING = frozenset({"checkpoint_interval_steps", "log_interval_steps", "device", "cuda_graph"})
"""Logging and checkpoint intervals do not change a stage's numbers. The device changes them as another seed would, but
`device: auto` differs between machines, and an artifact must be found on all of them."""
NAMED = re.compile(r"[\w.]+:\w+")
"""A function or class as `module:name`."""


def moving(settings: Settings) -> dict[str, Any]:
    """The settings that can change a stage's numbers: all except `BOOKKEEPING`.

    For a settings class from a plugin, also one inside a section, the digest of the plugin's files is added, because
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
    own = plugin_content(type(settings))
    others = [source_digest(import_module(module)) for module in _other_modules(type(settings))] if own else []
    return content | inner | own | ({"plugin_files": others} if others else {})


def _other_modules(kind: type[Settings]) -> list[str]:
    """The modules, but its own and ours, of what a plugin's settings class inherits and names, as its `fits`."""
    found = set()
    for base in kind.__mro__:
        if not issubclass(base, Settings) or is_ours(base.__module__):
            continue
        found.add(base.__module__)
        for name, value in vars(base).items():
            if name.startswith("__"):
                continue
            if isinstance(value, FunctionType | type):
                found.add(value.__module__)
            elif isinstance(value, str) and NAMED.fullmatch(value):
                found.add(value.partition(":")[0])
    return sorted(module for module in found - {kind.__module__} if not is_ours(module))
