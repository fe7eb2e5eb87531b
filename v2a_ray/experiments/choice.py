"""Choosing between a filter and plain mixing without a simulator: what is trained.

No method is best with every target (docs/study.md): a filter helps where the target can judge the source, and throws
away what is needed where the target is too bad or too small for that. So both are trained, and critics that are fitted
to target and source decide (`v2a_ray.export.choice`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from v2a_ray.experiments.sweep import Sweep, make_sweep, with_base
from v2a_ray.experiments.sweep_config import SweepConfig
from v2a_ray.settings.shipped import config_path
from v2a_ray.settings.yaml_files import parse_overrides, validate

FILTER, MIX = "v2a_supported", "iql_mixed"
CRITIC_STEPS = 2000
"""Update steps of the critics with which choosing was measured."""


def choice_sweep(path: Path, overrides: Sequence[str] = ()) -> Sweep:
    """The two methods on the experiment in a file, as a sweep called NAME-choice. Raises ConfigError."""
    path = config_path(path)
    over = parse_overrides(overrides)
    content, notices = with_base({"base": str(path.absolute()), "axes": {"method": [FILTER, MIX]}}, path)
    name = over.pop("name", content["settings"].get("name", path.stem))
    config = validate(SweepConfig, {**content, "name": f"{name}-choice"}, path, over=over)
    return make_sweep(config, path, over, notices)
