"""Shifts in a few words, for tables and pictures."""

from __future__ import annotations

from v2a_ray.domains.compiled_model import domain_edits
from v2a_ray.domains.robot_spec import RobotSpec
from v2a_ray.domains.shifts.names import Shift

_BY_NUMBER = {
    "gravity": "gravity × {:g}",
    "friction": "friction × {:g}",
    "actuator": "motor torque × {:g}",
    "damping": "joint damping × {:g}",
    "mass": "torso mass × {:g}",
    "action_noise": "action noise, std {:g}",
    "action_delay": "actions {:g} steps late",
}


def describe_shift(shift: Shift, spec: RobotSpec) -> str:
    """What `shift` does to the robot, for example `gravity × 0.5` or `range of foot_joint × 0.8`."""
    if isinstance(shift.level, float) and shift.kind in _BY_NUMBER:
        return _BY_NUMBER[shift.kind].format(shift.level)
    if shift.kind == "wind":
        assert isinstance(shift.level, float)
        return f"{'headwind' if shift.level > 0 else 'tailwind'}, {abs(shift.level):g} m/s"
    edits = [edit for _, edit in domain_edits(spec, (shift,))]
    element = "geom" if any(edit.element == "geom" for edit in edits) else "joint"
    names = ", ".join(dict.fromkeys(edit.name.removesuffix("_geom") for edit in edits if edit.element == element))
    if shift.kind == "kinematic":
        factor = spec.joint_levels[shift.level] if isinstance(shift.level, str) else shift.level
        return f"range of {names} × {factor:g}"
    return f"range of {names}" if element == "joint" else f"shape of {names}"
