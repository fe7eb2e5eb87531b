"""Forms batches of policies that can be trained together, and trains the policies of several jobs as one batch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from v2a_ray.engine.context import Job
from v2a_ray.engine.plan import Node
from v2a_ray.engine.trainer import use_threads
from v2a_ray.errors import DivergenceError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.stages.policy.batched import train_together
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.training import PolicyTables, PolicyTraining, fit_policy, policy_batch_preparation

_OWN_SCALARS: dict[str, Any] = {
    "learning_rate": True,
    "discount": True,
    "expectile": True,
    "temperature": True,
    "target_rate": True,
    "reward_correction": True,
    "filter": {"keep_fraction": True, "alignment_weight": True, "target_acceptance": True},
}
"""Settings of `policy` in which the members of a policy batch may differ, besides the seed."""


def policy_batch_key(config: ExperimentConfig, plan: Mapping[str, Node]) -> str | None:
    """Equal for experiments whose policies can be trained as one batch; None if the policy must be trained alone.

    A policy batch supports only the plain losses of IQL, not those of derived learners or of a density. Each policy
    draws its own transitions, so corrected rewards and transitions are supported.
    """
    policy = config.policy
    if not policy.is_batched:
        return None
    content = {
        "policy": policy.model_dump(mode="json", exclude=_OWN_SCALARS),
        "inputs": {role: plan[name].key for role, name in plan["policy"].inputs.items()},
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


def fit_policies(jobs: Sequence[Job]) -> list[DivergenceError | None]:
    """Train the policies of jobs with equal `policy_batch_key` together; each writes the files of `fit_policy`.

    Policies on streamed tables are trained one by one, because each needs its own stream and the memory is for one.

    Returns:
        The error of each job, None if it succeeded.
    """
    first = jobs[0]
    use_threads(first.config.policy.num_threads)
    tables = PolicyTables.open(first)
    if len(jobs) == 1 or tables.streamed:
        return [_alone(job) for job in jobs]
    trainings = [PolicyTraining(job, tables) for job in jobs]
    learners = [training.learner for training in trainings if isinstance(training.learner, IQLLearner)]
    assert len(learners) == len(jobs)  # `policy_batch_key` admits only IQL
    prepared = policy_batch_preparation(first.config.policy, tables)
    errors = train_together([training.loop for training in trainings], learners, prepared)
    for training, error in zip(trainings, errors, strict=True):
        if error is None:
            training.finish()
    return errors


def _alone(job: Job) -> DivergenceError | None:
    try:
        fit_policy(job)
    except DivergenceError as error:
        return error
    return None
