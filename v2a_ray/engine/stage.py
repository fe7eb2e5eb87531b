"""Declares stages: their inputs, the functions that compute them, and their cost. Other code loops over `STAGES`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from v2a_ray.data.config import TARGET_LABEL, LoadingConfig
from v2a_ray.engine.keys import moving
from v2a_ray.engine.rates import Cost, Tables
from v2a_ray.imports import import_named
from v2a_ray.settings.base import DeviceName, TrainingConfig

if TYPE_CHECKING:
    from v2a_ray.engine.context import Job
    from v2a_ray.experiments.experiment import ExperimentConfig

SOURCE = "source"
TABLES = {SOURCE: SOURCE, TARGET_LABEL: f"data/{TARGET_LABEL}"}
SOURCE_ROWS = {"source_rows": "rows/source"}
BOTH_ROWS = SOURCE_ROWS | {"target_rows": "rows/target"}


@dataclass(frozen=True)
class Request:
    """One artifact that an experiment needs from a stage.

    Attributes:
        inputs: maps a role to the name of an input node; the inputs' keys are part of this key.
        settings: the other content of the key.
        rows: maps a role to the name of a `rows` node; the key already contains the table of the rows.
        part: the label of the source, for a stage that is computed per source.
    """

    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: Mapping[str, str] = field(default_factory=dict)
    part: str | None = None


class Stage(ABC):
    """A kind of trained artifact. Its section in an experiment and its folder in a store have its name.

    Functions that compute it are named as `module:function` and imported when used, because a plan needs no torch, and
    only the layer above may import Ray.
    """

    name: ClassVar[str]
    fits: ClassVar[str]
    """Computes a request in one process, from a `Job`."""
    fits_parallel: ClassVar[str | None] = None
    """The same on `num_workers` data-parallel workers."""
    rows: ClassVar[Mapping[str, str]] = BOTH_ROWS
    """The `rows` nodes that it reads. Both tables affect every stage, because the preprocessing depends on both."""
    is_result: ClassVar[bool] = False
    """Whether every experiment needs it. Other stages are needed only as inputs."""

    @abstractmethod
    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """Maps roles to the names of its input nodes."""

    def requests(self, config: ExperimentConfig) -> list[Request]:
        """The artifacts that an experiment needs from it, in the order of computation."""
        settings = prepared(config) | {self.name: moving(self.section(config))}
        return [Request(self.inputs(config), settings, self.rows)]

    def costs(self, config: ExperimentConfig, tables: Tables) -> list[Cost] | None:
        """The cost of its artifacts; None if it depends on a table of unknown size."""
        section = self.section(config)
        return [Cost(self.name, section.num_steps, layers(section))]

    def section(self, config: ExperimentConfig) -> TrainingConfig:
        """Its section of the settings."""
        section: TrainingConfig = getattr(config, self.name)
        return section

    def seed(self, config: ExperimentConfig) -> int:
        """The seed in its key."""
        return config.upstream_seed

    def device(self, config: ExperimentConfig) -> DeviceName:
        """Its setting `device`."""
        return self.section(config).device

    def num_workers(self, config: ExperimentConfig) -> int:
        """Number of data-parallel workers."""
        return getattr(self.section(config), "num_workers", 1)

    def fit(self, config: ExperimentConfig) -> Callable[[Job], None]:
        """The function that computes a request."""
        owner = self.fit_owner(config)
        return imported(owner.fits_parallel if owner.fits_parallel and self.num_workers(config) > 1 else owner.fits)

    def fit_owner(self, config: ExperimentConfig) -> Any:
        """The object with the attributes `fits` and `fits_parallel`: the stage, or its section of the settings."""
        return self


STAGES: dict[str, Stage] = {}
"""The trained stages by name, each after its possible inputs; `v2a_ray.stages.registered` fills it."""


def artifact_kinds() -> list[str]:
    """The folders of a store: the tables, the trained stages, and diagnoses."""
    # Imported here for commands that only inspect a store.
    import_module("v2a_ray.stages.registered")
    return ["data", SOURCE, "rows", *STAGES, "diagnosis"]


def register_stage(stage: Stage) -> Stage:
    """Register a stage under its name, and return it."""
    STAGES[stage.name] = stage
    return stage


def needed_stages(config: ExperimentConfig) -> list[Stage]:
    """The stages that an experiment needs: its results and their direct and indirect inputs."""
    waiting = [stage.name for stage in STAGES.values() if stage.is_result]
    names: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in STAGES and name not in names:
            names.add(name)
            waiting += [node.partition("/")[0] for node in STAGES[name].inputs(config).values()]
    return [stage for stage in STAGES.values() if stage.name in names]


def prepared(config: ExperimentConfig) -> dict[str, Any]:
    """Settings that affect every stage that reads preprocessed rows."""
    common: dict[str, Any] = {"preprocessing": config.preprocessing.model_dump(mode="json")}
    if config.loading != LoadingConfig():
        common["loading"] = config.loading.model_dump(mode="json")
    return common


def layers(section: Any) -> float:
    """Arithmetic of networks with two hidden layers, which the product between these layers dominates."""
    return float(section.batch_size * section.width**2 * getattr(section, "num_members", 1))


def imported(function: str | Callable[..., Any]) -> Callable[..., Any]:
    """Import the function named by `module:function`; a function is returned unchanged."""
    found: Callable[..., Any] = import_named(function) if isinstance(function, str) else function
    return found
