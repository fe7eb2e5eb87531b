"""What the trials of a sweep are compared by: a score, a return, or what stands for them without a simulator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from v2a_ray.errors import ConfigError
from v2a_ray.experiments.sweep_config import Objectives, SearchConfig
from v2a_ray.settings.environment_names import is_recorded
from v2a_ray.settings.measures import OFFLINE_MEASURES, RANK_SCORE

if TYPE_CHECKING:
    from v2a_ray.experiments.sweep import Sweep, Trial


def default_objectives(search: SearchConfig | None, trials: Sequence[Trial]) -> Objectives:
    """What is asked for; by default the score, or what stands for it without a simulator."""
    if search and "objectives" in search.model_fields_set:
        return search.objectives
    offline = any(trial.config.is_offline for trial in trials)
    return {"rank_score": "max"} if offline else {"normalized_score_mean": "max"}


def require_evaluations(sweep: Sweep, path: Path) -> None:
    """Schedulers and searches compare evaluations: there have to be some, of trials that may be compared."""
    scheduler = sweep.config.scheduler
    # It imports MuJoCo, which settings that are refused before need not wait for.
    from v2a_ray.domains import parse_domain, references

    targets = dict.fromkeys(trial.config.target.domain for trial in sweep.trials)
    unscored = [name for name in targets if not is_recorded(name) and references(parse_domain(name)) is None]
    ranks = scheduler.compares or sweep.config.search
    if ranks:
        _require_known(sweep, path)
    if ranks and unscored and sweep.objective[0].startswith("normalized"):
        raise ConfigError(
            f"trials are ranked by their normalised score, and {unscored[0]} has no references",
            where=f"{path} · search.objectives",
            remedy="{return_mean: max}, or give it its references, the returns of a random and an expert policy",
        )
    if not scheduler.compares:
        return
    if any(trial.config.evaluation.interval_steps == 0 for trial in sweep.trials):
        raise ConfigError(
            f"scheduler.kind={scheduler.kind} compares evaluations, and there is none before the end",
            where=f"{path} · evaluation.interval_steps",
            remedy="set it to a fraction of policy.num_steps",
        )
    rllib = [trial.config.policy.learner for trial in sweep.trials if trial.config.policy.uses_rllib]
    draws = sweep.config.search.num_trials if sweep.config.search else 0
    if scheduler.is_population and (rllib or len(sweep.trials) > draws):
        raise ConfigError(
            f"a population cannot take in policy.learner={rllib[0]}" if rllib else "a population is of one task",
            where=f"{path} · scheduler.kind",
            remedy="give every axis one value, and choose a learner of ours",
        )


def _require_known(sweep: Sweep, path: Path) -> None:
    """Raise ConfigError for an objective that some of the trials' evaluations do not have."""
    of_simulators = [name for name in sweep.objectives if name in ("normalized_score_mean", "return_mean")]
    offline = [name for name in sweep.objectives if name == RANK_SCORE or name in OFFLINE_MEASURES]
    for trial in sweep.trials:
        wrong = of_simulators if trial.config.is_offline else offline
        if wrong:
            target, kind = trial.config.target.domain, "no" if trial.config.is_offline else "a"
            raise ConfigError(
                f"{wrong[0]} is asked for, and the target {target} has {kind} simulator",
                where=f"{path} · search.objectives",
                remedy=f"one of {', '.join((RANK_SCORE, *OFFLINE_MEASURES))}"
                if trial.config.is_offline
                else "normalized_score_mean or return_mean; a sweep has targets of one kind",
            )
