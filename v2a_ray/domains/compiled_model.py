"""From a domain to a compiled MuJoCo model: gymnasium's own file, the shifts' edits, and the physics' inertia rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import gymnasium.envs.mujoco
import mujoco
import numpy as np

from v2a_ray.domains.inertia import apply_legacy_inertia
from v2a_ray.domains.robot_spec import RobotSpec
from v2a_ray.domains.shifts.edits import Edit
from v2a_ray.domains.shifts.kinds import Shift
from v2a_ray.domains.shifts.names import shift_edits
from v2a_ray.errors import DomainError


def stock_specification(spec: RobotSpec) -> mujoco.MjSpec:
    """The robot as gymnasium ships it, editable."""
    assets = Path(gymnasium.envs.mujoco.__file__).parent / "assets"
    return mujoco.MjSpec.from_file(str(assets / spec.asset))


def domain_edits(spec: RobotSpec, shifts: Sequence[Shift]) -> list[tuple[Shift, Edit]]:
    """Every edit with its shift. Raises DomainError if two shifts edit the same attribute."""
    stock = stock_specification(spec)
    edits = [(shift, edit) for shift in shifts for edit in shift_edits(shift, spec, stock)]
    editor: dict[str, Shift] = {}
    for shift, edit in edits:
        other = editor.setdefault(edit.place, shift)
        if other is not shift:
            raise DomainError(
                f"{other.name} and {shift.name} both set {edit.place}",
                where=f"domain {spec.name}/{'+'.join(each.name for each in shifts)}",
                remedy="combine shifts of different parts",
            )
    return edits


def compile_model(spec: RobotSpec, shifts: Sequence[Shift], physics: str) -> mujoco.MjModel:
    """The compiled model. Raises DomainError, naming the edits, if it does not compile or survive a first step.

    `physics` is "d4rl" (capsule inertia as MuJoCo computed it before 2.1.2) or "modern" (as compiled).
    """
    specification = stock_specification(spec)
    edits = domain_edits(spec, shifts)
    for _, edit in edits:
        edit.apply(specification)
    shift_names = "+".join(shift.name for shift in shifts) or "stock"
    where = f"{spec.name}/{shift_names}@{physics}"
    if edits:
        where += f", which sets {', '.join(edit.place for _, edit in edits)}"
    try:
        model = specification.compile()
    except ValueError as error:
        raise DomainError(f"MuJoCo refuses the model: {error}", where=where) from error
    if physics == "d4rl":
        apply_legacy_inertia(model, specification, spec.total_mass)
    for _, edit in edits:
        edit.finish(model)
    _check_survives_reset(model, where)
    return model


def _check_survives_reset(model: mujoco.MjModel, where: str) -> None:
    if not np.any(model.opt.gravity):
        raise DomainError("gravity is zero", where=where, remedy="a gravity factor above 0")
    data = mujoco.MjData(model)
    with quiet_mujoco():
        mujoco.mj_step(model, data, nstep=5)
    if has_diverged(data):
        raise DomainError("the simulation diverges at reset", where=where, remedy="milder parameters")


@contextmanager
def quiet_mujoco() -> Iterator[None]:
    """Silence MuJoCo, which warns of a diverging simulation on the terminal and in a file in the current folder."""
    mujoco.set_mju_user_warning(lambda _message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def has_diverged(data: mujoco.MjData) -> bool:
    """Whether MuJoCo had to reset the simulation, or accelerations are not finite."""
    # MuJoCo resets a diverged state and counts a warning, so finite numbers alone prove nothing.
    kinds = (int(getattr(mujoco.mjtWarning, f"mjWARN_{kind}")) for kind in ("BADQPOS", "BADQVEL", "BADQACC"))
    return any(data.warning[kind].number for kind in kinds) or not np.isfinite(data.qacc).all()
