"""Objects by name (`module:attribute`), and packages that only an extra installs."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from v2a_ray.errors import ConfigError


def import_named(name: str) -> Any:
    """The object that `module:attribute` names. Raises whatever its module raises, AttributeError, or ValueError."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def require_package(module: str, extra: str, where: str) -> None:
    """Raise ConfigError unless a module is installed that comes with an extra of this package."""
    if find_spec(module) is None:
        raise ConfigError(
            f"needs the package {module}, which is not installed",
            where=where,
            remedy=f"pip install 'v2a_ray[{extra}]'",
        )
