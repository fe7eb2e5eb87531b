"""HalfCheetah: two legs with six actuated joints. 17 observations (z, 7 angles, 9 velocities), 6 actions.

Numbers of the shifts: ODRL and OTDF, as edits of gymnasium's half_cheetah.xml. Lengths in metres, angles in radians.
The robot is scaled to 14 kg whatever its shape, so a smaller part makes the others heavier.
"""

from __future__ import annotations

from v2a_ray.domains.robot_spec import RobotSpec, Task, fixed, register_robot, scaled_ranges
from v2a_ray.domains.shifts.edits import Edit, capsule, moved

_RADIUS = 0.046


def _limb(leg: str, knee: tuple[float, float], ankle: tuple[float, float]) -> tuple[Edit, ...]:
    """A thigh from the hip to `knee` and a shin from there to `ankle`, both (x, z) in the frame they start in.

    `leg` is "b" (back) or "f" (front).
    """
    (knee_x, knee_z), (ankle_x, ankle_z) = knee, ankle
    return (
        *capsule(f"{leg}thigh", (0.0, 0.0, 0.0, knee_x, 0.0, knee_z), _RADIUS),
        moved("body", f"{leg}shin", (knee_x, 0.0, knee_z)),
        *capsule(f"{leg}shin", (0.0, 0.0, 0.0, ankle_x, 0.0, ankle_z), _RADIUS),
        moved("body", f"{leg}foot", (ankle_x, 0.0, ankle_z)),
    )


def _thighs(back: tuple[float, float], front: tuple[float, float]) -> tuple[Edit, ...]:
    """ODRL's thighs. Its shins differ from stock too, and are the same at every level."""
    return _limb("b", back, (-0.13, -0.15)) + _limb("f", front, (0.11, -0.13))


def _torso(half_length: float) -> tuple[Edit, ...]:
    """A torso of that half-length, with head and legs at its ends."""
    return (
        *capsule("torso", (-half_length, 0.0, 0.0, half_length, 0.0, 0.0)),
        moved("geom", "head", (half_length + 0.1, 0.0, 0.1)),
        moved("body", "bthigh", (-half_length, 0.0, 0.0)),
        moved("body", "fthigh", (half_length, 0.0, 0.0)),
    )


_OTDF_LEGS = (
    *_limb("b", (-1e-4, -1e-4), (-0.13, -0.15)),
    *_limb("f", (1e-4, 1e-4), (0.01, -0.16)),
    Edit("geom", "bfoot", "half_length", (0.07,)),
)

HALFCHEETAH = register_robot(
    RobotSpec(
        name="halfcheetah",
        environment_class="gymnasium.envs.mujoco.half_cheetah_v4:HalfCheetahEnv",
        task=Task(0.1),
        asset="half_cheetah.xml",
        observation_dim=17,
        action_dim=6,
        num_positions=8,
        num_velocities=9,
        velocity_limit=None,
        reset_noise_scale=0.1,
        total_mass=14.0,
        # Stock legs are springs with just enough damping to be stable; with five times that they do not move.
        named_levels={"damping": (0.5, 1.25, 2.0)},
        joints={"footjnt": ("bfoot", "ffoot"), "thighjnt": ("bthigh", "fthigh")},
        morphologies={
            "thigh": {
                "easy": _thighs((0.11, -0.11), (-0.09, -0.1)),
                "medium": _thighs((0.08, -0.08), (-0.07, -0.08)),
                "hard": _thighs((0.02, -0.02), (-0.04, -0.05)),
            },
            "torso": {"easy": _torso(0.4), "medium": _torso(0.25), "hard": _torso(0.1)},
        },
        published={
            "otdf-kinematic": scaled_ranges({"bthigh": 0.01}),
            "otdf-morph": fixed(_OTDF_LEGS),
        },
    )
)
