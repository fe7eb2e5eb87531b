"""The settings of a section that are part of an artifact's key: all that change its numbers, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from v2a_ray.imports import module_digest
from v2a_ray.settings.base import Settings

BOOKKEEPING = frozenset({"checkpoint_interval_steps", "log_interval_steps", "device", "cuda_graph"})
"""Logging and checkpoint intervals do not change a stage's numbers. The device changes them as another seed would, but
`device: auto` differs between machines, and an artifact must be found on all of them."""


def moving(settings: Settings, *modules: str) -> dict[str, Any]:
    """The settings that can change a stage's numbers: all except `BOOKKEEPING`.

    For settings classes from plugins, of the section or of its parts, and for `modules` of code that the settings name,
    digests of the plugins' files are added, because another version of a plugin computes other artifacts.
    """
    content = settings.model_dump(mode="json", exclude=set(BOOKKEEPING))
    named = {*modules, *(type(part).__module__ for part in _parts(settings))}
    digests = [module_digest(name) for name in sorted(named) if name.partition(".")[0] != "v2a_ray"]
    # One digest stood for itself before parts of a section could have any.
    return content | ({"plugin": digests[0] if len(digests) == 1 else digests} if digests else {})


def _parts(settings: Settings) -> Iterator[Settings]:
    """A section and the sections in it."""
    yield settings
    for name in type(settings).model_fields:
        if isinstance(part := getattr(settings, name), Settings):
            yield from _parts(part)
