"""Hopper: one leg with three actuated joints. 11 observations (z, 4 angles, 6 velocities), 3 actions.

Numbers of the shifts: ODRL (Off-Dynamics RL benchmark) and OTDF (ICLR 2025), as edits of gymnasium's hopper.xml.
Lengths in metres, angles in degrees.
"""

from __future__ import annotations

import numpy as np

from v2a_ray.domains.robot_spec import Flags, Float, RobotSpec, Task, fixed, register_robot, scaled_ranges
from v2a_ray.domains.shifts.edits import Edit, capsule


def _foot(factor: float) -> tuple[Edit, ...]:
    """The foot's length and radius times `factor`; the ankle stays in place."""
    ankle, heel, toe, height, radius = -0.13, -0.26, 0.13, 0.1, 0.06
    ends = (ankle + factor * (heel - ankle), 0.0, height, ankle + factor * (toe - ankle), 0.0, height)
    return capsule("foot_geom", ends, factor * radius)


def _torso(top: float, radius: float) -> tuple[Edit, ...]:
    """A torso that reaches from the hip (-0.2) to `top` above the body's origin, `radius` thick."""
    return capsule("torso_geom", (0.0, 0.0, top, 0.0, 0.0, -0.2), radius)


def _is_healthy(positions_BP: Float, velocities_BV: Float) -> Flags:
    height_B, angle_B = positions_BP[:, 1], positions_BP[:, 2]
    bounded_B = (np.abs(positions_BP[:, 2:]) < 100.0).all(axis=1) & (np.abs(velocities_BV) < 100.0).all(axis=1)
    return bounded_B & (height_B > 0.7) & (height_B < np.inf) & (np.abs(angle_B) < 0.2)


HOPPER = register_robot(
    RobotSpec(
        name="hopper",
        environment_class="gymnasium.envs.mujoco.hopper_v4:HopperEnv",
        task=Task(1e-3, healthy_reward=1.0, is_healthy=_is_healthy),
        asset="hopper.xml",
        observation_dim=11,
        action_dim=3,
        num_positions=5,
        num_velocities=6,
        velocity_limit=10.0,
        reset_noise_scale=5e-3,
        floor_keeps_friction=True,
        joints={"footjnt": ("foot_joint",), "legjnt": ("leg_joint",)},
        morphologies={
            "foot": {"easy": _foot(0.8), "medium": _foot(0.6), "hard": _foot(0.4)},
            "torso": {"easy": _torso(0.28, 0.075), "medium": _torso(0.44, 0.1), "hard": _torso(0.6, 0.125)},
        },
        published={
            "otdf-kinematic": scaled_ranges({"thigh_joint": 1e-3, "foot_joint": 0.4}),
            "otdf-morph": fixed(
                _torso(0.2, 0.125) + capsule("thigh_geom", (0.0, 0.0, 0.0, 0.0, 0.0, -0.45), 0.04),
            ),
        },
    )
)
