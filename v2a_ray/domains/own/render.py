"""Pictures of anybody's MuJoCo model without OpenGL: the outline of every geom, seen obliquely from above.

The outline of a geom is the convex hull of its projected surface: exact for boxes, close for round shapes, and a hull
for meshes, as MuJoCo's own collisions see them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray
from scipy.spatial import ConvexHull, QhullError

from v2a_ray.domains.own.domain import GymDomain
from v2a_ray.domains.own.environment import model_of
from v2a_ray.errors import DomainError
from v2a_ray.outputs import MARK, new_file

Float = NDArray[np.float64]
_TURN, _TILT = np.radians(20.0), np.radians(35.0)
_RIGHT = np.array([np.cos(_TURN), np.sin(_TURN), 0.0])
_TOWARDS = np.array([np.sin(_TURN) * np.cos(_TILT), -np.cos(_TURN) * np.cos(_TILT), np.sin(_TILT)])
CAMERA: Float = np.stack([_RIGHT, np.cross(_TOWARDS, _RIGHT), _TOWARDS])
"""(3, 3): rows are the picture's right, up, and towards the camera."""
_GRID = 13
_ROBOT, _CHANGED, _WORLD, _EDGE = "#8fa9c9", "#e8923a", "#e4e4e4", "#2b3a4d"
_PANEL_INCHES = 3.6
_SHAPE_FIELDS = ("geom_size", "geom_pos", "geom_quat")
_FORMATS = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class Outline:
    """One geom in the picture's plane.

    Attributes:
        geom: its index.
        points: (P, 2) metres.
        is_robot: whether it can move.
    """

    geom: int
    points: Float
    is_robot: bool


def outlines(model: mujoco.MjModel, data: mujoco.MjData) -> list[Outline]:
    """Every geom that is no plane or height field, farthest from the camera first."""
    found = []
    for geom in np.argsort(data.geom_xpos @ CAMERA[2]):
        local = _surface(model, int(geom))
        if local is None or (model.geom_rgba[geom, 3] == 0.0 and model.geom_matid[geom] < 0):
            continue
        world = data.geom_xpos[geom] + local @ data.geom_xmat[geom].reshape(3, 3).T
        points = world @ CAMERA[:2].T
        try:
            hull = points[ConvexHull(points).vertices]
        except QhullError:  # seen edge-on
            hull = points[:2]
        found.append(Outline(int(geom), hull, model.geom_bodyid[geom] > 0))
    return found


def require_model(domain: GymDomain) -> None:
    """Raise DomainError for an environment that has nothing to draw."""
    if not domain.robot_spec.is_mujoco:
        raise DomainError(
            "has no MuJoCo model to draw", where=domain.name, remedy="an environment that MuJoCo simulates"
        )


def render_environments(domains: Sequence[GymDomain], path: Path) -> None:
    """Draw environments after a reset, one row per environment, stock first; orange marks what a shift has changed.

    Raises DomainError for a format other than PNG, SVG and PDF, and for an environment without a MuJoCo model.
    """
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise DomainError(f"no picture format {suffix!r}", where=str(path), remedy=f"one of {', '.join(_FORMATS)}")
    rows: dict[GymDomain, list[GymDomain]] = {}
    for domain in domains:
        require_model(domain)
        shifted = rows.setdefault(domain.stock, [])
        shifted += [domain] * bool(domain.shifts)
    columns = 1 + max(len(shifted) for shifted in rows.values())
    figure = Figure(figsize=(_PANEL_INCHES * columns, _PANEL_INCHES * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for panels, (stock, shifted) in zip(grid, rows.items(), strict=True):
        _draw_row(panels, [stock, *shifted])
    about = {"Software": MARK} if suffix == ".png" else {"Creator": MARK}
    with new_file(path) as partial:
        figure.savefig(partial, dpi=110, format=suffix.removeprefix("."), metadata=about)


def draw(axes: Any, shapes: Sequence[Outline], changed: frozenset[int] = frozenset()) -> None:
    """Add the outlines to a panel."""
    for shape in shapes:
        colour = _CHANGED if shape.geom in changed else _ROBOT if shape.is_robot else _WORLD
        axes.add_patch(Polygon(shape.points, facecolor=colour, edgecolor=_EDGE, linewidth=0.6))


def middle_of(shapes: Sequence[Outline]) -> Float:
    """(2,) the middle of what can move."""
    points = np.concatenate([shape.points for shape in shapes if shape.is_robot] or [shape.points for shape in shapes])
    return np.asarray((points.min(axis=0) + points.max(axis=0)) / 2.0)


def reset_environment(domain: GymDomain, seed: int) -> Any:
    """The environment at the beginning of an episode, with its geoms where they are then."""
    environment: Any = domain.make()
    environment.reset(seed=seed)
    mujoco.mj_forward(model_of(environment), environment.unwrapped.data)
    return environment


def _draw_row(panels: Sequence[Any], domains: Sequence[GymDomain]) -> None:
    stock: Any = None
    frame: tuple[Float, Float] | None = None
    for axes in panels:
        axes.axis("off")
    for axes, domain in zip(panels, domains, strict=False):
        environment = reset_environment(domain, seed=0)
        model = model_of(environment)
        shapes = outlines(model, environment.unwrapped.data)
        stock = model if stock is None else stock
        draw(axes, shapes, frozenset(_changed(model, stock)))
        points = np.concatenate([shape.points for shape in shapes])
        frame = (points.min(axis=0), points.max(axis=0)) if frame is None else frame
        margin = 0.08 * float((frame[1] - frame[0]).max())
        axes.set_xlim(frame[0][0] - margin, frame[1][0] + margin)
        axes.set_ylim(frame[0][1] - margin, frame[1][1] + margin)
        axes.set_aspect("equal")
        words = domain.slug if not domain.shifts else domain.shift_name
        axes.set_title(words, fontsize=9, fontweight="bold", wrap=True)
        environment.close()


def _changed(model: mujoco.MjModel, stock: mujoco.MjModel) -> Iterator[int]:
    """Geoms whose shape, place in their body or body's mass differs from stock, or whose joint has another range."""
    joints = (model.jnt_range != stock.jnt_range).any(axis=1)
    bodies = set(np.flatnonzero(model.body_mass != stock.body_mass)) | set(model.jnt_bodyid[joints])
    for geom in range(model.ngeom):
        shape = any((getattr(model, name)[geom] != getattr(stock, name)[geom]).any() for name in _SHAPE_FIELDS)
        if shape or model.geom_bodyid[geom] in bodies:
            yield geom


def _surface(model: mujoco.MjModel, geom: int) -> Float | None:
    """(P, 3) points of a geom's surface about its own centre and axes; None for one without an end."""
    kinds, size = mujoco.mjtGeom, model.geom_size[geom]
    turn = np.linspace(0.0, 2.0 * np.pi, 2 * _GRID)
    circle = np.stack([np.cos(turn), np.sin(turn), np.zeros_like(turn)], axis=1)
    tilt = np.linspace(-np.pi / 2, np.pi / 2, _GRID)
    sphere = np.concatenate([circle * np.cos(angle) + (0.0, 0.0, np.sin(angle)) for angle in tilt])
    match int(model.geom_type[geom]):
        case kinds.mjGEOM_SPHERE:
            return np.asarray(sphere * size[0])
        case kinds.mjGEOM_ELLIPSOID:
            return np.asarray(sphere * size)
        case kinds.mjGEOM_CAPSULE:
            return np.concatenate([sphere * size[0] + (0.0, 0.0, end * size[1]) for end in (-1.0, 1.0)])
        case kinds.mjGEOM_CYLINDER:
            return np.concatenate([circle * size[0] + (0.0, 0.0, end * size[1]) for end in (-1.0, 1.0)])
        case kinds.mjGEOM_BOX:
            corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
            return np.asarray(corners * size)
        case kinds.mjGEOM_MESH:
            mesh = int(model.geom_dataid[geom])
            begin = int(model.mesh_vertadr[mesh])
            return np.asarray(model.mesh_vert[begin : begin + int(model.mesh_vertnum[mesh])], np.float64)
    return None
