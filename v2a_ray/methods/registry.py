"""Methods as combinations: which columns the source table gets, and how the policy filters by them.

A method is nothing but settings laid under the user's own, so every choice can be changed by its key, and what a method
*is* can be read in one line. Sources: V2A 2605.24862, DVDF 2512.02435, IGDF 2405.06192, IQL 2110.06169,
TD3+BC 2106.06860, AWAC 2006.09359.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from v2a_ray.errors import ConfigError


@dataclass(frozen=True)
class Method:
    """A named combination.

    Attributes:
        summary: one line for `v2a methods`.
        settings: what it lays over the defaults, as nested sections.
    """

    summary: str
    settings: dict[str, Any] = field(default_factory=dict)


def _learner(learner: str, data: str) -> dict[str, Any]:
    return {"policy": {"learner": learner, "data": data}}


def _filtered(**rule: Any) -> dict[str, Any]:
    return {"learner": "iql", "data": "mixed", "filter": rule}


METHODS: dict[str, Method] = {
    "v2a": Method(
        "modality z, A(s, a, z), contrastive h; best half by 0.6 h + 0.4 minmax(A), weight exp(h)",
        {
            "advantage": {"kind": "sparse_q", "conditioning": "modality"},
            "alignment": {"kind": "contrastive"},
            "policy": _filtered(rule="top_fraction", keep_fraction=0.5, alignment_weight=0.6, weight="exp_alignment"),
        },
    ),
    "v2a_calibrated": Method(
        "V2A with modality alignment and a calibrated filter (ours): of what the target would pass, the best half by f",
        {
            "modality": {"include_target": True},
            "advantage": {"kind": "sparse_q", "conditioning": "modality"},
            "alignment": {"kind": "modality", "window_steps": 50},
            "policy": _filtered(rule="calibrated", keep_fraction=0.5, alignment_weight=0.0, weight="one"),
        },
    ),
    "dvdf": Method(
        "global A(s, a), contrastive h; best half by 0.7 h + 0.3 minmax(A), weight by that score",
        {
            "advantage": {"kind": "sparse_q", "conditioning": "none"},
            "alignment": {"kind": "contrastive"},
            "policy": _filtered(rule="top_fraction", keep_fraction=0.5, alignment_weight=0.7, weight="score"),
        },
    ),
    "igdf": Method(
        "contrastive h; best three quarters by h, weight exp(h)",
        {
            "alignment": {"kind": "contrastive"},
            "policy": _filtered(rule="top_fraction", keep_fraction=0.75, alignment_weight=1.0, weight="exp_alignment"),
        },
    ),
    "iql": Method("IQL, unfiltered, on `policy.data`: mixed (default), target or source", _learner("iql", "mixed")),
    "bc": Method("behaviour cloning of `policy.data`: mixed (default), target or source", _learner("bc", "mixed")),
    "td3_bc": Method("TD3+BC, unfiltered, on `policy.data`", _learner("td3_bc", "mixed")),
    "awac": Method("advantage-weighted actor-critic, unfiltered, on `policy.data`", _learner("awac", "mixed")),
    **{
        f"rllib_{name}": Method(f"RLlib's {name.upper()} on `policy.data`, a peer", _learner(f"rllib_{name}", "mixed"))
        for name in ("bc", "marwil", "cql", "iql")
    },
    **{
        f"{learner}_{data}": Method(f"{title} on {where}", _learner(learner, data))
        for learner, title in (("iql", "IQL"), ("bc", "behaviour cloning"), ("td3_bc", "TD3+BC"), ("awac", "AWAC"))
        for data, where in (
            ("target", "the target dataset alone"),
            ("source", "the source mix alone"),
            ("mixed", "source and target, half and half, unfiltered"),
        )
    },
}


def method_settings(name: str) -> dict[str, Any]:
    """The settings of a method. Raises ConfigError, naming all methods, when there is none of that name."""
    if name in METHODS:
        return METHODS[name].settings
    raise ConfigError(
        f"unknown method {name!r}",
        where="method",
        remedy="one of " + ", ".join(METHODS) + " (`v2a methods` says what each is)",
    )
