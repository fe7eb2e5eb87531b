"""Capsule inertia as MuJoCo computed it before version 2.1.2, when D4RL, ODRL and OTDF recorded their data.

A capsule of half-length h and radius r then had the mass and inertia of a cylinder of length 2 h + r. With this rule
simulation matches recorded data to float32 precision; with today's exact one a Hopper is 0.55 kg heavier.
"""

from __future__ import annotations

import mujoco
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]


def apply_legacy_inertia(model: mujoco.MjModel, specification: mujoco.MjSpec, total_mass: float | None) -> None:
    """Recompute mass, centre, inertia and inertial frame of every body in place, then MuJoCo's derived constants.

    Args:
        model: compiled from `specification`; its geoms are spheres, capsules, and the world's plane.
        specification: gives each geom's density (kg / m^3), which a compiled model no longer holds.
        total_mass: kilograms to scale the robot to, or None.
    """
    density = np.array([geom.density for geom in specification.geoms])
    for body in range(1, model.nbody):
        geoms = [geom for geom in range(model.ngeom) if model.geom_bodyid[geom] == body]
        _set_body(model, body, geoms, density)
    if total_mass is not None:
        scale = total_mass / model.body_mass.sum()
        model.body_mass *= scale
        model.body_inertia *= scale
    mujoco.mj_setConst(model, mujoco.MjData(model))


def _set_body(model: mujoco.MjModel, body: int, geoms: list[int], density: Float) -> None:
    parts = [_geom_inertia(int(model.geom_type[g]), model.geom_size[g], float(density[g])) for g in geoms]
    masses = np.array([mass for mass, _ in parts])
    model.body_mass[body] = masses.sum()
    if len(geoms) == 1:
        # One geom: its own frame is the inertial frame, exactly as the compiler takes it.
        model.body_ipos[body] = model.geom_pos[geoms[0]]
        model.body_iquat[body] = model.geom_quat[geoms[0]]
        model.body_inertia[body] = parts[0][1]
        return
    centre = masses @ model.geom_pos[geoms] / masses.sum()
    tensor = np.zeros((3, 3))
    for geom, (mass, diagonal) in zip(geoms, parts, strict=True):
        flat = np.zeros(9)
        mujoco.mju_quat2Mat(flat, model.geom_quat[geom])
        rotation = flat.reshape(3, 3)
        offset = model.geom_pos[geom] - centre
        tensor += rotation @ np.diag(diagonal) @ rotation.T
        tensor += mass * (offset @ offset * np.eye(3) - np.outer(offset, offset))
    eigenvalues, eigenvectors, quaternion = np.zeros(3), np.zeros(9), np.zeros(4)
    mujoco.mju_eig3(eigenvalues, eigenvectors, quaternion, tensor.reshape(-1))
    model.body_ipos[body] = centre
    model.body_iquat[body] = quaternion
    model.body_inertia[body] = eigenvalues


def _geom_inertia(kind: int, size: Float, density: float) -> tuple[float, Float]:
    """Mass (kg) and diagonal inertia (3,) (kg m^2) about the geom's own centre and axes."""
    radius = float(size[0])
    if kind == mujoco.mjtGeom.mjGEOM_SPHERE:
        mass = density * 4.0 / 3.0 * np.pi * radius**3
        return mass, np.full(3, 0.4 * mass * radius**2)
    assert kind == mujoco.mjtGeom.mjGEOM_CAPSULE, f"no legacy inertia rule for geom type {kind}"
    length = 2.0 * float(size[1]) + radius
    mass = density * np.pi * radius**2 * length
    across = mass * (3.0 * radius**2 + length**2) / 12.0
    return mass, np.array([across, across, mass * radius**2 / 2.0])
