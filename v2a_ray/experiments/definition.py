"""Merges layers of settings: which settings define a method, which are dropped by another choice, and old names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from v2a_ray.experiments.methods import DEFAULT_METHOD, METHODS, method_settings
from v2a_ray.settings.base import leaves, merge, without
from v2a_ray.settings.choices import SIZES, Choices
from v2a_ray.stages.advantage.config import ADVANTAGES
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.policy.config import FILTERS, LEARNERS, FilterConfig

SECTIONS: dict[str, Choices] = {
    "advantage": ADVANTAGES,
    "alignment": ALIGNMENTS,
    "policy": LEARNERS,
    "policy.filter": FILTERS,
}
"""The sections of an experiment whose settings depend on a choice."""
RENAMED = {
    "feeding": "loading",
    "policy.td3_bc": "policy",
    "policy.awac": "policy",
    "policy.bosa": "policy",
    "policy.droco": "policy",
    "policy.grouped": "policy",
}
"""Maps sections of 0.1 to the sections that now have their settings. 0.3 removes the old names."""


def defining_keys() -> frozenset[str]:
    """Settings that define a method, unlike its sizes, such as numbers of steps and widths."""
    named = {"advantage.latent", "alignment.contrastive_score", "modality.mode"}
    named |= {f"policy.filter.{name}" for name in FilterConfig.model_fields}
    return frozenset(named.union(*(method.keys for method in METHODS.values())))


def defining_settings(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The defining settings among `raw`, nested as in a file, as dotted key to value."""
    keys = defining_keys()
    return {key: value for key, value in leaves(raw).items() if key in keys}


def lay_over(base: Mapping[str, Any], over: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Merge settings `over` into `base`.

    If `over` chooses another method, the settings by which `base` modified its method are dropped. If `over` chooses
    another kind of a section, settings of `base` that the new kind lacks are dropped. A `base` without a method applies
    to all methods.

    Returns:
        The settings, and the dropped settings of `base`, dotted key to value.
    """
    chosen, had = over.get("method"), base.get("method")
    dropped = defining_settings(base) if None not in (chosen, had) and chosen != had else {}
    kept = without(base, dropped)
    laid: dict[str, Any] = merge(kept, over)
    foreign = _foreign(laid, kept, over)
    return without(laid, foreign), dropped | {key: value for key, value in foreign.items() if key not in dropped}


def under_method(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """A method's settings with `given` merged into them. Raises ConfigError for an unknown method."""
    settings = method_settings(method)
    laid: dict[str, Any] = merge(settings, given)
    return without(laid, _foreign(laid, settings, given))


def _foreign(laid: Mapping[str, Any], base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `base`, not repeated in `over`, that the kind of their section in `laid` does not have."""
    found: dict[str, Any] = {}
    method = laid.get("method", DEFAULT_METHOD)
    below = METHODS[method].settings if isinstance(method, str) and method in METHODS else {}
    for section, choices in SECTIONS.items():
        content, own, above, method_own = (_section(layer, section) for layer in (laid, base, over, below))
        if content is not None and own is not None:
            given = above or {}
            named = merge(method_own or {}, content)
            keys = choices.foreign(named) - SIZES
            found |= {f"{section}.{key}": own[key] for key in keys if key in own and key not in given}
    return found


def _section(layer: Mapping[str, Any], path: str) -> Mapping[str, Any] | None:
    """The mapping at a dotted path; None if it does not exist."""
    found: Any = layer
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else None


def with_new_names(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Settings under their present names, and one notice per section that was given under its old name."""
    content, notices = dict(raw), []
    for old, new in RENAMED.items():
        inner = _section(content, old)
        if inner is None:
            continue
        content = merge(without(content, {old}), {new: inner})
        shown = ", ".join(f"{old}.{key} is now {new}.{key}" for key in inner)
        notices.append(f"{shown}; the old name is accepted until 0.3")
    return content, notices
