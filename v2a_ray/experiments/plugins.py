"""Loads methods, alignments, learners and more from plugins: installed packages, or Python files.

A package announces its additions as entry points (`GROUPS`); a file registers them like our own code:

    @ALIGNMENTS.add
    class NearestConfig(AlignmentConfig): ...

A file is executed only if the user names it, in an experiment or sweep to start or in V2A_PLUGINS. Reading a finished
run never executes the plugins that its settings name.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from shlex import quote
from types import ModuleType
from typing import Any

from v2a_ray.errors import ConfigError
from v2a_ray.imports import import_named
from v2a_ray.settings.choices import PLUGINS

ENVIRONMENT = "V2A_PLUGINS"
"""Environment variable with plugin files, separated like the folders in PATH."""
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
"""Maps groups of entry points to the function that registers their objects. Entries of methods and encoders are
registered under the entry's name."""
_NAMED = ("v2a_ray.methods", "v2a_ray.encoders")
_WITH_MODULE = "v2a_ray.robots"
_loaded: dict[str, ModuleType] = {}
_shipped: dict[str, str] = {}


@cache
def load_installed() -> None:
    """Load the plugins of installed packages, and the files in V2A_PLUGINS.

    Raises:
        ConfigError: one of them cannot be loaded.
    """
    # One call, because each call reads the metadata of every installed package.
    announced = entry_points()
    for group, door in GROUPS.items():
        for entry in announced.select(group=group):
            try:
                found, register = entry.load(), _register_of(door)
                if group in _NAMED:
                    register(entry.name, found)
                elif group == _WITH_MODULE:
                    register(found, entry.module)
                else:
                    register(found)
            except Exception as error:
                raise ConfigError(
                    f"cannot be loaded: {type(error).__name__}: {error}",
                    where=f"plugin {entry.name} ({entry.value}, {group})",
                    remedy="repair or uninstall the package that announces it",
                ) from error
    named = [path for path in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if path]
    load_files(str(Path(path).expanduser().resolve()) for path in named)


@cache
def has_installed() -> bool:
    """Whether an installed package announces plugins."""
    announced = entry_points()
    return any(announced.select(group=group) for group in GROUPS)


def _register_of(door: str) -> Callable[..., Any]:
    found = import_named(door)
    register: Callable[..., Any] = getattr(found, "add", found)
    return register


def located(paths: Iterable[str], beside: Path) -> list[str]:
    """Absolute paths of plugins named by the file `beside`: relative to it, or else to the current folder."""
    found = []
    for path in paths:
        candidate = beside.parent / Path(path).expanduser()
        found.append(str((candidate if candidate.exists() else Path(path).expanduser()).resolve()))
    return found


def load_files(paths: Iterable[str]) -> None:
    """Execute plugin files; a file that was executed before and did not change is not executed again.

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
    # pydantic resolves annotations in this module.
    sys.modules[name] = module
    try:
        exec(compile(source, path, "exec"), module.__dict__)
    except Exception as error:
        del sys.modules[name]
        line = error.lineno if isinstance(error, SyntaxError) else _line_in(path, error)
        raise ConfigError(
            f"cannot be loaded: {type(error).__name__}: {error}",
            where=f"plugins: {path}" + (f":{line}" if line else ""),
            remedy="repair it; docs/extending.md describes plugins",
        ) from error
    return module


def _line_in(path: str, error: BaseException) -> int | None:
    """The last line of a file in an error's traceback."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _find_loaded(path: str) -> ModuleType | None:
    """The loaded file of that path; where it is no more, one of its name: jobs and other machines had it elsewhere."""
    if path in _loaded or Path(path).exists():
        return _loaded.get(path)
    return next((module for loaded, module in _loaded.items() if Path(loaded).name == Path(path).name), None)


def require_loaded(paths: Iterable[str]) -> None:
    """Raise ConfigError for a plugin that was not loaded: the file that names it may be untrusted."""
    for path in paths:
        if _find_loaded(path) is None:
            raise ConfigError(
                "was not loaded, because it comes with the result",
                where=f"plugins: {path}",
                remedy=f"if you trust it, put {ENVIRONMENT}={quote(path)} before the command, "
                f"or the path of {Path(path).name} where it is now",
            )


def sources_of(paths: Iterable[str]) -> dict[str, str]:
    """Maps the paths of loaded plugins to their content, for execution in other processes."""
    found = {path: _find_loaded(path) for path in paths}
    return {path: str(module.__dict__["PLUGIN_SOURCE"]) for path, module in found.items() if module is not None}


def all_sources() -> dict[str, str]:
    """Those of every plugin file that this process has loaded, for processes to which no experiment goes."""
    return sources_of(_loaded)


def load_shipped(sources: Mapping[str, str]) -> None:
    """Load the plugins of installed packages, and execute those whose content came from another of our processes."""
    _shipped.update(sources)
    load_installed()
    load_files(sources)
