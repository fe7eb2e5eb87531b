"""Reads one complete, validated experiment from a YAML file and overrides.

Importing this module is fast: MuJoCo is loaded only after the settings were validated, to look up domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from v2a_ray.data.config import DataSpec, SourceSpec
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.engine.stores import open_store
from v2a_ray.errors import ConfigError, DomainError
from v2a_ray.experiments.definition import lay_over, with_new_names
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.plugins import load_files, load_installed, located
from v2a_ray.imports import require_package
from v2a_ray.settings.base import TrainingConfig
from v2a_ray.settings.shipped import config_path
from v2a_ray.settings.yaml_files import parse_overrides, read_yaml, validate

if TYPE_CHECKING:
    from v2a_ray.domains import Domain
    from v2a_ray.engine.plan import Node

Notify = Callable[[str], None]


def load_experiment(path: Path, overrides: Sequence[str] = (), notify: Notify = lambda text: None) -> ExperimentConfig:
    """The experiment in a YAML file with `key.path=value` overrides. Raises ConfigError or DomainError.

    `notify` is called with the settings of the file that were dropped because the overrides choose another method.
    """
    config = read_experiment(path, overrides, notify)
    require_domains(config, path)
    require_packages(config)
    return config


def read_experiment(path: Path, overrides: Sequence[str] = (), notify: Notify = lambda text: None) -> ExperimentConfig:
    """As `load_experiment`, without the slow lookup of domains. Raises ConfigError."""
    path = config_path(path)
    over = with_plugins(renamed(parse_overrides(overrides), "command line", notify), Path("command line"))
    raw, dropped = lay_over(with_plugins(renamed(read_yaml(path), str(path), notify), path), over)
    if dropped:
        notify(dropped_settings(path, over, dropped))
    return validate(ExperimentConfig, raw, path, over=over)


def with_plugins(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Load the plugins of settings, and make their paths absolute. Raises ConfigError if one cannot be loaded."""
    load_installed()
    plugins = raw.get("plugins")
    if not isinstance(plugins, list) or not all(isinstance(each, str) for each in plugins):
        return dict(raw)
    found = located(plugins, path)
    load_files(found)
    return {**raw, "plugins": found}


def renamed(settings: Mapping[str, Any], where: str, notify: Notify) -> dict[str, Any]:
    """Settings under their present names; `notify` is called for old names."""
    content, notices = with_new_names(settings)
    for text in notices:
        notify(f"{where}: {text}")
    return content


def dropped_settings(path: Path, over: Mapping[str, Any], dropped: Mapping[str, Any]) -> str:
    """A notice on settings of a file that were dropped because another method or kind was chosen."""
    named = ", ".join(f"{key}={value}" for key, value in dropped.items())
    if "method" in over:
        return f"{path}: {named} belong to the file's own method; left out for {over['method']}"
    return f"{path}: {named} are settings of another kind than the chosen one; left out"


def store_of(config: ExperimentConfig) -> ArtifactStore:
    """The artifact store of a configuration: `store`, or $V2A_STORE, or `runs/artifacts` in the current folder."""
    return open_store(config.store)


def missing_nodes(store: ArtifactStore, plan: Mapping[str, Node]) -> list[Node]:
    """The nodes of a plan that are missing or damaged in the store."""
    with store.surveyed([(node.stage, node.key) for node in plan.values()]):
        return [node for node in plan.values() if store.find(node.stage, node.key) is None]


def resolve(raw: Mapping[str, Any], path: Path | None = None) -> ExperimentConfig:
    """Merge `raw` into its method's settings, fill in the defaults, and check that every domain exists."""
    config = validate(ExperimentConfig, raw, path)
    require_domains(config, path)
    return config


def require_domains(config: ExperimentConfig, path: Path | None = None) -> None:
    """Raise DomainError or ConfigError unless every domain and behaviour exists and all have the same robot."""
    specs: dict[str, DataSpec] = {"target": config.target}
    specs |= {f"sources.{index}": spec for index, spec in enumerate(config.sources)}
    from v2a_ray.data.mixing.dimension_maps import is_mapped, require_maps
    from v2a_ray.domains.behaviors import same_robot

    target = _existing("target", config.target, path)
    for key, spec in specs.items():
        domain, where = _existing(key, spec, path), f"{path or 'settings'} · {key}"
        if isinstance(spec, SourceSpec) and is_mapped(spec):
            require_maps(spec, domain.robot_spec, target.robot_spec, where)
        elif not same_robot(domain, target):
            raise ConfigError(
                f"{key} is a {_sized(domain, target)}, the target is a {_sized(target, domain)}",
                where=f"{where}.domain",
                remedy="all sources and the target must be the same robot, or environments of the same dimensions; "
                "observation_map and action_map of a source lead to the target's",
            )


def require_packages(config: ExperimentConfig) -> None:
    """Raise ConfigError unless the packages that computing this experiment imports are installed."""
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, TrainingConfig) and section.needs_package is not None:
            require_package(*section.needs_package, where=name)


def _sized(domain: Domain, other: Domain) -> str:
    """A robot's name, with its dimensions if they differ from the other's."""
    one, its = domain.robot_spec, other.robot_spec
    if (one.observation_dim, one.action_dim) == (its.observation_dim, its.action_dim):
        return domain.robot
    return f"{domain.robot} ({one.observation_dim} observations, {one.action_dim} actions)"


def require_behavior(spec: DataSpec) -> None:
    """Raise DomainError unless the policies to roll out exist and can act in the domain."""
    from v2a_ray.domains import parse_domain
    from v2a_ray.domains.behaviors import behavior_components, load_behavior, require_same_robot

    policy_domain = parse_domain(spec.policy_domain or spec.domain)
    require_same_robot(policy_domain, parse_domain(spec.domain))
    for component, _ in behavior_components(policy_domain, spec.behavior):
        load_behavior(policy_domain, component)


def _existing(key: str, spec: DataSpec, path: Path | None) -> Domain:
    """The domain of a specification. Raises DomainError if it, or a behaviour to roll out in it, does not exist."""
    from v2a_ray.domains import parse_domain

    try:
        domain = parse_domain(spec.domain)
        if spec.path is None:
            require_behavior(spec)
    except DomainError as error:
        where = f"{path or 'settings'} · {key}" + (f" · {error.where}" if error.where else "")
        raise DomainError(error.what, where=where, remedy=error.remedy) from None
    return domain
