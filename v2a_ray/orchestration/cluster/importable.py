"""Checks that nodes can import what experiments name: environments, plugin files, plugins of installed packages."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from v2a_ray.domains import make_environment
from v2a_ray.errors import ConfigError, DomainError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.plugins import has_installed, load_installed, load_shipped, sources_of
from v2a_ray.orchestration.cluster.join import first_line, on_every_node
from v2a_ray.settings.environment_names import is_environment
from v2a_ray.settings.yaml_files import validate


@dataclass(frozen=True)
class Named:
    """What experiments name that a node has to import.

    Attributes:
        environments: domains that are environments of their own, where they are simulated.
        plugins: path of each plugin file to its content, which travels; what it imports has to be there.
        settings: one experiment of each combination of kinds, if plugins of packages are installed here: a node without
            the package refuses its kinds.
    """

    environments: tuple[str, ...] = ()
    plugins: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def by(cls, configs: Iterable[ExperimentConfig]) -> Named:
        """What these experiments name."""
        environments, plugins, settings = set[str](), set[str](), dict[tuple[str, ...], ExperimentConfig]()
        for config in configs:
            specs = [config.target, *(spec for spec in config.sources if spec.path is None)]
            environments |= {spec.domain for spec in specs if is_environment(spec.domain)}
            plugins |= set(config.plugins)
            if has_installed():
                settings.setdefault(_kinds(config), config)
        return cls(
            tuple(sorted(environments)),
            sources_of(sorted(plugins)),
            tuple(config.model_dump(mode="json") for config in settings.values()),
        )


def _kinds(config: ExperimentConfig) -> tuple[str, ...]:
    chosen = config.alignment.kind, config.advantage.kind, config.policy.learner, config.policy.filter.rule
    return (config.method, *chosen, config.modality.encoder, config.target.domain)


def require_importable(named: Named, nodes: Collection[str] | None = None) -> None:
    """Raise DomainError or ConfigError unless every node, or those with the identities `nodes`, can import all."""
    if named == Named():
        return
    for node, answer in on_every_node(_problem, named, nodes=nodes).items():
        where = f"node {node}"
        if isinstance(answer, Exception):
            raise DomainError(f"cannot be asked: {first_line(answer)}", where=where, remedy=_REMEDY) from answer
        if answer:
            kind, what = answer
            raise {"domain": DomainError, "plugin": ConfigError}[kind](what, where=where, remedy=_REMEDY)


_REMEDY = "install the environment's or plugin's package on every node"


def _problem(named: Named) -> tuple[str, str] | None:
    """Runs on a node: of what kind and what is the first thing that cannot be imported there."""
    try:
        load_installed()
        load_shipped(named.plugins)
        for raw in named.settings:
            validate(ExperimentConfig, raw)
        for name in named.environments:
            make_environment(name).close()
    except DomainError as error:
        return "domain", str(error)
    except ConfigError as error:
        return "plugin", str(error)
    return None
