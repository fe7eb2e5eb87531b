"""Videos of episodes: GIF, or MP4 if `imageio-ffmpeg` is installed. Drawn by matplotlib, so no display is needed.

Shape suffixes: T environment steps, P joint positions, V joint velocities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import imageio.v3
import mujoco
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from numpy.typing import NDArray

from v2a_ray.domains import Domain, make_environment
from v2a_ray.domains.own.domain import GymDomain
from v2a_ray.domains.own.render import Outline, draw, middle_of, outlines, require_model
from v2a_ray.domains.render import camera_of, robot_outlines
from v2a_ray.domains.rollout import Act
from v2a_ray.errors import ConfigError
from v2a_ray.outputs import MARK, new_file
from v2a_ray.settings.environment_names import label_of

FORMATS = (".gif", ".mp4")
FRAMES_PER_SECOND = 25
_WIDTH_METRES, _PIXELS, _ASPECT = 3.4, 420, 0.72
_OWN_WIDTH = 1.6
"""Of a picture, in extents of somebody's model."""
_ROBOT, _EDGE, _FLOOR, _LINE = "#8fa9c9", "#2b3a4d", "#dddddd", "#aaaaaa"


@dataclass(frozen=True)
class Episode:
    """The recorded motion of a robot in one episode.

    Attributes:
        domain: the domain of the episode.
        positions_TP, velocities_TV: joint positions and velocities, before each step and after the last.
        returns_T: undiscounted return so far, starting at 0.
        seconds: duration of one environment step.
        fallen: whether it ended because the robot was unhealthy.
        seed: seed of its reset, which may have moved things that are no joints.
    """

    domain: Domain
    positions_TP: NDArray[np.float64]
    velocities_TV: NDArray[np.float64]
    returns_T: NDArray[np.float64]
    seconds: float
    fallen: bool
    seed: int

    @property
    def num_frames(self) -> int:
        """Frames of a video in real time."""
        return 1 + int((len(self.returns_T) - 1) * self.seconds * FRAMES_PER_SECOND)


def require_format(path: Path) -> None:
    """Raise ConfigError if a video with this suffix cannot be written."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(
            f"no film format {suffix!r}", where="--video", remedy=f"a name ending in {' or '.join(FORMATS)}"
        )
    if suffix == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise ConfigError(
            "the package imageio-ffmpeg is not installed",
            where="--video",
            remedy="pip install 'v2a_ray[video]', or a name ending in .gif",
        )


def record(act: Act, domain: Domain, seed: int, max_seconds: float) -> Episode:
    """Roll out one episode, reset with `seed`, for at most `max_seconds` of the robot's time."""
    if isinstance(domain, GymDomain):
        require_model(domain)
    environment: Any = make_environment(domain)
    observation, _ = environment.reset(seed=seed)
    simulation = environment.unwrapped
    timestep = float(simulation.model.opt.timestep)
    seconds = float(getattr(simulation, "dt", timestep * getattr(simulation, "frame_skip", 1)))
    states, returns = [], [0.0]
    terminated = truncated = False
    while True:
        states.append((simulation.data.qpos.copy(), simulation.data.qvel.copy()))
        if terminated or truncated or len(states) * seconds > max_seconds:
            break
        observation, reward, terminated, truncated, _ = environment.step(act(observation[None])[0])
        returns.append(returns[-1] + float(reward))
    environment.close()
    positions, velocities = zip(*states, strict=True)
    states_TP, states_TV = np.stack(positions), np.stack(velocities)
    return Episode(domain, states_TP, states_TV, np.asarray(returns), seconds, bool(terminated), seed)


def frames(episode: Episode) -> Iterator[NDArray[np.uint8]]:
    """Frames (height, width, 3) in real time, centred on the robot."""
    environment: Any = make_environment(episode.domain)
    environment.reset(seed=episode.seed)
    model, data = environment.unwrapped.model, environment.unwrapped.data
    own, camera = isinstance(episode.domain, GymDomain), camera_of(episode.domain)
    last = len(episode.returns_T) - 1
    for step in np.linspace(0, last, episode.num_frames).round().astype(int).tolist():
        data.qpos[:], data.qvel[:] = episode.positions_TP[step], episode.velocities_TV[step]
        mujoco.mj_forward(model, data)
        words = f"{step * episode.seconds:4.1f} s   return {episode.returns_T[step]:,.0f}"
        if episode.fallen and step == last:
            words += "   fallen"
        if own:
            yield _draw_own(outlines(model, data), float(model.stat.extent), episode.domain, words)
        else:
            yield _draw(robot_outlines(episode.domain, model, data), camera, episode.domain, words)
    environment.close()


def write_film(pictures: list[NDArray[np.uint8]], path: Path) -> None:
    """Write a looping GIF or an MP4 atomically. Raises ConfigError as `require_format`."""
    require_format(path)
    with new_file(path) as partial:
        # Writers choose the format by the suffix.
        named = partial.with_name(partial.name + path.suffix.lower())
        try:
            if path.suffix.lower() == ".gif":
                milliseconds = 1000 // FRAMES_PER_SECOND
                imageio.v3.imwrite(named, pictures, plugin="pillow", duration=milliseconds, loop=0, comment=MARK)
            else:
                comment = ["-metadata", f"comment={MARK}"]
                imageio.v3.imwrite(named, pictures, plugin="FFMPEG", fps=FRAMES_PER_SECOND, output_params=comment)
            named.replace(partial)
        finally:
            named.unlink(missing_ok=True)


def _draw(
    outlines: list[NDArray[np.float64]], camera: NDArray[np.float64], domain: Domain, words: str
) -> NDArray[np.uint8]:
    points = np.concatenate(outlines)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2.0
    height = _WIDTH_METRES * _ASPECT
    # Seen from the side the floor stays where it is; seen from above the picture follows the robot.
    bottom = -0.12 * height if camera[2, 2] == 0.0 else middle[1] - height / 2.0
    canvas, axes = _panel(_WIDTH_METRES, middle[0], bottom, domain, words)
    _draw_floor(axes, camera)
    for outline in outlines:
        axes.add_patch(Polygon(outline, facecolor=_ROBOT, edgecolor=_EDGE, linewidth=0.9))
    return _pixels(canvas)


def _draw_own(shapes: list[Outline], extent: float, domain: Domain, words: str) -> NDArray[np.uint8]:
    """Anybody's model, as large as it says that it is."""
    middle, width = middle_of(shapes), _OWN_WIDTH * extent
    canvas, axes = _panel(width, middle[0], middle[1] - width * _ASPECT / 2.0, domain, words)
    draw(axes, shapes)
    return _pixels(canvas)


def _panel(width: float, middle: float, bottom: float, domain: Domain, words: str) -> tuple[FigureCanvasAgg, Any]:
    """An empty picture `width` metres wide with its words."""
    figure = Figure(figsize=(_PIXELS / 100, _PIXELS * _ASPECT / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(middle - width / 2.0, middle + width / 2.0)
    axes.set_ylim(bottom, bottom + width * _ASPECT)
    axes.axis("off")
    name = label_of(domain.name) if isinstance(domain, GymDomain) else domain.name
    axes.text(0.02, 0.97, name, transform=axes.transAxes, va="top", fontsize=9, fontweight="bold")
    axes.text(0.98, 0.97, words, transform=axes.transAxes, va="top", ha="right", fontsize=9, family="monospace")
    return canvas, axes


def _pixels(canvas: FigureCanvasAgg) -> NDArray[np.uint8]:
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_floor(axes: Any, camera: NDArray[np.float64]) -> None:
    """Draw a numbered mark at every metre, so that the robot's motion is visible."""
    left, right = axes.get_xlim()
    if camera[2, 2] == 0.0:
        axes.axhspan(axes.get_ylim()[0], 0.0, color=_FLOOR, zorder=0)
        for metre in range(int(np.ceil(left)), int(np.floor(right)) + 1):
            axes.plot([metre, metre], [-0.08, 0.0], color=_EDGE, linewidth=1.0, zorder=1)
            axes.text(metre, -0.1, f"{metre} m", ha="center", va="top", fontsize=7, color=_EDGE, clip_on=True)
        return
    # The point of the floor (z = 0) in the middle of the picture.
    centre = np.array([(left + right) / 2.0, sum(axes.get_ylim()) / 2.0])
    x, y = np.linalg.solve(camera[:2, :2], centre)
    reach = 6
    for metre in range(-reach, reach + 1):
        across, along = round(x) + metre, round(y) + metre
        lines = [[(across, y - reach), (across, y + reach)], [(x - reach, along), (x + reach, along)]]
        for line in lines:
            axes.plot(*(np.asarray(line) @ camera[:2, :2].T).T, color=_LINE, linewidth=0.7, zorder=0)
