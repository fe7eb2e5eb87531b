"""Objects by name (`module:attribute`), the source of their modules, and packages that only an extra installs."""

from __future__ import annotations

import hashlib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from v2a_ray.errors import ConfigError


def import_named(name: str) -> Any:
    """The object that `module:attribute` names. Raises whatever its module raises, AttributeError, or ValueError."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def is_ours(module: str) -> bool:
    """Whether a module is one of this package."""
    return module.partition(".")[0] == "v2a_ray"


def source_digest(module: ModuleType) -> str:
    """SHA-256 of a module's source file as it is now; of nothing for a module without one."""
    source, file = getattr(module, "PLUGIN_SOURCE", None), getattr(module, "__file__", None)
    if isinstance(source, str):
        content = source.encode()
    else:
        content = Path(file).read_bytes() if file and Path(file).is_file() else b""
    return hashlib.sha256(content).hexdigest()


def require_package(module: str, extra: str, where: str) -> None:
    """Raise ConfigError unless a module is installed that comes with an extra of this package."""
    if find_spec(module) is None:
        raise ConfigError(
            f"needs the package {module}, which is not installed",
            where=where,
            remedy=f"pip install 'v2a_ray[{extra}]'",
        )
