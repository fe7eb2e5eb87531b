"""What a policy learner is made from, the same for all: each takes what it needs."""

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
    """What a learner may read.

    Attributes:
        actor: untrained; what the learner trains and what is evaluated.
        seed: of its own random numbers.
        density: of a behaviour, for a learner that reads the stage `density`.
        dynamics: of the target, for one that reads the stage `dynamics`.
        workers: that train it together.
    """

    sampler: MixedSampler
    actor: TanhActor
    config: Config
    seed: int
    density: BehaviorDensity | None = None
    dynamics: DynamicsModel | None = None
    workers: Workers = ONE_WORKER


def make_learner(inputs: LearnerInputs[PolicyConfig]) -> Learner:
    """The learner that the configuration chooses."""
    learner: Learner = imported(type(inputs.config).makes)(inputs)
    return learner
