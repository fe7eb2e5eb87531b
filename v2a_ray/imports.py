"""What a text names: `module:attribute`, imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def import_named(name: str) -> Any:
    """The object that `module:attribute` names. Raises whatever its module raises, AttributeError, or ValueError."""
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)
