"""What a sweep file may say: a grid, a search over distributions, a scheduler, resources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from v2a_ray.settings.base import Name, Positive, Settings
from v2a_ray.settings.choices import Choices

SCHEDULERS = Choices("kind", "fifo", "scheduler")
Bounds = tuple[float, float]
Direction = Literal["max", "min"]
Objective = Literal["normalized_score_mean", "return_mean", "data_kept"]


def _score_alone() -> dict[Objective, Direction]:
    return {"normalized_score_mean": "max"}


class Distribution(Settings):
    """What one setting is drawn from: exactly one of these."""

    uniform: Bounds | None = None
    """Real numbers between the two."""
    log_uniform: Bounds | None = None
    """Positive real numbers between the two, equally many of every magnitude."""
    int_uniform: tuple[int, int] | None = None
    """Integers from the first to the last."""
    choice: Annotated[list[bool | int | float | str], Field(min_length=1)] | None = None
    """One of the values."""

    @model_validator(mode="after")
    def _is_one(self) -> Distribution:
        named = {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}
        if len(named) != 1:
            raise ValueError("give exactly one of uniform, log_uniform, int_uniform, choice")
        ((name, value),) = named.items()
        if name != "choice" and not value[0] < value[1]:
            raise ValueError(f"{name} needs [low, high] with low < high")
        if name == "log_uniform" and value[0] <= 0:
            raise ValueError("log_uniform needs positive bounds")
        return self

    @property
    def bounds(self) -> Bounds | None:
        """Low and high; None for a choice."""
        return self.uniform or self.log_uniform or self.int_uniform

    @property
    def examples(self) -> list[Any]:
        """Every value of a choice, or both ends."""
        return list(self.choice or self.bounds or ())


class SearchConfig(Settings):
    """Settings that are drawn instead of listed."""

    algorithm: Literal["random", "optuna"] = "random"
    """`random` draws all trials beforehand, each for every combination of the axes. `optuna` draws each given the
    scores of those before it (TPE), in a study of its own per combination of the axes."""
    num_trials: Positive
    """Draws per combination of the axes."""
    seed: int = 0
    """Of the draws."""
    space: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Setting to distribution, e.g. `policy.filter.keep_fraction: {uniform: [0.1, 1.0]}`."""
    objectives: Annotated[dict[Objective, Direction], Field(min_length=1)] = Field(default_factory=_score_alone)
    """What Optuna optimises; several give it a Pareto front to find."""


class SchedulerConfig(Settings):
    """Whether trials may end early, compared at their evaluations with others of the same task. What all kinds have."""

    makes: ClassVar[str | Callable[..., Any]]
    """From a `Sweep` to a scheduler of Ray Tune, or `module:function` of one."""
    compares: ClassVar[bool] = True
    """Whether it looks at evaluations, trial by trial."""
    is_population: ClassVar[bool] = False
    """Whether trials copy each other."""
    kind: str
    """How trials are scheduled."""


@SCHEDULERS.add
class FIFOConfig(SchedulerConfig):
    """Trains all to their end."""

    makes = "v2a_ray.orchestration.sweep.schedulers:fifo"
    compares = False
    kind: Literal["fifo"] = "fifo"


@SCHEDULERS.add
class ASHAConfig(SchedulerConfig):
    """Ends the worse of every rung (asynchronous successive halving)."""

    makes = "v2a_ray.orchestration.sweep.schedulers:asha"
    kind: Literal["asha"] = "asha"
    grace_steps: Positive = 5000
    """Update steps before a trial may be ended: the first rung."""
    reduction_factor: Annotated[int, Field(gt=1)] = 3
    """One in so many goes on from a rung to the next, which is so many times as long."""


@SCHEDULERS.add
class MedianConfig(SchedulerConfig):
    """Ends those below the running median."""

    makes = "v2a_ray.orchestration.sweep.schedulers:median"
    kind: Literal["median"] = "median"
    grace_steps: Positive = 5000
    """Update steps before a trial may be ended."""


@SCHEDULERS.add
class PopulationConfig(SchedulerConfig):
    """Lets the worse copy the better and varies what `search.space` names (population-based training)."""

    makes = "v2a_ray.orchestration.sweep.schedulers:population"
    is_population = True
    kind: Literal["pbt"] = "pbt"
    grace_steps: Positive = 5000
    """Update steps between exchanges."""


class ResourcesConfig(Settings):
    """What trials may use; a laptop and a node with eight GPUs read the same file."""

    gpus_per_trial: Annotated[float, Field(ge=0.0)] | Literal["auto"] = "auto"
    """GPUs of one trial, or pack of them; fractions share one. `auto`: a quarter where the cluster has, or may start,
    nodes with GPUs, else 0."""
    max_concurrent_trials: Positive | None = None
    """Trials, or packs of them, at a time; by default as many as the cluster has room for at its largest."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial whose process died is started again, from its checkpoint. Lost nodes do not count."""


class SweepConfig(Settings):
    """A grid: one experiment per combination of the values of all axes; or a search on top of it."""

    name: Name
    """Names the results folder."""
    base: str | None = None
    """Experiment file that `settings` are laid over; relative to this file."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of every trial."""
    axes: dict[str, list[Any] | dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """Axis to values. A list varies the setting that the axis is named after (`seed: [0, 1, 2]`,
    `policy.filter.keep_fraction: [0.25, 0.5]`); a mapping gives each value a label and the settings it lays over."""
    search: SearchConfig | None = None
    scheduler: Annotated[SchedulerConfig, SCHEDULERS] = FIFOConfig()
    resources: ResourcesConfig = ResourcesConfig()
    policies_per_trial: Positive | Literal["auto"] = "auto"
    """Policies that one process trains as one batched program, if they differ in seed and scalar settings of IQL alone.
    `auto`: as many as leave every core a pack, at most 4; 1 where a scheduler or Optuna decides trial by trial. A
    pack's policies are those of separate runs up to rounding; 1 makes them so to the bit."""
    loggers: list[Literal["mlflow", "wandb"]] = Field(default_factory=list)
    """Ray Tune's own callbacks beside TensorBoard; each needs its package and reads its environment variables."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> SweepConfig:
        if not self.axes and self.search is None:
            raise ValueError("there is nothing to vary: give it `axes`, or a `search`")
        algorithm = self.search.algorithm if self.search else None
        if self.search and len(self.search.objectives) > 1 and algorithm != "optuna":
            raise ValueError("search.objectives: several need search.algorithm=optuna")
        if self.search and len(self.search.objectives) > 1 and self.scheduler.compares:
            raise ValueError(f"scheduler.kind={self.scheduler.kind} compares one objective; search.objectives has more")
        if self.scheduler.is_population and algorithm != "random":
            raise ValueError(
                f"scheduler.kind={self.scheduler.kind} needs search.algorithm=random: its population and what it varies"
            )
        one_by_one = self.scheduler.compares or algorithm == "optuna"
        if one_by_one and self.policies_per_trial not in (1, "auto"):
            raise ValueError("policies_per_trial: a scheduler and Optuna decide trial by trial; leave it at 1")
        return self

    @property
    def objective(self) -> tuple[str, str]:
        """What schedulers compare, and `max` or `min`."""
        return next(iter((self.search.objectives if self.search else _score_alone()).items()))
