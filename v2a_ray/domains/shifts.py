"""Dynamics shifts by name: `gravity-0.5`, `friction-2`, `kinematic-footjnt-easy`, `morph-torso-hard`, `otdf-morph`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import mujoco

from v2a_ray.domains.edits import Edit
from v2a_ray.domains.robots import RobotSpec, robot, scaled_ranges
from v2a_ray.errors import DomainError

PUBLISHED_FACTORS = (0.1, 0.5, 2.0, 5.0)
# Beyond these the simulation is unstable or nothing moves; the published factors are 0.1 to 5.
SMALLEST_FACTOR, LARGEST_FACTOR = 1e-3, 20.0


@dataclass(frozen=True)
class Shift:
    """One change of a robot's dynamics.

    Attributes:
        kind: "gravity", "friction", "kinematic", "morph" or "otdf".
        part: the joint or body part ("footjnt", "torso"); for "otdf" which target; empty for gravity and friction.
        level: "easy", "medium" or "hard"; a factor; or empty for "otdf".
    """

    kind: str
    part: str = ""
    level: str | float = ""

    @property
    def name(self) -> str:
        """Canonical name, for example `kinematic-footjnt-easy`."""
        level = format(self.level, "g") if isinstance(self.level, float) else self.level
        return "-".join(part for part in (self.kind, self.part, level) if part)


def parse_shift(text: str, robot_name: str) -> Shift:
    """Read one shift of a robot. Raises DomainError with the shifts, parts or levels that exist."""
    spec = robot(robot_name)
    where = f"shift {text!r} of {robot_name}"
    kind, *rest = text.split("-", 1)
    argument = rest[0] if rest else ""
    if kind in ("gravity", "friction"):
        return Shift(kind, level=_factor(argument, where))
    if text == "otdf-gravity":
        return Shift("gravity", level=0.5)
    if kind == "otdf" and text in spec.published:
        return Shift(kind, part=argument)
    if kind in ("kinematic", "morph"):
        part, _, level = argument.partition("-")
        parts = spec.joints if kind == "kinematic" else spec.morphologies
        if part not in parts:
            raise DomainError(f"no part {part!r}", where=where, remedy=f"one of {', '.join(parts)}")
        levels = spec.joint_levels if kind == "kinematic" else spec.morphologies[part]
        if level in levels:
            return Shift(kind, part, level)
        if kind == "kinematic" and level[:1].isdigit():
            return Shift(kind, part, _factor(level, where))
        also = " or a factor on the range" if kind == "kinematic" else ""
        raise DomainError(f"no level {level!r}", where=where, remedy=f"one of {', '.join(levels)}{also}")
    known = "stock, gravity-K, friction-K, kinematic-PART-LEVEL, morph-PART-LEVEL, otdf-gravity, otdf-kinematic"
    raise DomainError("no such shift", where=where, remedy=f"one of {known}, otdf-morph, joined by '+'")


def shift_edits(shift: Shift, spec: RobotSpec, stock: mujoco.MjSpec) -> tuple[Edit, ...]:
    """What `shift` changes in the robot's `stock` specification (read, not changed)."""
    if shift.kind == "gravity":
        assert isinstance(shift.level, float)
        x, y, z = (float(value) for value in stock.option.gravity)
        return (Edit("option", "", "gravity", (x, y, z * shift.level)),)
    if shift.kind == "friction":
        assert isinstance(shift.level, float)
        return tuple(_friction_edits(shift.level, spec, stock))
    if shift.kind == "kinematic":
        factor = shift.level if isinstance(shift.level, float) else spec.joint_levels[shift.level]
        return scaled_ranges(dict.fromkeys(spec.joints[shift.part], factor))(stock)
    if shift.kind == "morph":
        return spec.morphologies[shift.part][str(shift.level)]
    return spec.published[shift.name](stock)


def named_shifts(robot_name: str) -> list[tuple[Shift, ...]]:
    """Stock (no shift) and every published shift of a robot, one at a time."""
    spec = robot(robot_name)
    shifts = [Shift(kind, level=factor) for kind in ("friction", "gravity") for factor in PUBLISHED_FACTORS]
    shifts += [Shift("kinematic", part, level) for part in spec.joints for level in spec.joint_levels]
    shifts += [Shift("morph", part, level) for part, levels in spec.morphologies.items() for level in levels]
    shifts += [Shift("otdf", part=name.removeprefix("otdf-")) for name in spec.published]
    return [(), *((shift,) for shift in shifts)]


def _friction_edits(factor: float, spec: RobotSpec, stock: mujoco.MjSpec) -> Iterator[Edit]:
    for geom in stock.geoms:
        sliding, torsional, rolling = (float(value) for value in geom.friction)
        if not spec.floor_keeps_friction:
            yield Edit("geom", geom.name, "friction", (factor * sliding, factor * torsional, factor * rolling))
        elif geom.name != "floor":
            yield Edit("geom", geom.name, "friction", (factor * sliding, torsional, rolling))


def _factor(text: str, where: str) -> float:
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not SMALLEST_FACTOR <= factor <= LARGEST_FACTOR:
        raise DomainError(
            f"factor {text!r} is not a number between {SMALLEST_FACTOR:g} and {LARGEST_FACTOR:g}",
            where=where,
            remedy="a factor on the stock value, for example gravity-0.5",
        )
    return factor
