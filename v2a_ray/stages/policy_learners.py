"""The policy learners by the name that `policy.learner` gives them."""

from __future__ import annotations

from v2a_ray.stages.actor_critics import AWACLearner, TD3BCLearner
from v2a_ray.stages.grouped import GroupedLearner
from v2a_ray.stages.policy import BCLearner, IQLLearner

LEARNERS: dict[str, type[IQLLearner] | type[BCLearner] | type[TD3BCLearner] | type[AWACLearner]] = {
    "iql": IQLLearner,
    "bc": BCLearner,
    "td3_bc": TD3BCLearner,
    "awac": AWACLearner,
    "grouped": GroupedLearner,
}
