"""The work of a Tune trial: one policy, a batch of compatible policies, or Ray Train's workers of a policy.

A trial gets numbers, never data or object references; the progress actor tells the settings for a number. Its results
are artifacts, so a restarted trial finds its finished policies and continues the others from their checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import ray
from ray import tune

from v2a_ray.engine.trainer import Metrics, Progress
from v2a_ray.errors import StorageError, V2AError
from v2a_ray.experiments.planner import Planner
from v2a_ray.experiments.plugins import load_shipped
from v2a_ray.experiments.reading import store_of
from v2a_ray.experiments.sweep import Trial, suggested
from v2a_ray.experiments.sweep_config import OBJECTIVES
from v2a_ray.files import parse_json, read_json
from v2a_ray.orchestration.cluster.gpus import stage_workers
from v2a_ray.orchestration.cluster.join import require_code
from v2a_ray.orchestration.sweep.retries import GIVEN_UP
from v2a_ray.orchestration.train.compute import make_policies, make_stage
from v2a_ray.orchestration.train.progress_actor import reporter
from v2a_ray.orchestration.train.work import Work, input_paths
from v2a_ray.settings.measures import RANK_SCORE

REPORT_SECONDS = 2.0
"""One actor hears all trials: with a report every 100 update steps, it would be the first part to be overrun."""


def train_trial(settings: dict[str, Any]) -> None:
    """Tune's trainable: the policies of the trials with the numbers `trials`, or of a suggestion for the first trial.

    Users' errors are reported as `failed`, because a second attempt would fail too; Tune retries after other errors.
    """
    trials = trials_of(settings)
    if GIVEN_UP in settings:
        for trial in trials:
            tune.report({"policy": trial.plan["policy"].key, "failed": settings[GIVEN_UP]})
        return
    store = store_of(trials[0].config)
    works = [Work(trial.config, trial.plan, trial.plan["policy"]) for trial in trials]
    progress = [_progress(settings["progress_actor"], trial) for trial in trials]
    errors: Sequence[V2AError | None] = [None]
    try:
        if len(works) == 1:
            make_stage(works[0], input_paths(works[0], store), store, progress[0])
        else:
            errors = make_policies(works, store, progress)
    except V2AError as error:
        # Of a batch: what no policy can go on after. An error of one policy is its own in `errors`.
        errors = [error] * len(works)
    for trial, found in zip(trials, errors, strict=True):
        policy = trial.plan["policy"].key
        if found:
            tune.report(failure(policy, found))
            continue
        evaluation = read_json(store.path("policy", policy) / "evaluation.json")
        tune.report({"policy": policy, "finished": True, **objectives(evaluation, trial.config.policy.num_steps)})


def trials_of(settings: dict[str, Any]) -> list[Trial]:
    """The trials that Tune's `config` names. Raises ClusterError on a node with other code than the driver's."""
    require_code(settings["code"])
    if settings.get("plugins"):
        load_shipped(ray.get(ray.get_actor(settings["progress_actor"]).plugins.remote()))
    told = ray.get(ray.get_actor(settings["progress_actor"]).trials.remote(settings["trials"]))
    planner = Planner()
    contents = [parse_json(text) for text in told]
    trials = [Trial(content["labels"], *planner.plan(content["config"])) for content in contents]
    if drawn := settings.get("suggestion"):
        return [suggested(trials[0], drawn["number"], drawn["values"], planner)]
    return trials


def as_json(trial: Trial, without: AbstractSet[str] = frozenset()) -> str:
    """What `trials_of` reads a trial from. `without` names settings to leave out."""
    config = trial.config.model_dump(mode="json", exclude=set(without))
    return json.dumps({"labels": trial.labels, "config": config}, sort_keys=True)


def objectives(evaluation: dict[str, Any], step: int) -> Metrics:
    """The metrics for schedulers and searches from an evaluation after `step` update steps."""
    return {"step": step} | {name: evaluation[name] for name in OBJECTIVES if evaluation.get(name) is not None}


def is_evaluation(metrics: Metrics) -> bool:
    """Whether a report has an evaluation, of which every one has a return or what stands for it."""
    return not metrics.keys().isdisjoint(("evaluation/return_mean", f"evaluation/{RANK_SCORE}"))


def _progress(progress_actor: str, trial: Trial) -> Progress:
    """A callback that reports to the progress actor and evaluations also to Tune, whose scheduler may end the trial."""
    name, key = trial.name, trial.plan["policy"].key
    show: Progress = reporter(ray.get_actor(progress_actor), key, name, REPORT_SECONDS)
    if stage_workers(trial.config, "policy") > 1:
        return show  # called by a worker, which is not a process of Tune

    def progress(step: int, num_steps: int, metrics: Metrics) -> None:
        show(step, num_steps, metrics)
        evaluation = {name.removeprefix("evaluation/"): value for name, value in metrics.items()}
        # The last evaluation is reported when the artifact is there: a scheduler may not end what has reached its end.
        if is_evaluation(metrics) and step < num_steps:
            tune.report({"policy": trial.plan["policy"].key, **objectives(evaluation, step)})

    return progress


def failure(policy: str, error: V2AError) -> dict[str, Any]:
    """The report of a failed policy: its key, where and why it failed, and whether all other trials would fail too."""
    return {"policy": policy, "failed": error.reason, "unwritable": isinstance(error, StorageError)}
