"""Pictures of robots in their domains, stock beside shifted.

Robots consist of capsules and spheres. Their orthographic projection is exactly the convex hull of two discs, which
matplotlib draws without OpenGL or a display. The view is from the side; for Ant it is obliquely from above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from v2a_ray.domains.base import Domain
from v2a_ray.domains.compiled_model import compile_model
from v2a_ray.domains.domain import RobotDomain, require_robot
from v2a_ray.domains.probes import lowest_point
from v2a_ray.domains.shifts.descriptions import describe_shift
from v2a_ray.errors import DomainError
from v2a_ray.outputs import MARK, new_file

Float = NDArray[np.float64]

# A step in mid-stride, in the order of the joints: radians, within every stock range.
_POSES: dict[str, dict[str, float]] = {
    "hopper": {"thigh_joint": -0.5, "leg_joint": -0.9, "foot_joint": 0.55},
    "walker2d": {
        "thigh_joint": -0.7,
        "leg_joint": -0.7,
        "foot_joint": 0.5,
        "thigh_left_joint": -0.05,
        "leg_left_joint": -0.7,
        "foot_left_joint": -0.5,
    },
    "halfcheetah": {"bthigh": 0.5, "bshin": -0.3, "bfoot": 0.4, "fthigh": -0.5, "fshin": 0.3, "ffoot": 0.3},
    "ant": {
        "hip_1": 0.3,
        "hip_2": -0.3,
        "hip_3": 0.3,
        "hip_4": -0.3,
        "ankle_1": 1.0,
        "ankle_2": -1.0,
        "ankle_3": -1.0,
        "ankle_4": 1.0,
    },
}
_OBLIQUE = {"ant": (14.0, 38.0)}  # degrees: azimuth, elevation of the camera; others are seen along y
_FORMATS = (".png", ".svg", ".pdf")
_PANEL_INCHES, _CAPTION_INCHES = 3.1, 0.6
_ROBOT, _CHANGED, _STOCK = "#8fa9c9", "#e8923a", "#777777"
_ARC_POINTS = 40
_ARROW_AT_STOCK = 0.2  # of the panel's height, for stock's gravity and for a wind of 10 m/s


@dataclass(frozen=True)
class _Scene:
    """A domain's robot on the floor in the common pose, as far as its joint ranges allow it."""

    domain: RobotDomain
    model: mujoco.MjModel
    data: mujoco.MjData
    axes: Float  # (3, 3): rows are the picture's right, up, and towards the camera


def render_domains(domains: Sequence[Domain], path: Path | str) -> None:
    """Draw `domains` into a file, one row per robot and physics, stock first.

    All robots of a row have the same scale and pose, except that a joint stops at the end of its range. Orange marks
    reshaped parts and narrowed joint ranges; dashes and grey show stock. Raises DomainError for a format other than
    PNG, SVG and PDF.
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise DomainError(f"no picture format {path.suffix!r}", where=str(path), remedy=f"one of {', '.join(_FORMATS)}")
    rows: dict[RobotDomain, list[RobotDomain]] = {}
    for domain in (require_robot(each, "a picture") for each in domains):
        shifted = rows.setdefault(domain.stock, [])
        shifted += [domain] * bool(domain.shifts)
    columns = 1 + max(len(shifted) for shifted in rows.values())
    scenes = [[_scene(domain) for domain in (stock, *shifted)] for stock, shifted in rows.items()]
    frames = [_frame(row) for row in scenes]
    heights = [
        _PANEL_INCHES * float(np.divide(*np.subtract(high, low)[::-1])) + _CAPTION_INCHES for low, high in frames
    ]
    figure = Figure(figsize=(_PANEL_INCHES * columns, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    for panels, row, frame in zip(grid, scenes, frames, strict=True):
        _draw_row(panels, row, frame)
    suffix = path.suffix.lower()
    about = {"Software": MARK} if suffix == ".png" else {"Creator": MARK}
    with new_file(path) as partial:
        figure.savefig(
            partial, dpi=110, bbox_inches="tight", pad_inches=0.1, format=suffix.removeprefix("."), metadata=about
        )


def camera_of(domain: Domain) -> Float:
    """(3, 3): rows are the picture's right, up, and towards the camera, for the domain's robot."""
    return _camera(*_OBLIQUE.get(domain.base.robot, (0.0, 0.0)))


def robot_outlines(domain: Domain, model: mujoco.MjModel, data: mujoco.MjData) -> list[Float]:
    """Outlines (P, 2) of the robot as it stands in `data`, in metres, farthest from the camera first."""
    return list(_outlines(_Scene(require_robot(domain, "a film"), model, data, camera_of(domain))).values())


def _scene(domain: RobotDomain) -> _Scene:
    spec = domain.robot_spec
    model = compile_model(spec, domain.shifts, domain.physics)
    data = mujoco.MjData(model)
    for joint, angle in _POSES.get(domain.base.robot, {}).items():
        low, high = model.joint(joint).range
        data.qpos[model.joint(joint).qposadr[0]] = np.clip(angle, low, high)
    mujoco.mj_forward(model, data)
    data.qpos[spec.num_unobserved_positions] -= lowest_point(model, data)
    mujoco.mj_forward(model, data)
    return _Scene(domain, model, data, camera_of(domain))


def _camera(azimuth: float, elevation: float) -> Float:
    turn, tilt = np.radians([azimuth, elevation])
    right = np.array([np.cos(turn), np.sin(turn), 0.0])
    towards = np.array([np.sin(turn) * np.cos(tilt), -np.cos(turn) * np.cos(tilt), np.sin(tilt)])
    return np.stack([right, np.cross(towards, right), towards])


def _frame(scenes: Sequence[_Scene]) -> tuple[Float, Float]:
    """Lower left and upper right corner (2,) of the view in the panels of a row, in metres."""
    points = np.concatenate([outline for scene in scenes for outline in _outlines(scene).values()])
    low, high = points.min(axis=0), points.max(axis=0)
    # Tall robots get a wider panel, and low ones room above them, for captions and arrows.
    width, height = (high - low) * (1.2, 1.2)
    spare = max(0.0, 0.85 * height - width) / 2.0
    margin = 0.1 * (high - low).max()
    extra_height = max(0.0, 0.7 * width - height)
    return low - np.array([margin + spare, margin]), high + np.array([margin + spare, margin + extra_height])


def _draw_row(panels: Sequence[Any], scenes: Sequence[_Scene], frame: tuple[Float, Float]) -> None:
    stock = scenes[0]
    for axes in panels:
        axes.axis("off")
    for axes, scene in zip(panels, scenes, strict=False):
        axes.set_xlim(frame[0][0], frame[1][0])
        axes.set_ylim(frame[0][1], frame[1][1])
        axes.set_aspect("equal")
        _draw_floor(axes, scene)
        if scene is not stock:
            _draw_ghost(axes, stock, scene)
        _draw_robot(axes, scene, stock)
        _draw_ranges(axes, scene, stock)
        _draw_arrows(axes, scene)
        words = ", ".join(describe_shift(shift, scene.domain.robot_spec) for shift in scene.domain.shifts)
        title = f"{scene.domain.robot} {scene.domain.shift_name}" if scene is stock else scene.domain.shift_name
        axes.set_title(title, fontsize=11, fontweight="bold", pad=16)
        axes.text(0.5, 1.01, _wrapped(words or f"{scene.domain.physics} physics"), **_CAPTION, transform=axes.transAxes)


_CAPTION: dict[str, Any] = {"ha": "center", "va": "bottom", "fontsize": 8.5, "color": "#444444"}


def _wrapped(words: str, limit: int = 44) -> str:
    return words if len(words) <= limit else f"{words[: limit - 1].rsplit(',', 1)[0]}, …"


def _outlines(scene: _Scene) -> dict[int, Float]:
    """Geom -> outline (P, 2) of its projection, farthest from the camera first."""
    model, data = scene.model, scene.data
    circle = np.linspace(0.0, 2.0 * np.pi, 4 * _ARC_POINTS)
    disc = np.stack([np.cos(circle), np.sin(circle)], axis=1)
    robot = [geom for geom in range(model.ngeom) if model.geom_bodyid[geom] > 0]
    robot.sort(key=lambda geom: float(scene.axes[2] @ data.geom_xpos[geom]))
    found = {}
    for geom in robot:
        is_capsule = model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_CAPSULE
        half = data.geom_xmat[geom].reshape(3, 3)[:, 2] * (model.geom_size[geom, 1] if is_capsule else 0.0)
        ends = np.stack([data.geom_xpos[geom] - half, data.geom_xpos[geom] + half]) @ scene.axes[:2].T
        along = ends[1] - ends[0]
        # In every direction of the circle, the hull touches the disc at the end that lies farther in this direction.
        found[geom] = np.where((disc @ along < 0.0)[:, None], ends[0], ends[1]) + model.geom_size[geom, 0] * disc
    return found


def _reshaped(scene: _Scene, stock: _Scene) -> set[int]:
    """Geoms whose size, or place in their body, differs from stock, or whose body's mass a shift multiplies."""
    one, other = scene.model, stock.model
    fields = ("geom_size", "geom_pos", "geom_quat")
    geoms = {
        geom for geom in range(one.ngeom) for name in fields if (getattr(one, name) != getattr(other, name))[geom].any()
    }
    if any(shift.kind == "mass" for shift in scene.domain.shifts):
        geoms |= set(np.flatnonzero(one.geom_bodyid == one.body("torso").id).tolist())
    return geoms


def _draw_robot(axes: Any, scene: _Scene, stock: _Scene) -> None:
    changed = _reshaped(scene, stock)
    for geom, outline in _outlines(scene).items():
        colour = _CHANGED if geom in changed else _ROBOT
        axes.add_patch(Polygon(outline, facecolor=colour, edgecolor="#2b3a4d", linewidth=0.9))
    limited = np.flatnonzero(scene.model.jnt_limited)
    points = scene.data.xanchor[limited] @ scene.axes[:2].T
    driven = any(shift.kind in ("actuator", "damping") for shift in scene.domain.shifts)
    axes.plot(*points.T, "o", markersize=5 if driven else 2.5, color=_CHANGED if driven else "#2b3a4d", zorder=4)


def _draw_ghost(axes: Any, stock: _Scene, scene: _Scene) -> None:
    """Stock's outline behind the robot, unless the two are the same."""
    shifted = _outlines(scene)
    for geom, outline in _outlines(stock).items():
        if not np.allclose(outline, shifted[geom], atol=1e-3):
            axes.add_patch(Polygon(outline, fill=False, edgecolor=_STOCK, linestyle=(0, (3, 2)), linewidth=0.9))


def _draw_ranges(axes: Any, scene: _Scene, stock: _Scene) -> None:
    """A sector per joint whose range differs from stock's: grey for stock's range, orange for the remaining range."""
    for joint in np.flatnonzero((scene.model.jnt_range != stock.model.jnt_range).any(axis=1)).tolist():
        axes.add_patch(Polygon(_sector(scene, joint, stock.model.jnt_range[joint]), color=_STOCK, alpha=0.25, zorder=3))
        sector = _sector(scene, joint, scene.model.jnt_range[joint])
        axes.add_patch(Polygon(sector, facecolor=_CHANGED, edgecolor=_CHANGED, alpha=0.6, linewidth=1.5, zorder=3))


def _sector(scene: _Scene, joint: int, limits: Float) -> Float:
    """Outline (P, 2) of the directions of the limb behind a joint between two angles, from the joint's position."""
    model, data = scene.model, scene.data
    anchor, axis = data.xanchor[joint], data.xaxis[joint]
    limb = _tip(scene, int(model.jnt_bodyid[joint]), anchor) - anchor
    turns = np.linspace(limits[0], limits[1], _ARC_POINTS) - data.qpos[model.jnt_qposadr[joint]]
    # Rodrigues' rotation of the limb about the joint's axis.
    across, along = np.cross(axis, limb), axis * (axis @ limb)
    arc = along + np.cos(turns)[:, None] * (limb - along) + np.sin(turns)[:, None] * across
    return np.asarray(np.concatenate([anchor[None], anchor + arc]) @ scene.axes[:2].T)


def _tip(scene: _Scene, body: int, anchor: Float) -> Float:
    """The end of a body's geoms that is farthest from `anchor`."""
    model, data = scene.model, scene.data
    ends = []
    for geom in np.flatnonzero(model.geom_bodyid == body):
        half = data.geom_xmat[geom].reshape(3, 3)[:, 2] * model.geom_size[geom, 1]
        ends += [data.geom_xpos[geom] - half, data.geom_xpos[geom] + half]
    return max(ends, key=lambda end: float(np.linalg.norm(end - anchor)))


def _draw_floor(axes: Any, scene: _Scene) -> None:
    left, right = axes.get_xlim()
    if scene.axes[2, 2] == 0.0:
        axes.axhspan(axes.get_ylim()[0], 0.0, color="#dddddd", zorder=0)
        return
    reach = 0.62 * (right - left)
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * reach
    axes.add_patch(Polygon(corners @ scene.axes[:2].T, facecolor="#ececec", edgecolor="none", zorder=0))


def _draw_arrows(axes: Any, scene: _Scene) -> None:
    """Gravity downwards where it is shifted (its length grows as the root of the factor), and wind."""
    kinds = {shift.kind for shift in scene.domain.shifts}
    style: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "axes fraction", "annotation_clip": False}
    arrow = {"arrowstyle": "-|>", "color": _CHANGED, "linewidth": 2.5, "shrinkA": 0, "shrinkB": 0}
    if "gravity" in kinds:
        strength = -float(scene.model.opt.gravity[2])
        length = _ARROW_AT_STOCK * np.sqrt(strength / 9.81)
        axes.annotate("", (0.05, 0.96 - length), (0.05, 0.96), arrowprops=arrow, **style)
        axes.text(0.08, 0.95, f"{strength:.3g} m/s²", fontsize=8, va="top", transform=axes.transAxes)
    if "wind" in kinds:
        speed = float(scene.model.opt.wind[0])
        length = np.sign(speed) * _ARROW_AT_STOCK * np.sqrt(abs(speed) / 10.0)
        for height in (0.78, 0.87, 0.96):
            start = 0.97 if speed < 0 else 0.03
            axes.annotate("", (start + length, height), (start, height), arrowprops=arrow, **style)
