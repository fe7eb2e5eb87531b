"""Ant: four legs with eight actuated joints, free in space. 27 observations (13 positions, 14 velocities), 8 actions.

Numbers of the shifts: ODRL and OTDF, as edits of gymnasium's ant.xml. Lengths in metres, angles in degrees.
Observations are the 27 of gymnasium's v4. Data recorded with v2 or v3 and MuJoCo 2 have 111: the same 27 and 84 contact
forces, which are zero in every row; the variant `ant111` has these observations.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from v2a_ray.domains.robot_spec import Flags, Float, RobotSpec, Task, fixed, register_robot, scaled_ranges
from v2a_ray.domains.shifts.edits import Edit, capsule

# geom -> the direction (x, y) that its foot points to
_FRONT = {"left_ankle_geom": (1.0, 1.0), "right_ankle_geom": (-1.0, 1.0)}
_BACK = {"third_ankle_geom": (-1.0, -1.0), "fourth_ankle_geom": (1.0, -1.0)}


def _feet(geoms: dict[str, tuple[float, float]], reach: float) -> tuple[Edit, ...]:
    """Lower legs whose tips are `reach` from the ankle along both axes (stock 0.4)."""
    return tuple(
        edit for geom, (x, y) in geoms.items() for edit in capsule(geom, (0.0, 0.0, 0.0, x * reach, y * reach, 0.0))
    )


_REACHES = {"easy": 0.32, "medium": 0.2, "hard": 0.08}


def _is_healthy(positions_BP: Float, velocities_BV: Float) -> Flags:
    height_B = positions_BP[:, 2]
    finite_B = np.isfinite(positions_BP).all(axis=1) & np.isfinite(velocities_BV).all(axis=1)
    return finite_B & (height_B >= 0.2) & (height_B <= 1.0)


ANT = register_robot(
    RobotSpec(
        name="ant",
        environment_class="gymnasium.envs.mujoco.ant_v4:AntEnv",
        task=Task(0.5, healthy_reward=1.0, is_healthy=_is_healthy, tracked_body="torso"),
        asset="ant.xml",
        observation_dim=27,
        action_dim=8,
        num_positions=13,
        num_velocities=14,
        num_unobserved_positions=2,
        velocity_limit=None,
        reset_noise_scale=0.1,
        reward_lags=True,
        # Ant has 0.9 kg and armatures of 1 kg m^2: a load hardly slows it, but a breeze blows it about.
        named_levels={"mass": (10.0, 20.0, 40.0), "wind": (1.5, 3.0, -5.0), "damping": (0.2, 5.0, 20.0)},
        joints={
            "hipjnt": tuple(f"hip_{leg}" for leg in (1, 2, 3, 4)),
            "anklejnt": tuple(f"ankle_{leg}" for leg in (1, 2, 3, 4)),
        },
        morphologies={
            "alllegs": {level: _feet(_FRONT | _BACK, reach) for level, reach in _REACHES.items()},
            "halflegs": {level: _feet(_FRONT, reach) for level, reach in _REACHES.items()},
        },
        published={
            "otdf-kinematic": scaled_ranges({"hip_1": 0.01, "hip_2": 0.01}),
            "otdf-morph": fixed(_feet(_FRONT, 0.1)),
        },
    )
)

ANT111 = register_robot(replace(ANT, name="ant111", variant_of="ant", observation_dim=111, num_zeros=84))
