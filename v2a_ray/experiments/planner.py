"""Plans the trials of a sweep. Most of them share their data, which are checked, planned and held in memory once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from v2a_ray.data.config import ExperimentData
from v2a_ray.engine.stores import store_address
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import require_domains
from v2a_ray.settings.yaml_files import validate

if TYPE_CHECKING:
    from v2a_ray.engine.plan import Node

DATA = frozenset({*ExperimentData.model_fields, "offline"})
"""What determines the tables of an experiment."""


class Planner:
    """Validates and plans experiments, and remembers those that differ in their data."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[dict[str, Any], dict[str, Node]]] = {}
        """The data's settings as JSON to the same as objects, and the nodes of their tables."""

    def plan(self, raw: Mapping[str, Any]) -> tuple[ExperimentConfig, dict[str, Node]]:
        """The experiment of some settings, with absolute folders, and its plan.

        Raises:
            ConfigError, DomainError, DataError: as `reading.resolve` and `plan.make_plan`.
        """
        config = validate(ExperimentConfig, raw)
        config = config.model_copy(update={"store": store_address(config.store)})
        data = config.model_dump_json(include=set(DATA))
        if data not in self._known:
            require_domains(config)
            # It imports MuJoCo and Arrow, which settings that are refused need not wait for.
            from v2a_ray.engine.plan import plan_tables

            self._known[data] = {name: getattr(config, name) for name in DATA}, plan_tables(config)
        from v2a_ray.engine.plan import make_plan

        shared, tables = self._known[data]
        config = config.model_copy(update=shared)
        return config, make_plan(config, tables)
