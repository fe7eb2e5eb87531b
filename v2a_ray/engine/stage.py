"""What a stage declares: from what it is made, what computes it, and what that takes. All else loops over `STAGES`."""

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
    """One artifact that an experiment asks of a stage.

    Attributes:
        inputs: role to name of the node that it is made from; their keys are part of this one's.
        settings: what else is part of the key.
        rows: role to name of tables in another form, for which the table's own key stands.
        part: the source that it is about, of a stage that is computed for each source by itself.
    """

    inputs: Mapping[str, str]
    settings: Mapping[str, Any]
    rows: Mapping[str, str] = field(default_factory=dict)
    part: str | None = None


class Stage(ABC):
    """A kind of artifact that is trained. Its name is that of its section of an experiment and of its part of a store.

    Functions that compute it are named as `module:function` and imported when one is used: a plan needs no torch, and
    only the layer above has Ray.
    """

    name: ClassVar[str]
    fits: ClassVar[str]
    """Computes a request in one process, from a `Job`."""
    fits_parallel: ClassVar[str | None] = None
    """The same on the data-parallel workers of `num_workers`."""
    rows: ClassVar[Mapping[str, str]] = BOTH_ROWS
    """The tables whose rows it reads. Both move a stage that is fitted to one: they set the preprocessing."""
    is_result: ClassVar[bool] = False
    """Whether every experiment asks for it. The others are asked for by what is made from them."""

    @abstractmethod
    def inputs(self, config: ExperimentConfig) -> Mapping[str, str]:
        """Role to name of the nodes that it is made from."""

    def requests(self, config: ExperimentConfig) -> list[Request]:
        """What an experiment that needs it asks for, in the order in which that is computed."""
        settings = prepared(config) | {self.name: moving(self.section(config))}
        return [Request(self.inputs(config), settings, self.rows)]

    def costs(self, config: ExperimentConfig, tables: Tables) -> list[Cost] | None:
        """What computing a request takes; None when it depends on a table whose size is not known."""
        section = self.section(config)
        return [Cost(self.name, section.num_steps, layers(section))]

    def section(self, config: ExperimentConfig) -> TrainingConfig:
        """Its settings."""
        section: TrainingConfig = getattr(config, self.name)
        return section

    def seed(self, config: ExperimentConfig) -> int:
        """The seed of its key."""
        return config.upstream_seed

    def device(self, config: ExperimentConfig) -> DeviceName:
        """Where it is asked to compute."""
        return self.section(config).device

    def num_workers(self, config: ExperimentConfig) -> int:
        """Data-parallel workers."""
        return getattr(self.section(config), "num_workers", 1)

    def fit(self, config: ExperimentConfig) -> Callable[[Job], None]:
        """The function that computes a request."""
        owner = self.fit_owner(config)
        return imported(owner.fits_parallel if owner.fits_parallel and self.num_workers(config) > 1 else owner.fits)

    def fit_owner(self, config: ExperimentConfig) -> Any:
        """What names the functions `fits` and `fits_parallel`: the stage, or one of its settings."""
        return self


STAGES: dict[str, Stage] = {}
"""The trained stages by name, each after those that it may be made from; `v2a_ray.stages.registered` fills it."""


def artifact_kinds() -> list[str]:
    """The folders of a store: the tables, the trained stages, and diagnoses."""
    # A command that only looks at a store imports no stage.
    import_module("v2a_ray.stages.registered")
    return ["data", SOURCE, "rows", *STAGES, "diagnosis"]


def register_stage(stage: Stage) -> Stage:
    """Make a stage known by its name, and return it."""
    STAGES[stage.name] = stage
    return stage


def needed_stages(config: ExperimentConfig) -> list[Stage]:
    """The stages that an experiment asks for: its results, and what those are made from, directly or not."""
    waiting = [stage.name for stage in STAGES.values() if stage.is_result]
    names: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in STAGES and name not in names:
            names.add(name)
            waiting += [node.partition("/")[0] for node in STAGES[name].inputs(config).values()]
    return [stage for stage in STAGES.values() if stage.name in names]


def prepared(config: ExperimentConfig) -> dict[str, Any]:
    """Settings that move every stage which reads standardised rows."""
    common: dict[str, Any] = {"preprocessing": config.preprocessing.model_dump(mode="json")}
    if config.loading != LoadingConfig():
        common["loading"] = config.loading.model_dump(mode="json")
    return common


def layers(section: Any) -> float:
    """Arithmetic of networks with two hidden layers: the product between those decides."""
    return float(section.batch_size * section.width**2 * getattr(section, "num_members", 1))


def imported(function: str | Callable[..., Any]) -> Callable[..., Any]:
    """The function that `module:function` names; a function is itself."""
    found: Callable[..., Any] = import_named(function) if isinstance(function, str) else function
    return found
