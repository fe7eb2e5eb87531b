"""The policy learners by the name that `policy.learner` gives them."""

from __future__ import annotations

from v2a_ray.engine.data_parallel import ONE_WORKER, Workers
from v2a_ray.engine.trainer import Learner
from v2a_ray.networks import TanhActor
from v2a_ray.stages.policy.actor_critics import AWACLearner, BOSALearner, TD3BCLearner
from v2a_ray.stages.policy.config import PolicyConfig
from v2a_ray.stages.policy.droco import DROCOLearner
from v2a_ray.stages.policy.grouped import GroupedLearner
from v2a_ray.stages.policy.iql import BCLearner, IQLLearner, MixedSampler
from v2a_ray.stages.support.conditional_vae import BehaviorDensity
from v2a_ray.stages.support.dynamics import DynamicsModel

LEARNERS: dict[str, type[IQLLearner] | type[BCLearner] | type[TD3BCLearner] | type[AWACLearner]] = {
    "iql": IQLLearner,
    "bc": BCLearner,
    "td3_bc": TD3BCLearner,
    "awac": AWACLearner,
    "grouped": GroupedLearner,
}
"""Learners that need no fitted model."""
IN_SUPPORT: dict[str, type[IQLLearner] | type[BOSALearner]] = {"iql": IQLLearner, "bosa": BOSALearner}
"""Learners that can be held to the support of a behaviour, given its density."""


def make_learner(
    sampler: MixedSampler,
    actor: TanhActor,
    config: PolicyConfig,
    seed: int,
    density: BehaviorDensity | None = None,
    dynamics: DynamicsModel | None = None,
    workers: Workers = ONE_WORKER,
) -> Learner:
    """The learner that `config.learner` names. A `density` is given where `config.density_weight` asks for one, the
    target's `dynamics` where the learner reads them, and several `workers` to `iql` alone."""
    if workers.count > 1:
        return IQLLearner(sampler, actor, config, seed, density, workers)
    if config.learner == "droco":
        return DROCOLearner(sampler, actor, config, seed, dynamics)
    if density:
        return IN_SUPPORT[config.learner](sampler, actor, config, seed, density)
    return LEARNERS[config.learner](sampler, actor, config, seed)
