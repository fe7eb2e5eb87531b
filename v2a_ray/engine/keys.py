"""What of a section of settings is part of an artifact's key: all that moves its numbers, and nothing else."""

from __future__ import annotations

import math
from typing import Any

from v2a_ray.settings.base import Settings
from v2a_ray.stages.policy.config import FilterConfig, PolicyConfig
from v2a_ray.stages.sections import AdvantageConfig, AlignmentConfig, ModalityConfig

BOOKKEEPING = frozenset({"checkpoint_interval_steps", "log_interval_steps", "device", "cuda_graph"})
"""How often a stage reports and saves does not move its numbers, and where it computes moves them as a seed would:
`device: auto` means another one on every machine, and an artifact has to be found on all of them."""
LATER: dict[type[Settings], dict[str, Any]] = {
    ModalityConfig: {
        "encoder": "gru",
        "patience_evaluations": None,
        "min_improvement": 0.05,
        "validation_fraction": 0.1,
        "validation_interval_steps": 100,
        "mode": "shared",
    },
    AdvantageConfig: {"latent": "learned", "expectile": 0.7},
    AlignmentConfig: {
        "contrastive_score": "cosine",
        "noise_std": 1.0,
        "log_ratio_clip": 10.0,
        "block_transitions": 10000,
        "regularization": 0.05,
        "max_iterations": 1000,
        "max_target_transitions": 20000,
        "fit_dynamics_to": "target",
        "density_latent_dim": 16,
        "density_samples": 8,
        "high_value_fraction": 0.5,
    },
    FilterConfig: {"normalization": "batch", "normalize_alignment": False, "weight_threshold": math.log(0.01)},
    PolicyConfig: {
        "num_workers": 1,
        "reward_correction": 0.0,
        "reward_correction_data": "source",
        "density_weight": 0.0,
        "correct_transitions": False,
    },
}
"""Settings that came after the first artifacts, with the value that says what was done before there was a choice. At
that value a setting is no part of a key, so that a new choice renews nothing that was computed without it. The value is
written down here and not taken from the defaults: a default may change, what a key means may not."""


def moving(settings: Settings, unread: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The settings that can move a stage's numbers: not those of bookkeeping, nor those that nothing reads."""
    return _without_later(settings, settings.model_dump(mode="json", exclude=set(BOOKKEEPING | unread)))


def _without_later(settings: Settings, content: dict[str, Any]) -> dict[str, Any]:
    """`content`, a dump of `settings`, without what `LATER` names and is at the value given there."""
    left_out = {name for name, value in LATER.get(type(settings), {}).items() if getattr(settings, name) == value}
    inner = {name: value for name, value in settings if isinstance(value, Settings)}
    return {
        name: _without_later(inner[name], value) if name in inner else value
        for name, value in content.items()
        if name not in left_out
    }
