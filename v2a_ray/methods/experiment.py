"""From a YAML file and overrides to one complete, validated experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from v2a_ray.config import ExperimentConfig
from v2a_ray.domains import parse_domain
from v2a_ray.errors import ConfigError, DomainError
from v2a_ray.methods.registry import method_settings
from v2a_ray.settings import merge, parse_overrides, read_yaml, validate


def load_experiment(path: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The experiment in a YAML file with `key.path=value` overrides. Raises ConfigError or DomainError."""
    raw = merge(read_yaml(path), parse_overrides(overrides))
    return resolve(raw, path)


def resolve(raw: Mapping[str, Any], path: Path | None = None) -> ExperimentConfig:
    """Lay `raw` over what its method sets, fill in the defaults, and check that every domain exists."""
    method = raw.get("method", ExperimentConfig.model_fields["method"].default)
    if not isinstance(method, str):
        raise ConfigError(f"method: expected a name, got {method!r}", where=str(path or ""))
    config = validate(ExperimentConfig, merge(method_settings(method), raw), path)
    specs = {"target": config.target, **{f"sources.{index}": spec for index, spec in enumerate(config.sources)}}
    robots = {}
    for key, spec in specs.items():
        try:
            robots[key] = parse_domain(spec.domain).robot
        except DomainError as error:
            raise DomainError(error.what, where=f"{path or 'settings'} · {key}.domain", remedy=error.remedy) from None
    for key, robot in robots.items():
        if robot != robots["target"]:
            raise ConfigError(
                f"{key} is a {robot}, the target is a {robots['target']}",
                where=f"{path or 'settings'} · {key}.domain",
                remedy="all sources and the target must be the same robot",
            )
    return config
