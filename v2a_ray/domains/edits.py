"""What a dynamics shift is made of: single changes of single attributes of a MuJoCo specification.

A shift never carries a model of its own; it is a list of edits of the model that gymnasium ships. An edit can be
printed, compared and tested, which a copied XML file cannot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

_SIZES = {"radius": 0, "half_length": 1}  # of a capsule: index into a geom's `size`


@dataclass(frozen=True)
class Edit:
    """Set `attribute` of one element to `value`, in the units of the robot's XML file.

    Attributes:
        element: "geom", "joint", "body", or "option".
        name: the element's name in the XML file; empty for "option".
        attribute: the attribute to set. A geom's "fromto" is (x, y, z, x, y, z) in its body's frame, its "radius" and
            "half_length" are lengths, all in metres; a joint's "range" is in degrees or radians, as the file has it.
        value: the new numbers.
    """

    element: str
    name: str
    attribute: str
    value: tuple[float, ...]

    @property
    def place(self) -> str:
        """What is edited, for example `joint foot_joint range`."""
        return " ".join(part for part in (self.element, self.name, self.attribute) if part)

    def old(self, spec: mujoco.MjSpec) -> tuple[float, ...] | None:
        """The present value in `spec`, or None where the file gives the geometry in another way."""
        target = _target(spec, self)
        if self.attribute in _SIZES:
            return (float(target.size[_SIZES[self.attribute]]),)
        values = np.atleast_1d(getattr(target, self.attribute)).astype(float)
        return None if np.isnan(values).any() else tuple(values.tolist())

    def apply(self, spec: mujoco.MjSpec) -> None:
        """Change `spec` in place."""
        target = _target(spec, self)
        if self.attribute in _SIZES:
            target.size[_SIZES[self.attribute]] = self.value[0]
            return
        getattr(target, self.attribute)[:] = self.value
        if self.attribute == "fromto":
            # Both ends now define the frame and the half-length; what the file said about them would be ignored or,
            # for an axis-angle, win.
            target.pos[:] = 0.0
            target.quat[:] = (1.0, 0.0, 0.0, 0.0)
            target.alt.type = mujoco.mjtOrientation.mjORIENTATION_QUAT


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
    finders = {"geom": spec.geom, "joint": spec.joint, "body": spec.body}
    target = finders[edit.element](edit.name)
    assert target is not None, f"no {edit.element} named {edit.name} in {spec.modelname}"
    return target
