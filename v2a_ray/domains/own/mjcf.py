"""A robot that is a MuJoCo model (MJCF) and a small YAML file, as a Gymnasium environment: `mjcf:my_robot.yaml`."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from v2a_ray.domains.own.robot_file import HealthRule, ObservationTerm, RewardTerm, RobotFile, read_robot
from v2a_ray.errors import DomainError
from v2a_ray.imports import import_named

Float = NDArray[np.float64]
Number = Callable[[], float]
_UPDATES = (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_comVel, mujoco.mj_sensorPos, mujoco.mj_sensorVel)
_LINE = re.compile(r"line (\d+)")


class MJCFRobot(gymnasium.Env[Any, Any]):  # type: ignore[misc]
    """A model, stepped `frame_skip` times per action. Actions are controls, within their ranges; see `RobotFile`."""

    metadata = {"render_modes": ["rgb_array", "human", "depth_array"]}  # noqa: RUF012 - as gymnasium declares it

    def __init__(self, path: Path | str, render_mode: str | None = None) -> None:
        """Raises ConfigError for the YAML file, DomainError for the model or a name that it does not have."""
        self.path, self.render_mode = Path(path), render_mode
        self.robot = read_robot(self.path)
        self.model = compile_model(self.path.parent / self.robot.model)
        self.data = mujoco.MjData(self.model)
        self.dt = self.model.opt.timestep * self.robot.frame_skip
        self.metadata = self.metadata | {"render_fps": round(1.0 / self.dt)}
        names = _Names(self.model, self.data, self.path)
        self._terms = [names.observed(term) for term in self.robot.observation]
        self._reward = names.rewarded(self.robot)
        self._health = [(names.health(rule), *_bounds(rule)) for rule in self.robot.health]
        self._drawn = {names.position_of(joint): bounds for joint, bounds in self.robot.reset.joints.items()}
        self._noisy = np.array([self.model.jnt_qposadr[joint] for joint in names.simple_joints()], dtype=np.int64)
        low, high = self.model.actuator_ctrlrange.astype(np.float32).T
        limited = self.model.actuator_ctrllimited.astype(bool)
        self.action_space = Box(np.where(limited, low, -np.inf), np.where(limited, high, np.inf), dtype=np.float32)
        mujoco.mj_forward(self.model, self.data)
        size = len(self._observation())
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float64)
        self._renderer: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Float, dict[str, Any]]:
        """See gymnasium."""
        super().reset(seed=seed)
        noise = self.robot.reset
        mujoco.mj_resetData(self.model, self.data)
        count = len(self._noisy)
        self.data.qpos[self._noisy] += self.np_random.uniform(-noise.position_noise, noise.position_noise, count)
        self.data.qvel += self.np_random.uniform(-noise.velocity_noise, noise.velocity_noise, self.model.nv)
        for address, (low, high) in self._drawn.items():
            self.data.qpos[address] = self.np_random.uniform(low, high)
        mujoco.mj_forward(self.model, self.data)
        return self._observation(), {}

    def step(self, action: NDArray[Any]) -> tuple[Float, float, bool, bool, dict[str, Any]]:
        """See gymnasium. Observation and reward are of the state after the step."""
        model, data = self.model, self.data
        data.ctrl[:] = action
        mujoco.mj_step(model, data, nstep=self.robot.frame_skip)
        # A step leaves places and velocities of bodies where they were before its last integration.
        for update in _UPDATES:
            update(model, data)
        healthy = all(low <= number() <= high for number, low, high in self._health)
        return self._observation(), float(self._reward(data.ctrl)), not healthy, False, {}

    def render(self) -> Any:
        """See gymnasium; needs OpenGL."""
        if self._renderer is None:
            from gymnasium.envs.mujoco.mujoco_rendering import MujocoRenderer

            self._renderer = MujocoRenderer(self.model, self.data)
        return self._renderer.render(self.render_mode)

    def close(self) -> None:
        """Free the window."""
        if self._renderer is not None:
            self._renderer.close()

    def digest(self) -> str:
        """SHA-256 of the YAML file, the compiled model with its meshes, and the file that has the reward function."""
        content = np.empty(mujoco.mj_sizeModel(self.model), np.uint8)
        mujoco.mj_saveModel(self.model, None, content)
        found = hashlib.sha256(self.path.read_bytes() + content.tobytes())
        if isinstance(self.robot.reward, str):
            module = inspect.getmodule(import_named(self.robot.reward))
            found.update(inspect.getsource(module).encode() if module else b"")
        return found.hexdigest()

    def _observation(self) -> Float:
        return np.concatenate([term() for term in self._terms])


def _bounds(rule: HealthRule) -> tuple[float, float]:
    low, high = rule.range
    return -np.inf if low is None else low, np.inf if high is None else high


def compile_model(path: Path) -> mujoco.MjModel:
    """The compiled model. Raises DomainError with MuJoCo's message, file and line."""
    if not path.is_file():
        raise DomainError("there is no such file", where=str(path), remedy="`model:` is relative to the YAML file")
    try:
        return mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        told = " ".join(str(error).split())
        line = _LINE.search(told)
        where = f"{path}:{line.group(1)}" if line else str(path)
        raise DomainError(
            f"MuJoCo does not compile it: {told}", where=where, remedy="mend the model; MuJoCo's XML reference has all"
        ) from None


class _Names:
    """Terms of a file as functions of a simulation. Raises DomainError for a name that the model does not have."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, path: Path) -> None:
        self.model, self.data, self.path = model, data, path

    def observed(self, term: ObservationTerm) -> Callable[[], Float]:
        """A function to (n,) numbers."""
        ((kind, value),) = term.named.items()
        data = self.data
        match kind:
            case "joint_positions":
                places = self._joint_places(value, positions=True)
                return lambda: data.qpos[places]
            case "joint_velocities":
                places = self._joint_places(value, positions=False)
                return lambda: data.qvel[places]
            case "joint_sines":
                places = self._joint_places(value, positions=True)
                return lambda: np.concatenate([np.sin(data.qpos[places]), np.cos(data.qpos[places])])
            case "site_position":
                site = self._find("site", value)
                return lambda: data.site_xpos[site]
            case "site_offset":
                first, second = (self._find("site", each) for each in value)
                return lambda: data.site_xpos[second] - data.site_xpos[first]
            case "body_position":
                body = self._find("body", value)
                return lambda: data.xipos[body]
            case "body_velocity":
                return self._velocity(value)
            case _:
                assert kind == "sensor"
                sensor = self._find("sensor", value)
                begin = int(self.model.sensor_adr[sensor])
                end = begin + int(self.model.sensor_dim[sensor])
                return lambda: data.sensordata[begin:end]

    def rewarded(self, robot: RobotFile) -> Callable[[Float], float]:
        """A function of the controls (A,)."""
        model, data = self.model, self.data
        if isinstance(robot.reward, str):
            function = _imported(robot.reward, self.path)
            return lambda control: float(function(model, data, control))
        terms = [(term.weight, self._reward_term(term)) for term in robot.reward]
        return lambda control: sum(weight * term(control) for weight, term in terms)

    def health(self, rule: HealthRule) -> Number:
        """The number that has to stay in its range."""
        ((kind, value),) = rule.named.items()
        if kind == "joint":
            place, data = self.position_of(value), self.data
            return lambda: float(data.qpos[place])
        return self._height(value) if kind == "height" else self._upright(value)

    def position_of(self, joint: str) -> int:
        """Index of a hinge or slide joint's position."""
        found = self._find("joint", joint)
        if found not in self.simple_joints():
            raise DomainError(f"joint {joint} is no hinge or slide", where=str(self.path), remedy="name another joint")
        return int(self.model.jnt_qposadr[found])

    def simple_joints(self) -> list[int]:
        """Those with one number as their position."""
        kinds = (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE)
        return [joint for joint in range(self.model.njnt) if self.model.jnt_type[joint] in kinds]

    def _reward_term(self, term: RewardTerm) -> Callable[[Float], float]:
        ((kind, value),) = term.named.items()
        data = self.data
        match kind:
            case "distance":
                first, second = (self._find("site", each) for each in value)
                return lambda control: float(np.linalg.norm(data.site_xpos[first] - data.site_xpos[second]))
            case "velocity":
                velocity = self._velocity(value)
                return lambda control: float(velocity()[0])
            case "height" | "upright":
                number = self._height(value) if kind == "height" else self._upright(value)
                return lambda control: number()
            case "squared_action":
                return lambda control: float(control @ control)
            case "squared_velocity":
                return lambda control: float(data.qvel @ data.qvel)
            case _:
                assert kind == "alive"
                return lambda control: 1.0

    def _velocity(self, name: str) -> Callable[[], Float]:
        body, model, data = self._find("body", name), self.model, self.data
        found = np.empty(6)

        def velocity() -> Float:
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, found, 0)
            return found[3:].copy()

        return velocity

    def _height(self, name: str) -> Number:
        body, data = self._find("body", name), self.data
        return lambda: float(data.xpos[body, 2])

    def _upright(self, name: str) -> Number:
        body, data = self._find("body", name), self.data
        return lambda: float(data.xmat[body, 8])

    def _joint_places(self, names: list[str] | str, positions: bool) -> NDArray[np.int64]:
        """Indices of joint positions, or velocities, in the order asked for; a free joint has several."""
        first = self.model.jnt_qposadr if positions else self.model.jnt_dofadr
        last = [*first[1:], self.model.nq if positions else self.model.nv]
        joints = range(self.model.njnt) if names == "all" else [self._find("joint", each) for each in names]
        return np.concatenate([np.arange(first[joint], last[joint]) for joint in joints]).astype(np.int64)

    def _find(self, kind: str, name: str) -> int:
        try:
            return int(getattr(self.model, kind)(name).id)
        except KeyError:
            count = {"joint": "njnt", "body": "nbody", "site": "nsite", "sensor": "nsensor"}[kind]
            every = [str(getattr(self.model, kind)(row).name) for row in range(getattr(self.model, count))]
            named = [each for each in every if each]
            near = difflib.get_close_matches(name, named, n=5, cutoff=0.4) or named[:12]
            raise DomainError(
                f"the model has no {kind} named {name!r}",
                where=str(self.path),
                remedy=f"one of {', '.join(near) or 'none: no name is given'}",
            ) from None


def _imported(name: str, path: Path) -> Callable[..., Any]:
    try:
        found: Callable[..., Any] = import_named(name)
    except Exception as error:  # whatever somebody's module raises
        raise DomainError(
            f"reward {name} cannot be imported: {type(error).__name__}: {error}",
            where=str(path),
            remedy="module:function, installed on every machine or in an absolute folder of PYTHONPATH",
        ) from error
    return found
