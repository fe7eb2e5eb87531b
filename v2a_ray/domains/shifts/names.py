"""Dynamics shifts by name: `gravity-0.5`, `kinematic-footjnt-easy`, `morph-torso-hard`, `otdf-morph`, `wind-10`.

`KINDS` is the table of all kinds. Kinds published by ODRL and OTDF come first. The named levels of the others were
chosen for each robot by the return that an unchanged stock policy loses (`benchmarks/shift_severity.py`,
docs/shift_severity.md): from little to nearly everything. Only a delay costs most of the return already at one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches

import mujoco

from v2a_ray.domains.robot_spec import RobotSpec, robot
from v2a_ray.domains.shifts.edits import Edit
from v2a_ray.domains.shifts.execution import Execution
from v2a_ray.domains.shifts.kinds import KinematicKind, MorphologyKind, Number, NumberKind, OTDFKind, Shift, ShiftKind
from v2a_ray.errors import DomainError

__all__ = ["KINDS", "Shift", "combined_execution", "named_shifts", "parse_shift", "shift_edits"]

AIR_DENSITY, AIR_VISCOSITY = 1.2, 1.8e-5  # kg / m^3 and Pa s, at 20 degrees Celsius


def _friction(factor: float, spec: RobotSpec, stock: mujoco.MjSpec) -> Iterator[Edit]:
    """All three coefficients of all geoms, or only the ones that `RobotSpec.floor_keeps_friction` allows."""
    for geom in stock.geoms:
        sliding, torsional, rolling = (float(value) for value in geom.friction)
        if not spec.floor_keeps_friction:
            yield Edit("geom", geom.name, "friction", (factor * sliding, factor * torsional, factor * rolling))
        elif geom.name != "floor":
            yield Edit("geom", geom.name, "friction", (factor * sliding, torsional, rolling))


def _gravity(factor: float, spec: RobotSpec, stock: mujoco.MjSpec) -> Iterator[Edit]:
    x, y, z = (float(value) for value in stock.option.gravity)
    yield Edit("option", "", "gravity", (x, y, z * factor))


def _actuator(factor: float, spec: RobotSpec, stock: mujoco.MjSpec) -> Iterator[Edit]:
    """The gear of every actuator: torque per unit of action."""
    for actuator in stock.actuators:
        yield Edit("actuator", actuator.target, "gear", tuple(factor * float(gear) for gear in actuator.gear))


def _damping(factor: float, spec: RobotSpec, stock: mujoco.MjSpec) -> Iterator[Edit]:
    """The damping of every actuated joint: 0.1 to 6 N m s/rad in stock. The root's joints have no damping."""
    for actuator in stock.actuators:
        damping = float(stock.joint(actuator.target).damping)
        yield Edit("joint", actuator.target, "damping", (factor * damping,))


def _mass(factor: float, spec: RobotSpec, stock: mujoco.MjSpec) -> Iterator[Edit]:
    """A load distributed over the torso like its own mass; the mass of other bodies does not change."""
    yield Edit("body", "torso", "mass_factor", (factor,))


def _wind(speed: float, spec: RobotSpec, stock: mujoco.MjSpec) -> Iterator[Edit]:
    """Wind along x, the rewarded direction; positive blows against it. Stock robots move in a vacuum."""
    yield Edit("option", "", "wind", (-speed, 0.0, 0.0))
    yield Edit("option", "", "density", (AIR_DENSITY,))
    yield Edit("option", "", "viscosity", (AIR_VISCOSITY,))


_PUBLISHED = (0.1, 0.5, 2.0, 5.0)

KINDS: dict[str, ShiftKind] = {
    "friction": NumberKind("friction", "K", Number("friction factor", 1e-3, 20.0), _PUBLISHED, _friction),
    "gravity": NumberKind("gravity", "K", Number("gravity factor", 1e-3, 20.0), _PUBLISHED, _gravity),
    "kinematic": KinematicKind(),
    "morph": MorphologyKind(),
    "otdf": OTDFKind(),
    "actuator": NumberKind("actuator", "K", Number("actuator factor", 1e-2, 10.0), (0.8, 0.5, 0.2), _actuator),
    "damping": NumberKind("damping", "K", Number("joint damping factor", 1e-2, 50.0), (0.2, 2.0, 5.0), _damping),
    "mass": NumberKind("mass", "K", Number("torso mass factor", 0.1, 50.0), (1.25, 1.5, 2.0), _mass),
    # 10 m/s press on a standing robot, Ant excepted, with 4 to 6 % of its weight, 20 m/s with four times that.
    "wind": NumberKind(
        "wind",
        "V",
        Number("wind speed (m/s, negative from behind)", 0.1, 50.0, stock=0.0, signed=True),
        (10.0, 20.0, -10.0),
        _wind,
    ),
    "action_noise": NumberKind(
        "action_noise",
        "S",
        Number("action noise (standard deviation)", 1e-3, 2.0, stock=0.0),
        (0.1, 0.2, 0.4),
        execution_field="noise_std",
    ),
    "action_delay": NumberKind(
        "action_delay",
        "D",
        Number("action delay (environment steps)", 1, 100, stock=0.0, whole=True),
        (1.0, 2.0, 4.0),
        execution_field="delay_steps",
    ),
}


def parse_shift(text: str, robot_name: str) -> Shift:
    """Read one shift of a robot. Raises DomainError with the shifts, parts, levels or bounds that exist."""
    spec = robot(robot_name)
    where = f"shift {text!r} of {robot_name}"
    kind, _, argument = text.partition("-")
    if kind in KINDS:
        return KINDS[kind].parse(argument, spec, where)
    forms = ", ".join(form for each in KINDS.values() for form in each.forms(spec))
    near = get_close_matches(kind, KINDS, n=1)
    meant = f"did you mean {'-'.join([near[0], *([argument] if argument else [])])!r}? " if near else ""
    raise DomainError("no such shift", where=where, remedy=f"{meant}One of stock, {forms}, joined by '+'".strip())


def shift_edits(shift: Shift, spec: RobotSpec, stock: mujoco.MjSpec) -> tuple[Edit, ...]:
    """The edits of `shift` for the robot's `stock` specification, which is not changed."""
    return KINDS[shift.kind].edits(shift, spec, stock)


def combined_execution(shifts: Sequence[Shift]) -> Execution:
    """The combined execution of `shifts`. Raises DomainError if two set the same field."""
    values: dict[str, float] = {}
    setter: dict[str, Shift] = {}
    for shift in shifts:
        for name, value in KINDS[shift.kind].execution(shift).items():
            if name in setter:
                raise DomainError(
                    f"{setter[name].name} and {shift.name} both set {name}",
                    where=f"shifts {'+'.join(each.name for each in shifts)}",
                    remedy="one of them",
                )
            setter[name], values[name] = shift, value
    return Execution(noise_std=values.get("noise_std", 0.0), delay_steps=int(values.get("delay_steps", 0)))


def named_shifts(robot_name: str) -> list[tuple[Shift, ...]]:
    """Stock (no shift) and every named shift of a robot, one at a time."""
    spec = robot(robot_name)
    return [(), *((shift,) for kind in KINDS.values() for shift in kind.named(spec))]
