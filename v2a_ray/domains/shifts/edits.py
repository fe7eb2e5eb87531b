"""Edits, the parts of a dynamics shift: each changes one attribute in a MuJoCo specification.

A shift has no model of its own; it is a list of edits of the model that gymnasium ships. Unlike a copied XML file, an
edit can be printed, compared and tested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

_SIZES = {"radius": 0, "half_length": 1}  # of a capsule: index into a geom's `size`
_MASS_FACTOR = "mass_factor"


@dataclass(frozen=True)
class Edit:
    """Set `attribute` of one element to `value`, in the units of the robot's XML file.

    Attributes:
        element: "geom", "joint", "body", "actuator", or "option".
        name: the element's name in the XML file; for "actuator" the joint it drives; empty for "option".
        attribute: the attribute to set. A geom's "fromto" is (x, y, z, x, y, z) in its body's frame, its "radius" and
            "half_length" are lengths, all in metres; a joint's "range" is in degrees or radians, as in the file; a
            body's "mass_factor" multiplies mass and inertia of the finished model, however they were computed.
        value: the new numbers.
    """

    element: str
    name: str
    attribute: str
    value: tuple[float, ...]

    @property
    def place(self) -> str:
        """The edited attribute, for example `joint foot_joint range`."""
        return " ".join(part for part in (self.element, self.name, self.attribute) if part)

    def old(self, spec: mujoco.MjSpec) -> tuple[float, ...] | None:
        """The current value in `spec`, or None if the file gives the geometry in another way."""
        if self.attribute == _MASS_FACTOR:
            return (1.0,)
        target = _target(spec, self)
        if self.attribute in _SIZES:
            return (float(target.size[_SIZES[self.attribute]]),)
        values = np.atleast_1d(getattr(target, self.attribute)).astype(float)
        return None if np.isnan(values).any() else tuple(values.tolist())

    def apply(self, spec: mujoco.MjSpec) -> None:
        """Change `spec` in place, unless `finish` applies this edit later."""
        if self.attribute == _MASS_FACTOR:
            return
        target = _target(spec, self)
        if self.attribute in _SIZES:
            target.size[_SIZES[self.attribute]] = self.value[0]
            return
        if isinstance(getattr(target, self.attribute), float):
            setattr(target, self.attribute, self.value[0])
            return
        getattr(target, self.attribute)[:] = self.value
        if self.attribute == "fromto":
            # The two ends now define the frame and the half-length. Clear the file's own values: most would be
            # ignored, but an axis-angle would override the ends.
            target.pos[:] = 0.0
            target.quat[:] = (1.0, 0.0, 0.0, 0.0)
            target.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT

    def finish(self, model: mujoco.MjModel) -> None:
        """If this edits a mass, change `model`, which is compiled and has its final inertia, in place.

        The file gives no masses. The physics' rule computes them from geoms, and HalfCheetah's are then scaled to a
        fixed total. A load is added to that total.
        """
        if self.attribute == _MASS_FACTOR:
            body = model.body(self.name).id
            model.body_mass[body] *= self.value[0]
            model.body_inertia[body] *= self.value[0]
            mujoco.mj_setConst(model, mujoco.MjData(model))


def capsule(geom: str, ends: tuple[float, ...], radius: float | None = None) -> tuple[Edit, ...]:
    """Edits that give a capsule new end points (six coordinates, metres) and, if given, a new radius (metres)."""
    edits = (Edit("geom", geom, "fromto", ends),)
    return edits if radius is None else (*edits, Edit("geom", geom, "radius", (radius,)))


def moved(element: str, name: str, position: tuple[float, float, float]) -> Edit:
    """The edit that puts a joint or a body at `position`, in metres in its parent's frame."""
    return Edit(element, name, "pos", position)


def _target(spec: mujoco.MjSpec, edit: Edit) -> Any:
    if edit.element == "option":
        return spec.option
    if edit.element == "actuator":
        # Most actuators have no name of their own.
        (target,) = (actuator for actuator in spec.actuators if actuator.target == edit.name)
        return target
    finders = {"geom": spec.geom, "joint": spec.joint, "body": spec.body}
    target = finders[edit.element](edit.name)
    assert target is not None, f"no {edit.element} named {edit.name} in {spec.modelname}"
    return target
