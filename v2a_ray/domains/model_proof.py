"""Proof that a shifted model is the stock model with the intended changes and no others.

Take the stock model, make the intended changes, and let MuJoCo derive its constants again (`mj_setConst`: masses of
subtrees, inverse weights, statistics). Every number must then equal that of the shifted model. Values that only the
compiler derives from a geom's shape (its bounds, and whether it is centred in its body) count as intended with that
shape.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.model_fields import fields
from v2a_ray.domains.shifts.intentions import Change

# The constants come from the same function, but its inputs may differ in the last bit.
_RELATIVE, _ABSOLUTE = 1e-9, 1e-14
_SHAPE_FIELDS = ("geom_size", "geom_pos", "geom_quat")


def unintended(stock: mujoco.MjModel, shifted: mujoco.MjModel, changes: Sequence[Change]) -> list[str]:
    """Differences between `shifted` and `stock` with `changes`, one line per field; empty if they are equal."""
    rebuilt = copy.copy(stock)
    problems: list[str] = []
    for change in changes:
        for name in change.fields:
            _put(
                rebuilt,
                name,
                np.where(_cells(stock, change, name), _target(stock, shifted, change, name), _get(rebuilt, name)),
            )
        problems += _unmoved(stock, shifted, change)
    for name, rows in _compiler_derived(stock, changes).items():
        _get(rebuilt, name)[rows] = _get(shifted, name)[rows]
    mujoco.mj_setConst(rebuilt, mujoco.MjData(rebuilt))
    one, other = fields(rebuilt), fields(shifted)
    for name in one:
        expected, found = np.asarray(one[name]), np.asarray(other[name])
        if expected.shape != found.shape:
            problems.append(f"{name} has shape {found.shape}, intended {expected.shape}")
            continue
        wrong = ~_equal(expected, found)
        if wrong.any():
            where = ", ".join(
                _place(shifted, name, row) for row in sorted({int(at[0]) for at in np.argwhere(np.atleast_1d(wrong))})
            )
            problems.append(f"{name} is not as intended at {where}")
    return problems


def _unmoved(stock: mujoco.MjModel, shifted: mujoco.MjModel, change: Change) -> Iterator[str]:
    """Elements that should change and did not."""
    moved = [_rows((_get(stock, name) != _get(shifted, name)) & _cells(stock, change, name)) for name in change.fields]
    meant = [_rows(_cells(stock, change, name)) for name in change.fields]
    missing = np.any(meant, axis=0) & ~np.any(moved, axis=0)
    if missing.any():
        places = ", ".join(_place(stock, change.fields[0], int(row)) for row in np.flatnonzero(missing))
        yield f"{' '.join(change.fields)} should change and does not at {places}"


def _target(stock: mujoco.MjModel, shifted: mujoco.MjModel, change: Change, name: str) -> NDArray[Any]:
    if change.value is not None:
        return np.full_like(_get(stock, name), change.value)
    return _get(shifted, name) if change.factor is None else _get(stock, name) * change.factor


def _cells(model: mujoco.MjModel, change: Change, name: str) -> NDArray[np.bool_]:
    """(rows, ...) of a field: the numbers that `change` covers."""
    values = _get(model, name)
    cells = np.zeros(values.shape, bool)
    rows: Any = slice(None)
    if change.names is not None:
        rows = [_row(model, name, element) for element in change.names]
    columns: Any = slice(None) if change.columns is None else list(change.columns)
    if values.ndim == 1 and name.startswith("opt."):
        cells[columns] = True
    elif values.ndim == 1:
        cells[rows] = True
    else:
        for row in np.arange(len(values))[rows]:
            cells[row, columns] = True
    if change.names is None and change.factor is not None:
        cells &= values != 0.0
    return cells


def _row(model: mujoco.MjModel, name: str, element: str) -> int:
    kind = name.partition("_")[0]
    if kind == "body":
        bodies = [model.body(body).name for body in range(model.nbody)]
        return bodies.index(element) if element in bodies else int(model.geom(element).bodyid[0])
    if kind == "geom":
        return int(model.geom(element).id)
    joint = int(model.joint(element).id)
    if kind == "jnt":
        return joint
    if kind == "dof":
        return int(model.jnt_dofadr[joint])
    assert kind == "actuator", name
    return int(np.flatnonzero(model.actuator_trnid[:, 0] == joint)[0])


def _compiler_derived(model: mujoco.MjModel, changes: Sequence[Change]) -> dict[str, list[int]]:
    """Field -> rows that depend on the shape of a changed geom but that `mj_setConst` does not recompute."""
    geoms = sorted(
        {_row(model, "geom", geom) for each in changes if each.fields == _SHAPE_FIELDS for geom in each.names or ()}
    )
    bodies = sorted({int(model.geom_bodyid[geom]) for geom in geoms})
    nodes = [
        node
        for body in bodies
        for node in range(model.body_bvhadr[body], model.body_bvhadr[body] + model.body_bvhnum[body])
    ]
    by_field = dict.fromkeys(("geom_rbound", "geom_aabb", "geom_sameframe"), geoms)
    return by_field | {"body_sameframe": bodies, "bvh_aabb": nodes} if geoms else {}


def _place(model: mujoco.MjModel, name: str, row: int) -> str:
    """A row in words, by its element's name if it has one."""
    kind = name.partition("_")[0]
    if kind == "actuator" and len(np.atleast_1d(_get(model, name))) == model.nu:
        return str(model.joint(int(model.actuator_trnid[row, 0])).name)
    if kind == "dof":
        return str(model.joint(int(model.dof_jntid[row])).name)
    named = {"geom": (model.geom, model.ngeom), "body": (model.body, model.nbody), "jnt": (model.joint, model.njnt)}
    if kind in named and len(np.atleast_1d(_get(model, name))) == named[kind][1]:
        return str(named[kind][0](row).name) or f"{kind} {row}"
    return str(row)


def _rows(cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(cells.reshape(len(cells), -1).any(axis=1))


def _equal(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.bool_]:
    if one.dtype.kind != "f":
        return np.asarray(one == other)
    return np.asarray(np.isclose(one, other, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True))


def _get(model: mujoco.MjModel, name: str) -> NDArray[Any]:
    """A field as an array of at least one dimension; `opt.` and `stat.` are parts of the model."""
    part, dot, attribute = name.partition(".")
    return np.atleast_1d(getattr(getattr(model, part), attribute) if dot else getattr(model, name))


def _put(model: mujoco.MjModel, name: str, values: NDArray[Any]) -> None:
    part, dot, attribute = name.partition(".")
    owner = getattr(model, part) if dot else model
    attribute = attribute or name
    if isinstance(getattr(owner, attribute), np.ndarray):
        getattr(owner, attribute)[:] = values
    else:
        setattr(owner, attribute, float(values[0]))
