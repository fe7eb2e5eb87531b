"""Settings of a sweep file: a grid, a search over distributions, a scheduler, resources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, model_validator

from v2a_ray.settings.base import Name, Positive, Settings
from v2a_ray.settings.choices import Choices
from v2a_ray.settings.measures import OfflineMeasure

SCHEDULERS = Choices("kind", "fifo", "scheduler")
Bounds = tuple[float, float]
Direction = Literal["max", "min"]
Objective = Literal["normalized_score_mean", "return_mean", "data_kept", "rank_score", OfflineMeasure]
OBJECTIVES: tuple[str, ...] = get_args(Objective)
Objectives = dict[Objective, Direction]


def _score_alone() -> Objectives:
    return {"normalized_score_mean": "max"}


class Distribution(Settings):
    """The distribution of one setting: exactly one of these."""

    uniform: Bounds | None = None
    """Real numbers between the two bounds."""
    log_uniform: Bounds | None = None
    """Positive real numbers between the two bounds, with a uniform logarithm."""
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
    """`random` draws all values beforehand and uses each draw in every combination of the axes. `optuna` draws each
    trial given the scores of earlier ones (TPE), in one study per combination of the axes."""
    num_trials: Positive
    """Draws per combination of the axes."""
    seed: int = 0
    """Seed of the draws."""
    space: Annotated[dict[str, Distribution], Field(min_length=1)]
    """Maps a setting to its distribution, e.g. `policy.filter.keep_fraction: {uniform: [0.1, 1.0]}`."""
    objectives: Annotated[Objectives, Field(min_length=1)] = Field(default_factory=_score_alone)
    """Objectives of Optuna; with several, it searches for a Pareto front. Without a simulator the default is
    `rank_score`, the number that `offline.rank_by` names, with the sign by which more is better."""


class SchedulerConfig(Settings):
    """Early stopping of trials by comparing their evaluations with others of the same task. Settings of all kinds."""

    makes: ClassVar[str | Callable[..., Any]]
    """A function from a `Sweep` to a scheduler of Ray Tune, or its `module:function`."""
    compares: ClassVar[bool] = True
    """Whether it compares evaluations, trial by trial."""
    is_population: ClassVar[bool] = False
    """Whether trials copy each other."""
    kind: str
    """How trials are scheduled."""


@SCHEDULERS.add
class FIFOConfig(SchedulerConfig):
    """Trains all trials to their end."""

    makes = "v2a_ray.orchestration.sweep.schedulers:fifo"
    compares = False
    kind: Literal["fifo"] = "fifo"


@SCHEDULERS.add
class ASHAConfig(SchedulerConfig):
    """Stops the worse trials at every rung (asynchronous successive halving)."""

    makes = "v2a_ray.orchestration.sweep.schedulers:asha"
    kind: Literal["asha"] = "asha"
    grace_steps: Positive = 5000
    """Update steps before a trial may be stopped: the first rung."""
    reduction_factor: Annotated[int, Field(gt=1)] = 3
    """Factor between the steps of two rungs; one of this many trials continues to the next rung."""


@SCHEDULERS.add
class MedianConfig(SchedulerConfig):
    """Stops trials below the running median."""

    makes = "v2a_ray.orchestration.sweep.schedulers:median"
    kind: Literal["median"] = "median"
    grace_steps: Positive = 5000
    """Update steps before a trial may be stopped."""


@SCHEDULERS.add
class PopulationConfig(SchedulerConfig):
    """Worse trials copy better ones and perturb the settings of `search.space` (population-based training)."""

    makes = "v2a_ray.orchestration.sweep.schedulers:population"
    is_population = True
    kind: Literal["pbt"] = "pbt"
    grace_steps: Positive = 5000
    """Update steps between exchanges."""


class ResourcesConfig(Settings):
    """Resources of trials. The same file works on a laptop and on a node with eight GPUs."""

    gpus_per_trial: Annotated[float, Field(ge=0.0)] | Literal["auto"] = "auto"
    """GPUs per trial or batch of policies; fractions share a GPU. `auto`: a quarter if the cluster has, or may start,
    nodes with GPUs, else 0."""
    max_concurrent_trials: Positive | None = None
    """Maximum of trials or batches of policies at a time; by default as many as the cluster has room for at its
    largest."""
    max_retries: Annotated[int, Field(ge=0)] = 2
    """Restarts, from its checkpoint, of a trial whose process died. Lost nodes do not count."""


class SweepConfig(Settings):
    """A grid: one experiment per combination of the values of all axes; or a search on top of it."""

    name: Name
    """Names the results folder."""
    base: str | None = None
    """Experiment file below `settings`; relative to this file."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of every trial."""
    axes: dict[str, list[Any] | dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """Maps an axis to its values. A list varies the setting of the axis' name (`seed: [0, 1, 2]`,
    `policy.filter.keep_fraction: [0.25, 0.5]`); a mapping gives each value a label and its settings."""
    search: SearchConfig | None = None
    scheduler: Annotated[SchedulerConfig, SCHEDULERS] = FIFOConfig()
    resources: ResourcesConfig = ResourcesConfig()
    policies_per_trial: Positive | Literal["auto"] = "auto"
    """Policies that one process trains as one batch, if they differ only in seed, data and scalar settings of
    IQL. `auto`: at most 4, and few enough that every core gets a batch; 1 with a scheduler or Optuna, which decide
    trial by trial. Policies of a batch equal separate runs up to rounding; 1 gives bit-identical ones."""
    loggers: list[Literal["mlflow", "wandb"]] = Field(default_factory=list)
    """Where finished policies are logged beside TensorBoard, each as a run of its own; each needs its package and reads
    its environment variables (MLFLOW_TRACKING_URI, WANDB_API_KEY, WANDB_MODE, ...)."""

    @model_validator(mode="after")
    def _parts_fit_together(self) -> SweepConfig:
        if not self.axes and self.search is None:
            raise ValueError("there is nothing to vary: give it `axes`, or a `search`")
        algorithm = self.search.algorithm if self.search else None
        if self.search and len(self.search.objectives) > 1 and algorithm != "optuna":
            raise ValueError("search.objectives: several objectives need search.algorithm=optuna")
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
