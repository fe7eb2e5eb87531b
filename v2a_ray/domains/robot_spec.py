"""Specification of a robot: its gymnasium class, dimensions, task, and the parts that a shift can change.

Shape suffixes: B simulations, A action dimension, P joint positions, V joint velocities.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.shifts.edits import Edit
from v2a_ray.errors import DomainError
from v2a_ray.imports import is_ours, source_digest
from v2a_ray.settings.choices import PLUGINS, nearest

Float = NDArray[np.float64]
Flags = NDArray[np.bool_]
MorphologyLevels = Mapping[str, tuple[Edit, ...]]
ROUNDING = 1e-6
"""Relative rounding of recordings, which hold float32 (whose own rounding is 6e-8)."""
_ROBOTS: dict[str, RobotSpec] = {}
_MODULES: dict[str, str] = {}
"""Name of a robot to the module that registered it."""


def never_falls(positions_BP: Float, velocities_BV: Float) -> Flags:
    """Healthy in every state."""
    return np.ones(len(positions_BP), dtype=bool)


@dataclass(frozen=True)
class Task:
    """Reward and termination of a robot: gymnasium's v4 tasks, over a batch of simulations.

        reward = dx / dt + healthy_reward - control_cost_weight * |a|^2

    where x is the root's position along the track; an episode terminates once the robot is not healthy. The order of
    the operations is gymnasium's, so that rewards agree with its environments bit for bit.

    Attributes:
        control_cost_weight: of the squared norm of the commanded action.
        healthy_reward: per environment step, also for the step that ends the episode.
        is_healthy: of joint positions (B, P) and velocities (B, V), unclipped, to flags (B,).
        tracked_body: body whose position `xpos` measures progress; empty: the first joint position does. MuJoCo
            computes `xpos` before it integrates, so it lags one simulation step behind the joint positions.
    """

    control_cost_weight: float
    healthy_reward: float = 0.0
    is_healthy: Callable[[Float, Float], Flags] = never_falls
    tracked_body: str = ""

    def reward(self, progress_B: Float, actions_BA: NDArray[Any], seconds: float) -> Float:
        """Rewards (B,) of moving by `progress_B` metres in `seconds` under commanded actions."""
        # Sum each row in memory order, as for a single action: another order would round differently.
        squares_BA = np.square(np.ascontiguousarray(actions_BA))
        reward_B: Float = progress_B / seconds + self.healthy_reward - self.control_cost_weight * squares_BA.sum(axis=1)
        return reward_B


@dataclass(frozen=True)
class RobotSpec:
    """One robot, independent of physics and shifts.

    Attributes:
        name: lower case, as in domain names.
        environment_class: "module:class" of gymnasium's v4 environment, whose semantics the recorded data have.
        task: its reward and termination.
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
        named_levels: kind of a continuous shift -> its named levels, if the usual ones are too weak or too strong.
        published: names as `otdf-kinematic` -> function of the stock specification to edits.
        variant_of: name of the robot that differs only in its observation; this robot shares its shifts, reference
            returns and behaviours. Empty if the robot is no variant.
        num_zeros: zeros at the end of the observation, in place of quantities that recorded data lack.
        references: returns that score 0 and 100, of a plugin's robot without shifts; None: there is no score. Those of
            ours are in tables (`v2a_ray.domains.references`).
        max_episode_steps: environment steps after which an episode is truncated.
    """

    name: str
    environment_class: str
    task: Task
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
    references: tuple[float, float] | None = None
    max_episode_steps: int = 1000
    joint_levels: Mapping[str, float] = field(default_factory=lambda: {"easy": 0.8, "medium": 0.5, "hard": 0.2})
    named_levels: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def remedy_for(self, observation_dim: int, action_dim: int) -> str:
        """Remedy for data that do not have this robot's dimensions: the robot that they fit."""
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

    def observed_health(self, observation: NDArray[Any]) -> tuple[Flags, Flags]:
        """(N,) whether the robot is surely healthy, and (N,) whether it has surely fallen, in observed states (N, O).

        Neither flag is set within rounding of a threshold. A clipped velocity stands for any value beyond the limit, so
        a robot whose rule uses velocities is then not surely healthy.
        """
        split = self.num_positions
        observed = observation.astype(np.float64)
        unobserved = np.zeros((len(observed), self.num_unobserved_positions))
        positions = np.concatenate([unobserved, observed[:, :split]], axis=1)
        velocities = observed[:, split : split + self.num_velocities]
        largest = velocities
        if self.velocity_limit is not None:
            largest = np.where(np.abs(velocities) >= self.velocity_limit, np.inf, velocities)
        is_healthy = self.task.is_healthy
        scales = (1.0 - ROUNDING, 1.0, 1.0 + ROUNDING)
        surely = np.logical_and.reduce([is_healthy(positions * scale, largest * scale) for scale in scales])
        possibly = np.logical_or.reduce([is_healthy(positions * scale, velocities * scale) for scale in scales])
        return surely, ~possibly


def scaled_range(low: float, high: float, factor: float) -> tuple[float, float]:
    """A joint's range times `factor` about its point nearest to zero."""
    anchor = min(max(0.0, low), high)
    return anchor + factor * (low - anchor), anchor + factor * (high - anchor)


def scaled_ranges(factors: Mapping[str, float]) -> Callable[[mujoco.MjSpec], tuple[Edit, ...]]:
    """Edits that shrink joint ranges: joint name -> factor on the distance from the range's point nearest to zero.

    That anchor is zero for most joints. For Ant's ankles (30 to 70 degrees) it is the bound at which the leg hangs. The
    published ranges were made in this way.
    """

    def edits(stock: mujoco.MjSpec) -> tuple[Edit, ...]:
        result = []
        for joint, factor in factors.items():
            low, high = (float(bound) for bound in stock.joint(joint).range)
            result.append(Edit("joint", joint, "range", scaled_range(low, high, factor)))
        return tuple(result)

    return edits


def fixed(edits: tuple[Edit, ...]) -> Callable[[mujoco.MjSpec], tuple[Edit, ...]]:
    """Edits that do not depend on the stock model."""
    return lambda _stock: edits


def register_robot(spec: RobotSpec, module: str = "") -> RobotSpec:
    """Register `spec` by its name, and return it.

    `module`, which is the caller's if none is given, stands for the robot in the keys of artifacts. Raises ValueError
    when another module's robot has the name. A new version of a plugin file replaces its own robot.
    """
    known = _MODULES.get(spec.name)
    if known and not known.startswith(f"{PLUGINS}."):
        raise ValueError(f"robot {spec.name!r} is there already, in {known}")
    _ROBOTS[spec.name] = spec
    # As `collections.namedtuple` does: whoever calls would give its own name.
    _MODULES[spec.name] = module or sys._getframe(1).f_globals["__name__"]
    return spec


def robot_content(name: str) -> str:
    """SHA-256 of the file that registers a plugin's robot; empty for a robot of this package."""
    module = _MODULES[name]
    return "" if is_ours(module) else source_digest(import_module(module))


def robot(name: str) -> RobotSpec:
    """The robot called `name`. Raises DomainError naming the known robots."""
    if name not in _ROBOTS:
        remedy = f"{nearest(name, list(_ROBOTS))}; one of a plugin: `plugins: [FILE.py]`, or V2A_PLUGINS=FILE.py"
        raise DomainError(f"no robot named {name!r}", where="domain", remedy=remedy)
    return _ROBOTS[name]


def all_robots() -> dict[str, RobotSpec]:
    """Every robot by name, including variants. Importing `v2a_ray.domains.robots` registers the robots in it."""
    return dict(_ROBOTS)
