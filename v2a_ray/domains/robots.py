"""What a robot is: its gymnasium class, the numbers of its interface, and the parts that a shift can change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import mujoco
import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.edits import Edit
from v2a_ray.errors import DomainError

MorphologyLevels = Mapping[str, tuple[Edit, ...]]


@dataclass(frozen=True)
class RobotSpec:
    """One robot, independent of physics and shifts.

    Attributes:
        name: lower case, as in domain names.
        environment_class: "module:class" of gymnasium's v4 environment, whose semantics recorded data have.
        asset: the file in gymnasium's `envs/mujoco/assets` that every shift edits.
        observation_dim, action_dim: O and A.
        num_positions: entries of the observation that are joint positions (root x, and Ant's root y, are left out).
        num_velocities: entries that are joint velocities.
        num_unobserved_positions: leading positions that are not observed (1, Ant 2).
        velocity_limit: the observation clips joint velocities to +- this (m/s or rad/s); None: not clipped.
        reset_noise_scale: half-width of the uniform noise (or standard deviation of the Gaussian one) at reset.
        total_mass: kilograms that the finished model is scaled to, or None (HalfCheetah's `settotalmass`).
        floor_keeps_friction: a friction shift changes only the sliding coefficient of the robot's own geoms.
        reward_lags: the reward uses body positions that lag one simulation step behind the state (Ant's torso), so that
            replaying one transition needs the one before it.
        joints: part of a kinematic shift -> joint names.
        morphologies: part of a morphology shift -> level -> edits.
        named_levels: kind of a continuous shift -> its named levels, where the usual ones do too little or too much.
        published: names as `otdf-kinematic` -> function of the stock specification to edits.
        variant_of: name of the robot that differs only in its observation, which this one shares shifts, reference
            returns and behaviours with; empty for a robot in its own right.
        num_zeros: zeros at the end of the observation, in place of quantities that recorded data hold no values of.
        max_episode_steps: environment steps after which an episode is truncated.
    """

    name: str
    environment_class: str
    asset: str
    observation_dim: int
    action_dim: int
    num_positions: int
    num_velocities: int
    velocity_limit: float | None
    reset_noise_scale: float
    joints: Mapping[str, tuple[str, ...]]
    morphologies: Mapping[str, MorphologyLevels]
    published: Mapping[str, Callable[[mujoco.MjSpec], tuple[Edit, ...]]]
    num_unobserved_positions: int = 1
    total_mass: float | None = None
    floor_keeps_friction: bool = False
    reward_lags: bool = False
    variant_of: str = ""
    num_zeros: int = 0
    max_episode_steps: int = 1000
    joint_levels: Mapping[str, float] = field(default_factory=lambda: {"easy": 0.8, "medium": 0.5, "hard": 0.2})
    named_levels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def remedy_for(self, observation_dim: int, action_dim: int) -> str:
        """What to try when data of other dimensions are taken for this robot's: the robot that they fit."""
        fitting = [
            spec.name
            for spec in all_robots().values()
            if (spec.observation_dim, spec.action_dim) == (observation_dim, action_dim)
        ]
        if not fitting:
            return f"use data of {self.name}; no robot has {observation_dim} observations and {action_dim} actions"
        found = " or ".join(fitting)
        return (
            f"{observation_dim} observations and {action_dim} actions are those of {found}: "
            f"write {found} instead of {self.name} in the domain's name, or use data of {self.name}"
        )

    def observed_health(self, observation: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of observations (N, O): (N,) whether surely healthy, (N,) whether surely fallen; see `tasks`."""
        # Tasks are written in terms of robots.
        from v2a_ray.domains.tasks import observed_health

        return observed_health(self, observation)


def scaled_ranges(factors: Mapping[str, float]) -> Callable[[mujoco.MjSpec], tuple[Edit, ...]]:
    """Edits that shrink joint ranges: joint name -> factor on the distance from the range's point nearest to zero.

    That anchor is zero for most joints, and the bound that the leg hangs at for Ant's ankles (30 to 70 degrees), which
    is how the published ranges were made.
    """

    def edits(stock: mujoco.MjSpec) -> tuple[Edit, ...]:
        result = []
        for joint, factor in factors.items():
            low, high = (float(bound) for bound in stock.joint(joint).range)
            anchor = min(max(0.0, low), high)
            bounds = (anchor + factor * (low - anchor), anchor + factor * (high - anchor))
            result.append(Edit("joint", joint, "range", bounds))
        return tuple(result)

    return edits


def fixed(edits: tuple[Edit, ...]) -> Callable[[mujoco.MjSpec], tuple[Edit, ...]]:
    """Edits that do not depend on the stock model."""
    return lambda _stock: edits


def robot(name: str) -> RobotSpec:
    """The robot called `name`. Raises DomainError naming the robots there are."""
    robots = all_robots()
    if name not in robots:
        raise DomainError(f"no robot named {name!r}", where="domain", remedy=f"one of {', '.join(robots)}")
    return robots[name]


def all_robots() -> dict[str, RobotSpec]:
    """Every robot by name, variants included."""
    # Each robot's file needs `RobotSpec` from here.
    from v2a_ray.domains.ant import ANT, ANT111
    from v2a_ray.domains.halfcheetah import HALFCHEETAH
    from v2a_ray.domains.hopper import HOPPER
    from v2a_ray.domains.walker2d import WALKER2D

    return {spec.name: spec for spec in (HOPPER, WALKER2D, HALFCHEETAH, ANT, ANT111)}
