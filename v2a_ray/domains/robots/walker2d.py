"""Walker2d: two legs with six actuated joints. 17 observations (z, 7 angles, 9 velocities), 6 actions.

Numbers of the shifts: ODRL and OTDF, as edits of gymnasium's walker2d.xml. Lengths in metres, angles in degrees.
Bodies `thigh`, `leg`, `foot` are the right leg.
"""

from __future__ import annotations

import numpy as np

from v2a_ray.domains.robot_spec import Flags, Float, RobotSpec, Task, fixed, register_robot, scaled_ranges
from v2a_ray.domains.shifts.edits import Edit, capsule, moved

_HIP_HEIGHT, _LEG_HEIGHT = 1.05, 0.35  # of the bodies' frames above the floor, standing


def _knee(side: str, height: float, ankle: float = -0.25) -> tuple[Edit, ...]:
    """A knee at `height` above the floor: a longer or shorter thigh, and a shin from it to `ankle` in the leg's frame.

    `side` is "" (right) or "_left".
    """
    knee = height - _LEG_HEIGHT
    return (
        *capsule(f"thigh{side}_geom", (0.0, 0.0, 0.0, 0.0, 0.0, height - _HIP_HEIGHT), 0.05),
        moved("joint", f"leg{side}_joint", (0.0, 0.0, knee)),
        *capsule(f"leg{side}_geom", (0.0, 0.0, knee, 0.0, 0.0, ankle), 0.04),
    )


def _both_knees(height: float) -> tuple[Edit, ...]:
    return _knee("", height) + _knee("_left", height)


def _torso(top: float, radius: float) -> tuple[Edit, ...]:
    """A torso that reaches from the hip (-0.2) to `top` above the body's origin, `radius` thick."""
    return capsule("torso_geom", (0.0, 0.0, top, 0.0, 0.0, -0.2), radius)


_OTDF_RIGHT_LEG = (
    *_knee("", 1.045, ankle=-0.05),
    moved("joint", "foot_joint", (-0.2, 0.0, 0.3)),
    *capsule("foot_geom", (-0.2, 0.0, 0.3, 0.0, 0.0, 0.3), 0.06),
)


def _is_healthy(positions_BP: Float, velocities_BV: Float) -> Flags:
    height_B, angle_B = positions_BP[:, 1], positions_BP[:, 2]
    return (height_B > 0.8) & (height_B < 2.0) & (np.abs(angle_B) < 1.0)


WALKER2D = register_robot(
    RobotSpec(
        name="walker2d",
        environment_class="gymnasium.envs.mujoco.walker2d_v4:Walker2dEnv",
        task=Task(1e-3, healthy_reward=1.0, is_healthy=_is_healthy),
        asset="walker2d.xml",
        observation_dim=17,
        action_dim=6,
        num_positions=8,
        num_velocities=9,
        velocity_limit=10.0,
        # The damping of stock joints is only 0.1 N m s/rad.
        named_levels={"damping": (5.0, 10.0, 20.0)},
        reset_noise_scale=5e-3,
        joints={"footjnt": ("foot_joint", "foot_left_joint"), "thighjnt": ("thigh_joint", "thigh_left_joint")},
        morphologies={
            "leg": {"easy": _both_knees(0.5), "medium": _both_knees(0.35), "hard": _both_knees(0.2)},
            "torso": {"easy": _torso(0.28, 0.075), "medium": _torso(0.44, 0.1), "hard": _torso(0.6, 0.125)},
        },
        published={
            "otdf-kinematic": scaled_ranges({"foot_joint": 0.01}),
            "otdf-morph": fixed(_OTDF_RIGHT_LEG),
        },
    )
)
