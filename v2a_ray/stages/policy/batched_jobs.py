"""Forms batches of policies that can be trained together, and trains the policies of several jobs as one batch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from v2a_ray.engine.context import Job
from v2a_ray.engine.plan import Node
from v2a_ray.engine.trainer import use_threads
from v2a_ray.errors import ENDS_ALL, DivergenceError, V2AError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.stages.policy.batched import train_together
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.training import (
    PolicyTables,
    PolicyTraining,
    fit_in_memory,
    fit_policy,
    policy_batch_preparation,
)

_OWN_SCALARS: dict[str, Any] = {
    "learning_rate": True,
    "discount": True,
    "expectile": True,
    "temperature": True,
    "target_rate": True,
    "reward_correction": True,
    "filter": {"keep_fraction": True, "alignment_weight": True, "target_acceptance": True},
}
"""Settings of `policy` in which the members of a policy batch may differ, besides seed and data."""


def policy_batch_key(config: ExperimentConfig, plan: Mapping[str, Node]) -> str | None:
    """Equal for experiments whose policies can be trained as one batch; None if the policy must be trained alone.

    A policy batch supports only the plain losses of IQL, not those of derived learners or of a density. Each policy
    draws its own transitions, so its data, columns and corrections may be others; the robot is the same, and so are the
    shapes.
    """
    policy = config.policy
    if not policy.is_batched:
        return None
    content = {
        "policy": policy.model_dump(mode="json", exclude=_OWN_SCALARS),
        "inputs": sorted(plan["policy"].inputs),
        "domain": config.target.domain,
        **config.model_dump(mode="json", include={"preprocessing", "loading", "evaluation", "offline"}),
    }
    return json.dumps(content, sort_keys=True)


def make_policy_batches(keys: Sequence[str | None], largest: int) -> list[list[int]]:
    """Positions of equal `keys` in batches of nearly equal size, at most `largest`; each None is a batch of its own."""
    groups: dict[str | int, list[int]] = {}
    for number, key in enumerate(keys):
        groups.setdefault(number if key is None else key, []).append(number)
    policy_batches = []
    for numbers in groups.values():
        count = math.ceil(len(numbers) / largest)
        edges = [index * len(numbers) // count for index in range(count + 1)]
        policy_batches += [numbers[first:last] for first, last in pairwise(edges)]
    return policy_batches


def fit_policies(jobs: Sequence[Job]) -> list[V2AError | None]:
    """Train the policies of jobs with equal `policy_batch_key` together; each writes the files of `fit_policy`.

    Jobs with equal inputs share their tables. Where the tables of all do not fit in the memory of one job, those with
    equal inputs are trained together; where even theirs have to be streamed, policies are trained one by one, because
    each needs its own stream. They are also trained one by one where the data of any of them is at fault.

    Returns:
        The error of each job, None if it succeeded.

    Raises:
        StorageError, ClusterError: no job can go on.
    """
    if len(jobs) == 1:
        return [_alone(jobs[0])]
    try:
        return _together(jobs)
    except ENDS_ALL:
        raise
    except V2AError:
        return [_alone(job) for job in jobs]  # whoever is at fault fails again, alone


def _together(jobs: Sequence[Job]) -> list[V2AError | None]:
    """`fit_policies` of two jobs or more."""
    same_inputs: dict[tuple[tuple[str, Path], ...], list[int]] = {}
    for number, job in enumerate(jobs):
        same_inputs.setdefault(tuple(sorted(job.inputs.items())), []).append(number)
    groups = list(same_inputs.values())
    if fit_in_memory([jobs[group[0]] for group in groups]):
        return [*_in_memory(jobs, groups)]
    parts = groups if len(groups) > 1 else [[number] for number in groups[0]]
    errors = {
        number: error
        for part in parts
        for number, error in zip(part, fit_policies([jobs[number] for number in part]), strict=True)
    }
    return [errors[number] for number in range(len(jobs))]


def _in_memory(jobs: Sequence[Job], groups: Sequence[Sequence[int]]) -> list[DivergenceError | None]:
    """Train all jobs as one batch; the jobs whose numbers are in a group share their tables."""
    config = jobs[0].config.policy
    use_threads(config.num_threads)
    tables: dict[int, PolicyTables] = {}
    for group in groups:
        tables |= dict.fromkeys(group, PolicyTables.open(jobs[group[0]]))
    trainings = [PolicyTraining(job, tables[number]) for number, job in enumerate(jobs)]
    learners = [training.learner for training in trainings if isinstance(training.learner, IQLLearner)]
    assert len(learners) == len(jobs)  # `policy_batch_key` admits only IQL
    prepared = policy_batch_preparation(config, tables[0])
    errors = train_together([training.loop for training in trainings], learners, prepared)
    for training, error in zip(trainings, errors, strict=True):
        if error is None:
            training.finish()
    return errors


def _alone(job: Job) -> V2AError | None:
    try:
        fit_policy(job)
    except ENDS_ALL:
        raise
    except V2AError as error:
        return error
    return None
