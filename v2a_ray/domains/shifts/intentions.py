"""The intended changes of each shift in a compiled model, declared separately from its edits.

`v2a_ray.domains.model_proof` proves that a shift makes these changes and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from v2a_ray.domains.robot_spec import RobotSpec
from v2a_ray.domains.shifts.names import Shift


@dataclass(frozen=True)
class Change:
    """Fields of the compiled model that a shift is intended to change, on each of some elements.

    Attributes:
        fields: names in `MjModel` of arrays with one row per element (or `opt.` and one of its numbers); at least one
            of them must change on each element.
        names: the elements, according to the fields' prefix: joints for `jnt_` and `dof_`, driven joints for
            `actuator_`, geoms for `geom_`, and for `body_` a body or a geom that it owns. None means all nonzero ones.
        columns: entries of a row; None means all.
        factor: factor on stock's numbers.
        value: the new numbers. If `factor` is None too, any new numbers are allowed.
    """

    fields: tuple[str, ...]
    names: tuple[str, ...] | None = None
    columns: tuple[int, ...] | None = None
    factor: float | None = None
    value: float | None = None


_SHAPE = ("geom_size", "geom_pos", "geom_quat")
_INERTIA = ("body_mass", "body_inertia", "body_ipos", "body_iquat")

_JOINTS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "hopper": {"footjnt": ("foot_joint",), "legjnt": ("leg_joint",), "otdf": ("thigh_joint", "foot_joint")},
    "walker2d": {
        "footjnt": ("foot_joint", "foot_left_joint"),
        "thighjnt": ("thigh_joint", "thigh_left_joint"),
        "otdf": ("foot_joint",),
    },
    "half_cheetah": {"footjnt": ("bfoot", "ffoot"), "thighjnt": ("bthigh", "fthigh"), "otdf": ("bthigh",)},
    "ant": {
        "hipjnt": ("hip_1", "hip_2", "hip_3", "hip_4"),
        "anklejnt": ("ankle_1", "ankle_2", "ankle_3", "ankle_4"),
        "otdf": ("hip_1", "hip_2"),
    },
}
"""Robot's file -> part -> joints whose range a kinematic shift narrows. Everything else stays bit-identical."""


@dataclass(frozen=True)
class _Shape:
    """Geoms that a morphology shift reshapes, and the parts that it moves to keep the robot connected."""

    geoms: tuple[str, ...]
    moved_bodies: tuple[str, ...] = ()
    moved_joints: tuple[str, ...] = ()


_CHEETAH_LEGS = _Shape(("bthigh", "bshin", "fthigh", "fshin"), ("bshin", "bfoot", "fshin", "ffoot"))
_WALKER_RIGHT_LEG = _Shape(("thigh_geom", "leg_geom"), moved_joints=("leg_joint",))
_SHAPES: Mapping[str, Mapping[str, _Shape]] = {
    "hopper": {
        "foot": _Shape(("foot_geom",)),
        "torso": _Shape(("torso_geom",)),
        "otdf": _Shape(("torso_geom", "thigh_geom")),
    },
    "walker2d": {
        "leg": _Shape(
            (*_WALKER_RIGHT_LEG.geoms, "thigh_left_geom", "leg_left_geom"),
            moved_joints=("leg_joint", "leg_left_joint"),
        ),
        "torso": _Shape(("torso_geom",)),
        "otdf": _Shape((*_WALKER_RIGHT_LEG.geoms, "foot_geom"), moved_joints=("leg_joint", "foot_joint")),
    },
    "half_cheetah": {
        "thigh": _CHEETAH_LEGS,
        "torso": _Shape(("torso", "head"), ("bthigh", "fthigh")),
        "otdf": _Shape((*_CHEETAH_LEGS.geoms, "bfoot"), _CHEETAH_LEGS.moved_bodies),
    },
    "ant": {
        "alllegs": _Shape(("left_ankle_geom", "right_ankle_geom", "third_ankle_geom", "fourth_ankle_geom")),
        "halflegs": _Shape(("left_ankle_geom", "right_ankle_geom")),
        "otdf": _Shape(("left_ankle_geom", "right_ankle_geom")),
    },
}
"""Robot's file -> part -> geoms. The inertia of their bodies changes with them."""

_RESCALED = {"half_cheetah": ("torso", "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot")}
"""Bodies whose mass depends on every geom, because the robot is scaled to a total of 14 kg."""

_HOPPER_BODY = ("torso_geom", "thigh_geom", "leg_geom", "foot_geom")
_BY_FACTOR: Mapping[str, Callable[[str], tuple[Change, ...]]] = {
    "gravity": lambda asset: (Change(("opt.gravity",)),),
    "friction": lambda asset: (
        (Change(("geom_friction",), _HOPPER_BODY, columns=(0,)) if asset == "hopper" else Change(("geom_friction",))),
    ),
    "actuator": lambda asset: (Change(("actuator_gear",)),),
    "damping": lambda asset: (Change(("dof_damping",)),),
    "mass": lambda asset: (Change(("body_mass",), ("torso",)), Change(("body_inertia",), ("torso",))),
}
"""Kind -> the changes whose factor is its number, for a robot's file."""


def intended_changes(shift: Shift, spec: RobotSpec) -> tuple[Change, ...] | None:
    """The intended changes of `shift` in the robot's stock model; None if they are not declared."""
    asset = Path(spec.asset).stem
    factor = shift.level if isinstance(shift.level, float) else None
    if shift.kind in _BY_FACTOR:
        return tuple(replace(change, factor=factor) for change in _BY_FACTOR[shift.kind](asset))
    if shift.kind == "wind":
        assert factor is not None
        return (
            Change(("opt.wind",), columns=(0,), value=-factor),
            Change(("opt.density",), value=1.2),
            Change(("opt.viscosity",), value=1.8e-5),
        )
    if shift.kind in ("action_noise", "action_delay"):
        return ()
    # The part of "otdf-kinematic" and "otdf-morph" is their real kind.
    kind, part = (shift.part, "otdf") if shift.kind == "otdf" else (shift.kind, shift.part)
    if kind == "kinematic" and part in _JOINTS.get(asset, {}):
        return (Change(("jnt_range",), _JOINTS[asset][part]),)
    if kind == "morph" and part in _SHAPES.get(asset, {}):
        return _shape_changes(_SHAPES[asset][part], asset)
    return None


def _shape_changes(shape: _Shape, asset: str) -> tuple[Change, ...]:
    return tuple(
        change
        for change in (
            Change(_SHAPE, shape.geoms),
            Change(_INERTIA, _RESCALED.get(asset, shape.geoms)),
            Change(("body_pos",), shape.moved_bodies),
            Change(("jnt_pos",), shape.moved_joints),
        )
        if change.names != ()
    )
