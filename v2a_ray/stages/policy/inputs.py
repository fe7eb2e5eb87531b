"""The common inputs of all policy learners; each learner uses the ones it needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from v2a_ray.engine.data_parallel import ONE_WORKER, Workers
from v2a_ray.engine.stage import imported
from v2a_ray.engine.trainer import Learner
from v2a_ray.networks import TanhActor
from v2a_ray.stages.policy.config import PolicyConfig
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.support.conditional_vae import BehaviorDensity
from v2a_ray.stages.support.dynamics import DynamicsModel

Config = TypeVar("Config", bound=PolicyConfig)


@dataclass(frozen=True)
class LearnerInputs(Generic[Config]):
    """The inputs of a learner.

    Attributes:
        actor: the untrained actor; the learner trains it, and it is evaluated.
        seed: seed of the learner's random numbers.
        density: behaviour density, for a learner that reads the stage `density`.
        dynamics: models of the target's dynamics, for a learner that reads the stage `dynamics`.
        workers: the data-parallel workers.
    """

    sampler: MixedSampler
    actor: TanhActor
    config: Config
    seed: int
    density: BehaviorDensity | None = None
    dynamics: DynamicsModel | None = None
    workers: Workers = ONE_WORKER


def make_learner(inputs: LearnerInputs[PolicyConfig]) -> Learner:
    """The configured learner."""
    learner: Learner = imported(type(inputs.config).makes)(inputs)
    return learner
