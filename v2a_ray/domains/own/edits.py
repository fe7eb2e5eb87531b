"""Shifts of any environment that MuJoCo simulates, as edits of its compiled model: `gravity-0.5`, `mass:torso-2`.

The XML file behind an environment is not ours to find, so numbers of the compiled model are set instead, which every
environment has. A shift is `KIND-NUMBER`, or `KIND:NAME-NUMBER` for one joint, geom, body or actuator alone. What the
compiler derives from a shape (a body's mass, say) stays as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.robot_spec import scaled_range
from v2a_ray.domains.shifts.kinds import Number, Shift
from v2a_ray.domains.shifts.names import AIR_DENSITY, AIR_VISCOSITY, KINDS
from v2a_ray.errors import DomainError

_MAX_NAMES = 12


@dataclass(frozen=True)
class ModelEdit:
    """Set a row of one field of a compiled model.

    Attributes:
        place: what is edited, for people: `joint WRJ0 range`.
        field: name in `MjModel`, or `opt.` and a name in its options.
        row: index; None for the field as a whole.
        value: the new numbers.
    """

    place: str
    field: str
    row: int | None
    value: tuple[float, ...]

    def old(self, model: mujoco.MjModel) -> tuple[float, ...]:
        """The present numbers in `model`."""
        owner, name = _owner(model, self.field)
        found = getattr(owner, name)
        return tuple(np.atleast_1d(found if self.row is None else found[self.row]).astype(float).tolist())

    def apply(self, model: mujoco.MjModel) -> None:
        """Change `model` in place."""
        owner, name = _owner(model, self.field)
        if isinstance(getattr(owner, name), float):
            setattr(owner, name, self.value[0])
        elif self.row is None:
            getattr(owner, name)[:] = self.value
        elif np.ndim(getattr(owner, name)) == 1:
            getattr(owner, name)[self.row] = self.value[0]
        else:
            getattr(owner, name)[self.row] = self.value


def apply_edits(model: mujoco.MjModel, edits: Sequence[ModelEdit]) -> None:
    """Change `model` in place, with the constants that MuJoCo derives from masses."""
    for edit in edits:
        edit.apply(model)
    if any(edit.field == "body_mass" for edit in edits):
        mujoco.mj_setConst(model, mujoco.MjData(model))


@dataclass(frozen=True)
class Kind:
    """One kind of shift.

    Attributes:
        number: what it multiplies by or sets, and its bounds.
        element: what NAME in `KIND:NAME-NUMBER` is a name of; empty where there is no such form.
        needs_name: whether `KIND-NUMBER`, of all elements, is refused.
        edits: of the model, the rows of the elements and the number; None for a shift of execution.
    """

    number: Number
    element: str = ""
    needs_name: bool = False
    edits: Callable[[mujoco.MjModel, NDArray[np.int64], float], Iterator[ModelEdit]] | None = None

    def form(self, kind: str) -> str:
        """For messages: `damping[:JOINT]-K`."""
        name = f":{self.element.upper()}"
        return kind + (name if self.needs_name else f"[{name}]" if self.element else "") + "-K"


def _gravity(model: mujoco.MjModel, rows: NDArray[np.int64], factor: float) -> Iterator[ModelEdit]:
    yield ModelEdit("option gravity", "opt.gravity", None, _scaled(model.opt.gravity, factor))


def _friction(model: mujoco.MjModel, rows: NDArray[np.int64], factor: float) -> Iterator[ModelEdit]:
    """All coefficients of geoms and, where all geoms are meant, of contacts that the file defines pair by pair."""
    for row in rows:
        yield _row(model, "geom", "friction", "geom_friction", row, factor)
    for pair in range(model.npair if len(rows) == model.ngeom else 0):
        yield ModelEdit(f"pair {pair} friction", "pair_friction", pair, _scaled(model.pair_friction[pair], factor))


def _mass(model: mujoco.MjModel, rows: NDArray[np.int64], factor: float) -> Iterator[ModelEdit]:
    """Mass and inertia of bodies, as if they were of a denser material."""
    for row in rows[model.body_mass[rows] > 0]:
        yield _row(model, "body", "mass", "body_mass", row, factor)
        yield _row(model, "body", "inertia", "body_inertia", row, factor)


def _damping(model: mujoco.MjModel, rows: NDArray[np.int64], factor: float) -> Iterator[ModelEdit]:
    for joint in rows:
        for dof in np.flatnonzero((model.dof_jntid == joint) & (model.dof_damping > 0)):
            place = f"joint {_name(model, 'joint', joint)} damping"
            yield ModelEdit(place, "dof_damping", int(dof), _scaled(model.dof_damping[dof], factor))


def _actuator(model: mujoco.MjModel, rows: NDArray[np.int64], factor: float) -> Iterator[ModelEdit]:
    """Force per unit of control and of error: gain, bias and limits. The gear would move a servo's goal as well."""
    for row in rows:
        if model.actuator_gaintype[row] not in (mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtGain.mjGAIN_AFFINE):
            raise DomainError(
                f"actuator {_name(model, 'actuator', row)} is a muscle or computes its force itself",
                remedy="name one that does not: actuator:NAME-K",
            )
        for what in ("gainprm", "biasprm", "forcerange"):
            yield _row(model, "actuator", what, f"actuator_{what}", row, factor)


def _wind(model: mujoco.MjModel, rows: NDArray[np.int64], speed: float) -> Iterator[ModelEdit]:
    """Wind along x; positive blows against it. A robot that stands in a vacuum is given air."""
    yield ModelEdit("option wind", "opt.wind", None, (-speed, 0.0, 0.0))
    if model.opt.density == 0.0:
        yield ModelEdit("option density", "opt.density", None, (AIR_DENSITY,))
    if model.opt.viscosity == 0.0:
        yield ModelEdit("option viscosity", "opt.viscosity", None, (AIR_VISCOSITY,))


def _joint_range(model: mujoco.MjModel, rows: NDArray[np.int64], factor: float) -> Iterator[ModelEdit]:
    """The range shrinks towards its point nearest to zero, as in `kinematic` shifts of our robots."""
    for row in rows:
        name = _name(model, "joint", row)
        if not model.jnt_limited[row]:
            raise DomainError(f"joint {name} has no range", remedy="name a joint that has limits")
        low, high = (float(bound) for bound in model.jnt_range[row])
        yield ModelEdit(f"joint {name} range", "jnt_range", int(row), scaled_range(low, high, factor))


def _geom_size(model: mujoco.MjModel, rows: NDArray[np.int64], factor: float) -> Iterator[ModelEdit]:
    """All sizes about the geom's own centre, with the bounds that collisions are looked for in."""
    shapes = mujoco.mjtGeom
    fixed = (shapes.mjGEOM_PLANE, shapes.mjGEOM_HFIELD, shapes.mjGEOM_MESH, shapes.mjGEOM_SDF)
    for row in rows:
        name = _name(model, "geom", row)
        if model.geom_type[row] in fixed:
            raise DomainError(f"geom {name} is a plane, mesh or field, whose size is not a number", remedy="another")
        for field in ("size", "rbound", "aabb"):
            yield _row(model, "geom", field, f"geom_{field}", row, factor)
        body = model.geom_bodyid[row]
        growth = max(0.0, factor - 1.0) * float(model.geom_rbound[row])
        # A body's tree of bounding boxes, half-sizes last: larger ones find the same contacts, smaller ones miss some.
        for node in range(model.body_bvhadr[body], model.body_bvhadr[body] + model.body_bvhnum[body] * (growth > 0)):
            box = model.bvh_aabb[node] + np.array([0.0, 0.0, 0.0, growth, growth, growth])
            yield ModelEdit(f"geom {name} bounds {node}", "bvh_aabb", node, tuple(box.tolist()))


def _number_of(kind: str) -> Number:
    """The bounds of the same kind of shift of our robots."""
    number: Number = KINDS[kind].number  # type: ignore[attr-defined]
    return number


OWN_KINDS: Mapping[str, Kind] = {
    "gravity": Kind(_number_of("gravity"), edits=_gravity),
    "friction": Kind(_number_of("friction"), "geom", edits=_friction),
    "mass": Kind(Number("mass factor", 0.1, 50.0), "body", edits=_mass),
    "damping": Kind(_number_of("damping"), "joint", edits=_damping),
    "actuator": Kind(_number_of("actuator"), "actuator", edits=_actuator),
    "wind": Kind(_number_of("wind"), edits=_wind),
    "joint-range": Kind(Number("range factor", 1e-3, 2.0), "joint", True, _joint_range),
    "geom-size": Kind(Number("size factor", 0.1, 10.0), "geom", True, _geom_size),
    "action_noise": Kind(_number_of("action_noise")),
    "action_delay": Kind(_number_of("action_delay")),
}


def parse_own_shift(text: str, where: str) -> Shift:
    """Read `KIND-NUMBER` or `KIND:NAME-NUMBER`. Raises DomainError with the kinds or bounds that exist."""
    found = next(
        (kind for kind in sorted(OWN_KINDS, key=len, reverse=True) if text.startswith((kind + "-", kind + ":"))), ""
    )
    if not found:
        forms = ", ".join(kind.form(name) for name, kind in OWN_KINDS.items())
        raise DomainError(f"no shift {text!r}", where=where, remedy=f"one of stock, {forms}, joined by '+'")
    kind, rest = OWN_KINDS[found], text.removeprefix(found)
    name, level = "", rest[1:]
    if rest.startswith(":"):
        # A negative number has a dash of its own, and so may a name.
        name, _, level = rest[1:].rpartition("-")
    if (name and not kind.element) or (kind.needs_name and not name):
        raise DomainError(f"cannot read {text!r}", where=where, remedy=f"write {kind.form(found)}")
    value = kind.number.parse(level, where, f"write {kind.form(found)}, for example with K = 0.5")
    return Shift(f"{found}:{name}" if name else found, level=value)


def shift_edits(model: mujoco.MjModel, shifts: Sequence[Shift], where: str) -> list[tuple[Shift, ModelEdit]]:
    """Every edit of the stock `model`, with its shift. Raises DomainError: no such element, or two of one place."""
    found: list[tuple[Shift, ModelEdit]] = []
    editors: dict[str, Shift] = {}
    for shift in shifts:
        kind_name, _, name = shift.kind.partition(":")
        kind = OWN_KINDS[kind_name]
        if kind.edits is None:
            continue
        try:
            edits = list(kind.edits(model, _rows(model, kind.element, name), float(shift.level)))
        except DomainError as error:
            raise DomainError(error.what, where=f"{where} · {shift.name}", remedy=error.remedy) from None
        if not any(edit.old(model) != edit.value for edit in edits):
            raise DomainError(f"{shift.name} changes nothing in this model", where=where, remedy="leave it out")
        for edit in edits:
            other = editors.setdefault(edit.place, shift)
            if other is not shift:
                message = f"{other.name} and {shift.name} both set {edit.place}"
                raise DomainError(message, where=where, remedy="combine shifts of different parts")
            found.append((shift, edit))
    return found


def _rows(model: mujoco.MjModel, element: str, name: str) -> NDArray[np.int64]:
    """Indices of the element of this name; of all without a name."""
    counts = {"": 0, "geom": model.ngeom, "body": model.nbody, "joint": model.njnt, "actuator": model.nu}
    rows = np.arange(counts[element])
    if not name:
        return rows
    names = [_name(model, element, row) for row in rows]
    if name not in names:
        named = [each for each in names if each]
        near = difflib.get_close_matches(name, named, n=5, cutoff=0.4) or named[:_MAX_NAMES]
        more = "" if len(named) <= len(near) else f", of {len(named)}"
        raise DomainError(
            f"no {element} named {name!r}", remedy=f"one of {', '.join(near) or 'none: no name is given'}{more}"
        )
    return rows[[names.index(name)]]


def _name(model: mujoco.MjModel, element: str, row: int | np.int64) -> str:
    return str(getattr(model, element)(int(row)).name)


def _row(model: mujoco.MjModel, element: str, what: str, field: str, row: np.int64, factor: float) -> ModelEdit:
    """The edit that multiplies a row of a field."""
    label = _name(model, element, row) or str(row)
    return ModelEdit(f"{element} {label} {what}", field, int(row), _scaled(getattr(model, field)[row], factor))


def _scaled(values: Any, factor: float) -> tuple[float, ...]:
    return tuple((factor * np.atleast_1d(values)).tolist())


def _owner(model: mujoco.MjModel, field: str) -> tuple[Any, str]:
    part, dot, name = field.partition(".")
    return (getattr(model, part), name) if dot else (model, field)
