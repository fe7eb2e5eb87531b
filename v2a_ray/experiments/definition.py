"""Which settings say what method it is, and what becomes of them when another method is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from v2a_ray.experiments.methods import METHODS
from v2a_ray.settings.base import leaves, merge, without
from v2a_ray.stages.policy.config import FilterConfig

DEFINING = frozenset(
    {
        "advantage.latent",
        "alignment.contrastive_score",
        "modality.mode",
        *(f"policy.filter.{name}" for name in FilterConfig.model_fields),
        *(key for method in METHODS.values() for key in leaves(method.settings)),
    }
)
"""Settings that say which method it is. What else there is, such as numbers of steps and widths, says how large."""


def defining_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key to value of what settings, nested as in a file, say about which method it is."""
    return {key: value for key, value in leaves(raw).items() if key in DEFINING}


def lay_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings `over` laid over `base`; where `over` chooses another method, what `base` changed of its own goes.

    A `base` that names no method means what it says for all.

    Returns:
        The settings, and what was dropped from `base` because it defined the other method, dotted key to value.
    """
    chosen, had = over.get("method"), base.get("method")
    if chosen is None or had is None or chosen == had:
        return merge(base, over), {}
    dropped = defining_settings(base)
    kept = without(base, dropped)
    return merge(kept, over), dropped
