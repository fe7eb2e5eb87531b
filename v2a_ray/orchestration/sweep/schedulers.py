"""Ray Tune's schedulers for a sweep, which may end trials early. They compare the first objective at equal steps."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from v2a_ray.engine.stage import imported
from v2a_ray.experiments.sweep import Sweep
from v2a_ray.experiments.sweep_config import ASHAConfig, MedianConfig, PopulationConfig
from v2a_ray.orchestration.sweep.population import clipped, mutations


def make_scheduler(sweep: Sweep) -> TrialScheduler:
    """The scheduler that a sweep's file chooses."""
    scheduler: TrialScheduler = imported(type(sweep.config.scheduler).makes)(sweep)
    return scheduler


class PerTask(FIFOScheduler):
    """One scheduler per task: a trial is compared only with trials of the same task.

    Scores of different mixes and robots are not comparable; a single scheduler would end every trial of a hard task.
    """

    def __init__(self, schedulers: Mapping[str, TrialScheduler], tasks: Sequence[str]) -> None:
        """`tasks` holds the task of each of the sweep's trials, by number."""
        super().__init__()
        self.schedulers, self.tasks = dict(schedulers), list(tasks)

    def _of(self, trial: Any) -> TrialScheduler:
        return self.schedulers[self.tasks[trial.config["trials"][0]]]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """See `TrialScheduler` for this and the following methods."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        action: str = self._of(trial).on_trial_result(tune_controller, trial, result)
        return action

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)


def fifo(sweep: Sweep) -> TrialScheduler:
    """Train all trials to their end."""
    return FIFOScheduler()


def asha(sweep: Sweep) -> TrialScheduler:
    """Successive halving, task by task."""
    config = sweep.config.scheduler
    assert isinstance(config, ASHAConfig)
    metric, mode = sweep.objective

    def make(num_steps: int) -> TrialScheduler:
        return ASHAScheduler(
            time_attr="step",
            metric=metric,
            mode=mode,
            max_t=num_steps,
            grace_period=min(config.grace_steps, num_steps),
            reduction_factor=config.reduction_factor,
        )

    return per_task(sweep, make)


def median(sweep: Sweep) -> TrialScheduler:
    """The median rule, task by task."""
    config = sweep.config.scheduler
    assert isinstance(config, MedianConfig)
    metric, mode = sweep.objective
    return per_task(
        sweep,
        lambda _: MedianStoppingRule(time_attr="step", metric=metric, mode=mode, grace_period=config.grace_steps),
    )


def population(sweep: Sweep) -> TrialScheduler:
    """Population-based training."""
    config, search = sweep.config.scheduler, sweep.config.search
    assert isinstance(config, PopulationConfig) and search is not None
    metric, mode = sweep.objective
    random.seed(search.seed)  # Tune's exchanges draw from Python's generator
    return PopulationBasedTraining(
        time_attr="step",
        metric=metric,
        mode=mode,
        perturbation_interval=config.grace_steps,
        hyperparam_mutations={"member": {"values": mutations(search)}},
        custom_explore_fn=clipped(search),
        # Exchange when all members are at the same step; otherwise exchanges would depend on the speed of cores.
        synch=True,
        log_config=False,
        require_attrs=False,
    )


def per_task(sweep: Sweep, make: Callable[[int], TrialScheduler]) -> TrialScheduler:
    """A scheduler for each task, made from the update steps of its longest trial."""
    tasks = [trial.task for trial in sweep.trials]
    longest = {
        task: max(trial.config.policy.num_steps for trial in sweep.trials if trial.task == task) for task in set(tasks)
    }
    return PerTask({task: make(num_steps) for task, num_steps in longest.items()}, tasks)
