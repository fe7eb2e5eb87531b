"""The Tuner of a sweep: its trials, the policies batched in each, its scheduler and its resources."""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray import tune
from ray.tune import Callback, CheckpointConfig, FailureConfig, RunConfig, Stopper, TuneConfig

from v2a_ray.errors import ConfigError
from v2a_ray.experiments.sweep import Sweep
from v2a_ray.objects import ObjectFolder
from v2a_ray.orchestration.cluster.capacity import capacity
from v2a_ray.orchestration.cluster.gpus import (
    cluster_gpus,
    gpu_share,
    most_gpus,
    require_gpus,
    stage_device,
    stage_workers,
    workers_have_gpus,
)
from v2a_ray.orchestration.sweep.population import member_settings, train_member
from v2a_ray.orchestration.sweep.retries import Retries
from v2a_ray.orchestration.sweep.schedulers import make_scheduler
from v2a_ray.orchestration.sweep.trials import train_trial
from v2a_ray.result_folders import TUNE, address_of
from v2a_ray.stages.policy.batched_jobs import make_policy_batches, policy_batch_key

if TYPE_CHECKING:
    from v2a_ray.orchestration.sweep.search import Suggestions

MAX_AUTO_POLICIES = 4
"""Largest automatic batch of policies: larger batches save little overhead and spread less evenly over cores."""
_ENVIRONMENT = {
    # Ctrl-C must reach us as KeyboardInterrupt; Tune would end quietly, as if all trials were finished.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's own files per trial hold less than our table and take longer to write than a short trial runs.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A failed trial reports a reason and no score.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
}


def make_tuner(
    sweep: Sweep,
    folder: Path,
    missing: Sequence[int],
    common: Mapping[str, Any],
    callbacks: Sequence[Callback],
    stopper: Stopper,
    search: Suggestions | None,
) -> tune.Tuner:
    """A Tuner that trains the trials with the numbers `missing`, or the suggestions of `search`.

    A resumed sweep makes a new Tuner: finished trials are in the artifact store, and Tune's own state, a pickle, is
    never read.
    """
    os.environ.update(_ENVIRONMENT)
    # The results hold the reason of a trial's failure; Tune would print its traceback into the live display.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    population = sweep.config.scheduler.is_population
    resources, workers = trial_resources(sweep), trial_workers(sweep)
    room = _room(sweep, resources, workers)
    if capacity().elastic:
        # The autoscaler adds nodes for trials that wait. By default Tune lets 200 wait, and of a search one.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(room)
    if search:
        space, num_samples = dict(common), search.num_left
    elif population:
        members = [member_settings(sweep, folder, number) for number in missing]
        space, num_samples = {**common, "member": tune.grid_search(members)}, 1
    else:
        policy_batches = policy_batches_of(sweep, missing, room)
        space, num_samples = {**common, "trials": tune.grid_search(policy_batches)}, 1
    return tune.Tuner(
        tune.with_resources(train_member if population else train_trial, _reservation(resources, workers)),
        param_space=space,
        tune_config=TuneConfig(
            search_alg=search,
            scheduler=make_scheduler(sweep),
            num_samples=num_samples,
            max_concurrent_trials=_most_at_a_time(sweep, room, workers),
            # Starting a process and importing torch takes seconds, which every short trial would wait for.
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=RunConfig(
            name=sweep.name,
            **_storage(folder, population),
            verbose=0,
            callbacks=[*callbacks, Retries(sweep.config.resources.max_retries)],
            stop=stopper,
            failure_config=FailureConfig(max_failures=-1),  # `Retries` counts
            # For populations: a checkpoint that another member is about to copy must not be deleted.
            checkpoint_config=CheckpointConfig(num_to_keep=4),
        ),
    )


def _storage(folder: Path, exchanges_checkpoints: bool) -> dict[str, Any]:
    """Where Tune keeps its state, without what an earlier command left there: every node must see it."""
    address = address_of(folder)
    if address is None:
        shutil.rmtree(folder / TUNE, ignore_errors=True)
        return {"storage_path": str(folder / TUNE)}
    state = ObjectFolder(address) / TUNE
    if exchanges_checkpoints:
        state.remove(state.names())
        return {"storage_path": state.prefix, "storage_filesystem": PyFileSystem(FSSpecHandler(state.filesystem))}
    # We never read it, and in object storage it took four requests a trial: each process keeps its own in memory.
    memory = fsspec.filesystem("memory")
    if memory.exists(f"/{state.prefix}"):
        memory.rm(f"/{state.prefix}", recursive=True)
    return {"storage_path": state.prefix, "storage_filesystem": PyFileSystem(FSSpecHandler(memory))}


def _trial_name(trial: Any) -> str:
    """A unique short name. A population's member keeps its name when it copies another member's settings."""
    settings = trial.config
    if "member" in settings:
        return f"trial-{settings['member']['number']:04d}"
    drawn = f"-{settings['suggestion']['number']:04d}" if "suggestion" in settings else ""
    return f"trial-{settings['trials'][0]:04d}{drawn}"


def trial_resources(sweep: Sweep) -> dict[str, float]:
    """CPUs and GPUs of one trial, or of each of its workers, by Ray's names.

    Raises:
        ConfigError: a stage requires a GPU and gets none, or trials ask for unequal numbers of workers.
    """
    asked, there, workers = sweep.config.resources.gpus_per_trial, cluster_gpus(), trial_workers(sweep)
    require_gpus(((trial.config, "policy") for trial in sweep.trials), most_gpus())
    devices = {stage_device(trial.config, "policy") for trial in sweep.trials}
    if workers > 1:
        share = float(any(workers_have_gpus(device, workers, there) for device in devices))
    else:
        share = max(gpu_share(device, there) for device in devices) if asked == "auto" else asked
    if "cuda" in devices and not share:
        raise ConfigError(
            "policy.device=cuda needs a part of a GPU, and a trial is given none",
            where="resources.gpus_per_trial",
            remedy="leave it at auto",
        )
    threads = max(trial.config.policy.num_threads for trial in sweep.trials)
    return {"CPU": threads} | ({"GPU": share} if share else {})


def trial_workers(sweep: Sweep) -> int:
    """Data-parallel workers of every trial.

    Raises:
        ConfigError: the numbers differ, or the scheduler compares evaluations, which workers do not report.
    """
    counts = sorted({stage_workers(trial.config, "policy") for trial in sweep.trials})
    if len(counts) > 1:
        raise ConfigError(
            f"trials of one sweep need equal numbers of workers, and have {', '.join(map(str, counts))}",
            where="policy.num_workers",
            remedy="a sweep for each",
        )
    if counts[0] > 1 and sweep.config.scheduler.compares:
        raise ConfigError(
            f"scheduler.kind={sweep.config.scheduler.kind} ends trials of one process, and these have {counts[0]} "
            "workers each",
            where="policy.num_workers",
            remedy="scheduler.kind=fifo, or one worker",
        )
    return counts[0]


def _reservation(resources: Mapping[str, float], workers: int) -> dict[str, float]:
    """Tune's reservation for a trial whose workers get these `resources` each.

    A trial that drives Ray Train reserves one byte of memory and nothing that its workers need: if drivers reserved
    CPUs, too few might be left for the workers.
    """
    if workers > 1:
        return {"memory": 1}
    return {name.lower(): amount for name, amount in resources.items()}


def _room(sweep: Sweep, resources: Mapping[str, float], workers: int) -> int:
    """Number of trials that fit at a time when the cluster is as large as it can be, at least one.

    All of them where nobody can tell how large that is.
    """
    there = capacity()
    room = max(1, there.room(resources) // workers, len(sweep.trials) if there.unknown else 1)
    return min(room, sweep.config.resources.max_concurrent_trials or room)


def _most_at_a_time(sweep: Sweep, room: int, workers: int) -> int | None:
    """Tune's limit on the trials that run or wait for resources; None leaves it to the resources that they reserve.

    A cluster that grows needs it, because trials beyond `room` would start nodes with GPUs for work that asks for none;
    trials with several workers need it, because they reserve nothing.
    """
    if workers > 1 or capacity().elastic:
        return room
    return sweep.config.resources.max_concurrent_trials


def policy_batches_of(sweep: Sweep, missing: Sequence[int], room: int) -> list[list[int]]:
    """Numbers of the trials whose policies are batched together; each trial is in one batch, `room` run at a time."""
    trials = [sweep.trials[number] for number in missing]
    asked = sweep.config.policies_per_trial
    if sweep.config.scheduler.compares:
        largest = 1
    elif asked == "auto":
        largest = min(MAX_AUTO_POLICIES, math.ceil(len(trials) / room))
    else:
        largest = asked
    policy_batches = make_policy_batches([policy_batch_key(trial.config, trial.plan) for trial in trials], largest)
    return [[missing[position] for position in policy_batch] for policy_batch in policy_batches]
