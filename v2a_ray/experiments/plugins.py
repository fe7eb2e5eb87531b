"""Methods, alignments, learners and more from outside: an installed package, or a Python file that is named.

A package announces what it adds as entry points (`GROUPS`); a file registers it as our own code does:

    @ALIGNMENTS.add
    class NearestConfig(AlignmentConfig): ...

A file is run only if it is named by the user: in an experiment or sweep that is started, or in V2A_PLUGINS. A finished
run that says it was made with one does not have it run.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from v2a_ray.errors import ConfigError
from v2a_ray.imports import import_named
from v2a_ray.settings.choices import PLUGINS

ENVIRONMENT = "V2A_PLUGINS"
"""Files, separated as folders in PATH are."""
GROUPS = {
    "v2a_ray.methods": "v2a_ray.experiments.methods:register_method",
    "v2a_ray.alignments": "v2a_ray.stages.alignment.config:ALIGNMENTS",
    "v2a_ray.advantages": "v2a_ray.stages.advantage.config:ADVANTAGES",
    "v2a_ray.learners": "v2a_ray.stages.policy.config:LEARNERS",
    "v2a_ray.filters": "v2a_ray.stages.policy.config:FILTERS",
    "v2a_ray.encoders": "v2a_ray.stages.modality.config:register_encoder",
    "v2a_ray.schedulers": "v2a_ray.experiments.sweep_config:SCHEDULERS",
    "v2a_ray.formats": "v2a_ray.data.formats.known_formats:register_format",
    "v2a_ray.robots": "v2a_ray.domains.robot_spec:register_robot",
}
"""Groups of entry points, and what their objects are given to. Of methods and encoders the entry's name is the name."""
_NAMED = ("v2a_ray.methods", "v2a_ray.encoders")
_loaded: dict[str, ModuleType] = {}
_shipped: dict[str, str] = {}


@cache
def load_installed() -> None:
    """Register what installed packages announce, and the files that V2A_PLUGINS names.

    Raises:
        ConfigError: one of them cannot be loaded.
    """
    # Asked for one group after another it would read the metadata of every installed package as often.
    announced = entry_points()
    for group, door in GROUPS.items():
        for entry in announced.select(group=group):
            try:
                found, register = entry.load(), _register_of(door)
                register(entry.name, found) if group in _NAMED else register(found)
            except Exception as error:
                raise ConfigError(
                    f"cannot be loaded: {type(error).__name__}: {error}",
                    where=f"plugin {entry.name} ({entry.value}, {group})",
                    remedy="mend or uninstall the package that announces it",
                ) from error
    load_files(path for path in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if path)


def _register_of(door: str) -> Callable[..., Any]:
    found = import_named(door)
    register: Callable[..., Any] = getattr(found, "add", found)
    return register


def located(paths: Iterable[str], beside: Path) -> list[str]:
    """Absolute paths of plugins that the file `beside` names: relative to it, else to the present folder."""
    found = []
    for path in paths:
        candidate = beside.parent / Path(path).expanduser()
        found.append(str((candidate if candidate.exists() else Path(path).expanduser()).resolve()))
    return found


def load_files(paths: Iterable[str]) -> None:
    """Run files that register what they add; one that was run already, and did not change, is not run again.

    Raises:
        ConfigError: one cannot be read, or fails.
    """
    for path in paths:
        source = _source(path)
        name = f"{PLUGINS}.{Path(path).stem}_{hashlib.sha256(source.encode()).hexdigest()[:12]}"
        if name not in sys.modules:
            sys.modules[name] = _run(name, path, source)
        _loaded[path] = sys.modules[name]


def _source(path: str) -> str:
    if path in _shipped:
        return _shipped[path]
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot be read: {reason}", where=f"plugins: {path}", remedy="check the path") from None


def _run(name: str, path: str, source: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = path
    module.__dict__["PLUGIN_SOURCE"] = source
    # pydantic looks for the names in annotations here.
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        line = error.lineno if isinstance(error, SyntaxError) else _line_in(path, error)
        raise ConfigError(
            f"cannot be loaded: {type(error).__name__}: {error}",
            where=f"plugins: {path}" + (f":{line}" if line else ""),
            remedy="mend it; docs/extending.md shows what a plugin is",
        ) from error
    return module


def _line_in(path: str, error: BaseException) -> int | None:
    """The last line of a file that an error came through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def require_loaded(paths: Iterable[str]) -> None:
    """Raise ValueError for a plugin that nobody named but what is read, which may be anybody's."""
    for path in paths:
        if path not in _loaded:
            raise ValueError(f"plugins: {path} was not loaded; if you trust it: {ENVIRONMENT}={path}")


def sources_of(paths: Iterable[str]) -> dict[str, str]:
    """Path to content of loaded plugins, to be run in other processes."""
    return {path: str(_loaded[path].__dict__["PLUGIN_SOURCE"]) for path in paths}


def load_shipped(sources: Mapping[str, str]) -> None:
    """Run plugins whose content another process of ours has sent."""
    _shipped.update(sources)
    load_files(sources)
