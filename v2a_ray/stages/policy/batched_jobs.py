"""Policies that one batched program can train: which experiments go together, and the training of several jobs."""

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
"""Settings of `policy` in which the members of a pack may differ, beside the seed."""


def policy_batch_key(config: ExperimentConfig, plan: Mapping[str, Node]) -> str | None:
    """Equal for experiments whose policies can be trained as one pack; None for one that has to be trained alone.

    A pack knows the losses of IQL and no others: not those of learners derived from it, nor a density's. What is drawn
    is each policy's own affair, so corrected rewards and transitions go into packs.
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
    """The positions of equal `keys` in packs of at most `largest`, as equal in size as it goes; None stays alone."""
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
    """Train the policies of jobs with equal `policy_batch_key` together; each writes what `fit_policy` writes.

    A streamed table has one position per policy, and the memory is for one: such policies are trained one by one.

    Returns:
        Each job's error, None where all was written.
    """
    first = jobs[0]
    use_threads(first.config.policy.num_threads)
    tables = PolicyTables.open(first)
    if len(jobs) == 1 or tables.streamed:
        return [_alone(job) for job in jobs]
    trainings = [PolicyTraining(job, tables) for job in jobs]
    learners = [training.learner for training in trainings if isinstance(training.learner, IQLLearner)]
    assert len(learners) == len(jobs)  # `policy_batch_key` lets no other learner in
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
