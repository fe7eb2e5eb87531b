"""What each robot is rewarded for and when it has fallen: gymnasium's v4 tasks, over a batch of simulations.

    reward = dx / dt + healthy_reward - control_cost_weight * |a|^2

where x is the root's position along the track; an episode terminates once the robot is not healthy. The order of the
operations is gymnasium's, so that rewards agree with its environments bit for bit.

Shape suffixes: B simulations, A action dimension, P joint positions, V joint velocities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.robots import RobotSpec

Float = NDArray[np.float64]
Flags = NDArray[np.bool_]


def _always(positions_BP: Float, velocities_BV: Float) -> Flags:
    return np.ones(len(positions_BP), dtype=bool)


def _hopper_healthy(positions_BP: Float, velocities_BV: Float) -> Flags:
    height_B, angle_B = positions_BP[:, 1], positions_BP[:, 2]
    bounded_B = (np.abs(positions_BP[:, 2:]) < 100.0).all(axis=1) & (np.abs(velocities_BV) < 100.0).all(axis=1)
    return bounded_B & (height_B > 0.7) & (height_B < np.inf) & (np.abs(angle_B) < 0.2)


def _walker2d_healthy(positions_BP: Float, velocities_BV: Float) -> Flags:
    height_B, angle_B = positions_BP[:, 1], positions_BP[:, 2]
    return (height_B > 0.8) & (height_B < 2.0) & (np.abs(angle_B) < 1.0)


def _ant_healthy(positions_BP: Float, velocities_BV: Float) -> Flags:
    height_B = positions_BP[:, 2]
    finite_B = np.isfinite(positions_BP).all(axis=1) & np.isfinite(velocities_BV).all(axis=1)
    return finite_B & (height_B >= 0.2) & (height_B <= 1.0)


@dataclass(frozen=True)
class Task:
    """Reward and termination of one robot.

    Attributes:
        control_cost_weight: of the squared norm of the commanded action.
        healthy_reward: per environment step, also for the step that ends the episode.
        is_healthy: of joint positions (B, P) and velocities (B, V), unclipped, to flags (B,).
        tracked_body: whose position `xpos` progress is measured by; empty: the first joint position. MuJoCo computes
            `xpos` before it integrates, so it lags one simulation step behind the joint positions.
    """

    control_cost_weight: float
    healthy_reward: float = 0.0
    is_healthy: Callable[[Float, Float], Flags] = _always
    tracked_body: str = ""

    def reward(self, progress_B: Float, actions_BA: NDArray[Any], seconds: float) -> Float:
        """Rewards (B,) of moving by `progress_B` metres in `seconds` under commanded actions."""
        # Row by row in memory order, as one action is summed: another order would round differently.
        squares_BA = np.square(np.ascontiguousarray(actions_BA))
        reward_B: Float = progress_B / seconds + self.healthy_reward - self.control_cost_weight * squares_BA.sum(axis=1)
        return reward_B


# Recordings hold float32, whose rounding is 6e-8 of a value.
_ROUNDING = 1e-6

# By gymnasium class, which is what defines them: robots that differ in their observation only share a task.
_TASKS = {
    "HopperEnv": Task(1e-3, healthy_reward=1.0, is_healthy=_hopper_healthy),
    "Walker2dEnv": Task(1e-3, healthy_reward=1.0, is_healthy=_walker2d_healthy),
    "HalfCheetahEnv": Task(0.1),
    "AntEnv": Task(0.5, healthy_reward=1.0, is_healthy=_ant_healthy, tracked_body="torso"),
}


def task_of(spec: RobotSpec) -> Task:
    """The task of a robot."""
    return _TASKS[spec.environment_class.partition(":")[2]]


def observed_health(spec: RobotSpec, observation_NO: NDArray[Any]) -> tuple[Flags, Flags]:
    """(N,) whether a robot is surely healthy, and (N,) whether it has surely fallen, in observed states (N, O).

    Neither is sure within rounding of a threshold. A clipped velocity may be any beyond the limit, so that it makes
    no robot surely healthy whose rule looks at velocities.
    """
    split = spec.num_positions
    observed = observation_NO.astype(np.float64)
    positions = np.concatenate([np.zeros((len(observed), spec.num_unobserved_positions)), observed[:, :split]], axis=1)
    velocities = observed[:, split : split + spec.num_velocities]
    largest = velocities
    if spec.velocity_limit is not None:
        largest = np.where(np.abs(velocities) >= spec.velocity_limit, np.inf, velocities)
    is_healthy = task_of(spec).is_healthy
    scales = (1.0 - _ROUNDING, 1.0, 1.0 + _ROUNDING)
    surely = np.logical_and.reduce([is_healthy(positions * scale, largest * scale) for scale in scales])
    possibly = np.logical_or.reduce([is_healthy(positions * scale, velocities * scale) for scale in scales])
    return surely, ~possibly
