"""Making anybody's environment look like ours: vectors in, vectors out, actions in [-1, 1], a time limit.

What already is so is left alone, so that an environment is stepped as fast as without us, and gives the same bits.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import io
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.wrappers import RescaleAction, TimeLimit
from numpy.typing import NDArray

from v2a_ray.domains.own.mjcf import MJCFRobot
from v2a_ray.domains.shifts.execution import ActionChannel, Execution
from v2a_ray.errors import DomainError, V2AError
from v2a_ray.imports import source_digest
from v2a_ray.robot_interface import UnknownHealth
from v2a_ray.settings.environment_names import ROBOT_FILE, is_robot_file

OPTIONS = ("max_episode_steps", "observation_keys", "references")
"""Settings that are ours; every other one is an argument of the environment."""
_ENVIRONMENT_ID = re.compile(r".+-v\d+")
_EXTRAS = ("gymnasium_robotics",)
"""Packages that put environments into gymnasium's registry when they are imported."""
_ROUNDING = 1e-6


@dataclass(frozen=True)
class OwnInterface(UnknownHealth):
    """See `v2a_ray.domains.base.Interface`.

    Attributes:
        observation_keys: of a dict observation, in the order in which they are joined; empty for a vector.
        action_low, action_high: the environment's own bounds, which -1 and 1 stand for.
        is_mujoco: whether `unwrapped.model` is a MuJoCo model, which physics shifts edit.
    """

    name: str
    observation_dim: int
    action_dim: int
    max_episode_steps: int
    observation_keys: tuple[str, ...]
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    is_mujoco: bool

    def remedy_for(self, observation_dim: int, action_dim: int) -> str:
        """See `Interface`."""
        keys = f", with observation_keys {', '.join(self.observation_keys)}," if self.observation_keys else ""
        return (
            f"{self.name}{keys} has {self.observation_dim} observations and {self.action_dim} actions, the data have "
            f"{observation_dim} and {action_dim}: take data of this environment, or name the one they are of"
        )


def make_bare(
    environment: str, settings: Mapping[str, Any], where: str, render_mode: str | None = None
) -> gymnasium.Env[Any, Any]:
    """The environment itself with its time limit. Raises DomainError where it cannot be made, or has none."""
    kwargs = {key: value for key, value in settings.items() if key not in OPTIONS}
    if render_mode:
        kwargs["render_mode"] = render_mode
    limit = settings.get("max_episode_steps")
    if not (limit is None or (isinstance(limit, int) and limit > 0)):
        raise DomainError(f"max_episode_steps is {limit!r}", where=where, remedy="a positive whole number")
    try:
        if is_robot_file(environment):
            made = MJCFRobot(environment.removeprefix(ROBOT_FILE), **kwargs)
            made = TimeLimit(made, limit or made.robot.max_episode_steps)
        elif _ENVIRONMENT_ID.fullmatch(environment):
            _register_extras(environment)
            with warnings.catch_warnings():
                # Of an older version than the newest, which data often need.
                warnings.simplefilter("ignore", DeprecationWarning)
                made = gymnasium.make(environment, max_episode_steps=limit, disable_env_checker=True, **kwargs)
        else:
            made = _factory(environment)(**kwargs)
            made = made if limit is None else TimeLimit(made, limit)
    except V2AError:
        raise
    except Exception as error:  # whatever somebody's environment raises, or gymnasium of its name
        raise DomainError(
            f"cannot be made: {type(error).__name__}: {' '.join(str(error).split())}",
            where=where,
            remedy=_remedy(error, environment),
        ) from error
    if not isinstance(made, gymnasium.Env):
        raise DomainError(f"is a {type(made).__name__}, not a Gymnasium environment", where=where, remedy="its class")
    if _time_limit(made) is None:
        made.close()
        raise DomainError(
            "has no time limit", where=where, remedy="`environment: {max_episode_steps: N}`, or `?max_episode_steps=N`"
        )
    return made


def read_interface(name: str, settings: Mapping[str, Any], environment: gymnasium.Env[Any, Any]) -> OwnInterface:
    """The sizes and bounds of an environment. Raises DomainError for spaces that are no vectors of bounded numbers."""
    action = environment.action_space
    if not _is_vector(action):
        raise DomainError(
            f"actions are {action}", where=name, remedy="an environment whose actions are a Box of one dimension"
        )
    assert isinstance(action, Box)
    if not (np.isfinite(action.low).all() and np.isfinite(action.high).all() and (action.low < action.high).all()):
        raise DomainError("actions have no bounds", where=name, remedy="wrap it: actions have to be scaled to [-1, 1]")
    keys = _observation_keys(environment.observation_space, settings.get("observation_keys"), name)
    space = environment.observation_space
    parts = {key: space[key] for key in keys} if isinstance(space, Dict) else {"": space}
    for key, part in parts.items():
        if not _is_vector(part):
            what = f"observation {key!r} is" if key else "observations are"
            remedy = "leave it out of observation_keys" if key else "an environment whose observations are a vector"
            raise DomainError(f"{what} {part}, not a vector", where=name, remedy=remedy)
    limit = _time_limit(environment)
    assert limit is not None, "make_bare refuses that"
    return OwnInterface(
        name=name,
        observation_dim=sum(int(part.shape[0]) for part in parts.values() if part.shape),
        action_dim=int(action.shape[0]),
        max_episode_steps=limit,
        observation_keys=keys,
        action_low=tuple(action.low.astype(float).tolist()),
        action_high=tuple(action.high.astype(float).tolist()),
        is_mujoco=isinstance(model_of(environment), mujoco.MjModel),
    )


def adapt(
    environment: gymnasium.Env[Any, Any], interface: OwnInterface, execution: Execution
) -> gymnasium.Env[Any, Any]:
    """The environment with vectors as observations, actions in [-1, 1], and what happens to them on their way."""
    if interface.observation_keys:
        environment = JoinedObservation(environment, interface.observation_keys)
    low, high = np.asarray(interface.action_low), np.asarray(interface.action_high)
    if np.abs(low + 1.0).max() > _ROUNDING or np.abs(high - 1.0).max() > _ROUNDING:
        environment = RescaleAction(environment, np.float32(-1.0), np.float32(1.0))
    return environment if execution.is_exact else Executing(environment, execution, interface.action_dim)


def model_of(environment: gymnasium.Env[Any, Any]) -> Any:
    """The MuJoCo model of an environment, or whatever it has or has not in its place."""
    return getattr(environment.unwrapped, "model", None)


class JoinedObservation(gymnasium.ObservationWrapper):  # type: ignore[misc]
    """A dict observation as one vector (O,) float64: the values of `keys`, in this order."""

    def __init__(self, environment: gymnasium.Env[Any, Any], keys: Sequence[str]) -> None:
        super().__init__(environment)
        self.keys = tuple(keys)
        space = environment.observation_space
        assert isinstance(space, Dict)
        low, high = (np.concatenate([getattr(space[key], side) for key in keys]) for side in ("low", "high"))
        self.observation_space = Box(low.astype(float), high.astype(float), dtype=np.float64)

    def observation(self, observation: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """See the class."""
        return np.concatenate([observation[key] for key in self.keys], dtype=np.float64)


class Executing(gymnasium.Wrapper):  # type: ignore[misc]
    """Noise and delay between the commanded action and the environment, whose rewards see the executed one."""

    def __init__(self, environment: gymnasium.Env[Any, Any], execution: Execution, action_dim: int) -> None:
        super().__init__(environment)
        self.channel = ActionChannel(execution, action_dim)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """See gymnasium."""
        self.channel.reset()
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, info

    def step(self, action: NDArray[Any]) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """See gymnasium."""
        executed = self.channel.execute(action, self.env.unwrapped.np_random).astype(np.float32)
        observation, reward, terminated, truncated, info = self.env.step(executed)
        return observation, reward, terminated, truncated, info


def source_of(environment: str) -> str:
    """SHA-256 of the file that has the code of `package.module:Class`; empty for an ID of gymnasium's registry.

    A class that its module only imports has two files: the module's and its own.
    """
    if _ENVIRONMENT_ID.fullmatch(environment):
        return ""
    named, own = importlib.import_module(environment.partition(":")[0]), inspect.getmodule(_factory(environment))
    return " ".join(source_digest(module) for module in dict.fromkeys((named, own or named)))


def _register_extras(environment: str) -> None:
    """Import the packages that may know an ID which gymnasium does not."""
    if ":" in environment or environment in gymnasium.registry:
        return
    for name in _EXTRAS:
        if importlib.util.find_spec(name):
            # It prints advice about versions, in every process of a run; docs/own_robot.md has it.
            with redirect_stderr(io.StringIO()):
                importlib.import_module(name)


def _factory(environment: str) -> Any:
    module, _, name = environment.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split(".") if name else ():
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{environment} is no class or function; write package.module:Class, or an ID that ends in -vN")
    return found


def _remedy(error: Exception, environment: str) -> str:
    if isinstance(error, ModuleNotFoundError):
        return (
            f"install the package that has {error.name or environment} on every machine, or put its absolute folder "
            "into PYTHONPATH; AntMaze, Adroit and Fetch: pip install 'v2a_ray[robotics]'"
        )
    if isinstance(error, gymnasium.error.UnregisteredEnv):
        return (
            "an ID of `gymnasium.registry`, package:ID, or package.module:Class; AntMaze, Adroit and Fetch: "
            "pip install 'v2a_ray[robotics]'"
        )
    if isinstance(error, TypeError):
        return f"check the settings of the environment: all but {', '.join(OPTIONS)} are its arguments"
    return "mend the environment, or the settings that it is given"


def _time_limit(environment: gymnasium.Env[Any, Any]) -> int | None:
    """Steps after which an episode is truncated: what a wrapper or the environment says."""
    limit = environment.spec.max_episode_steps if environment.spec else None
    while limit is None and isinstance(environment, gymnasium.Wrapper):
        limit = getattr(environment, "_max_episode_steps", None)
        environment = environment.env
    return limit


def _is_vector(space: gymnasium.Space[Any]) -> bool:
    return isinstance(space, Box) and len(space.shape) == 1 and space.shape[0] > 0


def _observation_keys(space: gymnasium.Space[Any], asked: Any, where: str) -> tuple[str, ...]:
    if not isinstance(space, Dict):
        if asked is not None:
            raise DomainError(
                "observation_keys are given, but observations are no dict", where=where, remedy="leave them out"
            )
        return ()
    every = tuple(space.spaces)
    keys = every if asked is None else tuple(asked) if isinstance(asked, list) else (str(asked),)
    unknown = [key for key in keys if key not in every]
    if unknown or not keys or len(set(keys)) < len(keys):
        what = f"no observation {unknown[0]!r}" if unknown else "observation_keys are empty or repeated"
        raise DomainError(what, where=where, remedy=f"some of {', '.join(every)}, in the order wanted")
    return keys
