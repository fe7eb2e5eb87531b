"""From a domain to a gymnasium environment: the v4 class of the robot, given the edited model.

gymnasium's v4 classes accept no XML file, so a subclass replaces the one method that loads it. The subclass adds
nothing to a step: a shifted environment runs as fast as the stock one. Only a domain with noisy or delayed execution,
and a robot whose observation ends with zeros, get a subclass that changes a step.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.spaces import Box
from gymnasium.utils import EzPickle
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray

from v2a_ray.domains.base import Domain
from v2a_ray.domains.compiled_model import compile_model
from v2a_ray.domains.domain import PHYSICS, RobotDomain, catalogue, parse_domain, require_robot
from v2a_ray.domains.own.domain import GymDomain
from v2a_ray.domains.recorded import require_simulator
from v2a_ray.domains.robot_spec import all_robots, robot
from v2a_ray.domains.shifts.execution import ActionChannel
from v2a_ray.imports import import_named


def make_environment(domain: Domain | str, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """The environment of `domain`, truncated after the robot's `max_episode_steps`.

    Observations are (O,) float64, actions (A,) float32 in [-1, 1]. Raises DomainError for an unknown name, and for
    parameters under which the robot does not survive a reset.
    """
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    require_simulator(domain)
    if isinstance(domain, GymDomain):
        return domain.make(render_mode)
    return TimeLimit(make_unwrapped(domain, render_mode), domain.robot_spec.max_episode_steps)


def make_unwrapped(domain: Domain | str, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """The environment without a time limit; what gymnasium's registry calls."""
    domain = require_robot(parse_domain(domain) if isinstance(domain, str) else domain, "gymnasium's registry")
    environment: gymnasium.Env[Any, Any] = _environment_class(domain.robot, domain.execution.is_exact)(
        domain, render_mode
    )
    return environment


def register_all() -> None:
    """Register every named domain with gymnasium, so that `gymnasium.make(domain.gym_id)` works."""
    for physics, name in itertools.product(PHYSICS, all_robots()):
        for domain in catalogue(name, physics):
            if domain.gym_id not in gymnasium.registry:
                gymnasium.register(
                    id=domain.gym_id,
                    entry_point=f"{__name__}:make_unwrapped",
                    kwargs={"domain": domain.name},
                    max_episode_steps=domain.robot_spec.max_episode_steps,
                    disable_env_checker=True,
                    order_enforce=False,
                )


class _Executing:
    """Applies `Domain.execution` to the commanded action before the simulation. Rewards use the commanded action."""

    np_random: np.random.Generator

    def __init__(self, domain: RobotDomain, render_mode: str | None = None) -> None:
        self.action_channel = ActionChannel(domain.execution, domain.robot_spec.action_dim)
        super().__init__(domain, render_mode)  # type: ignore[call-arg]

    def reset_model(self) -> NDArray[np.float64]:
        self.action_channel.reset()
        observation: NDArray[np.float64] = super().reset_model()  # type: ignore[misc]
        return observation

    def do_simulation(self, ctrl: NDArray[Any], n_frames: int) -> None:
        super().do_simulation(self.action_channel.execute(ctrl, self.np_random), n_frames)  # type: ignore[misc]


class _Padded:
    """Appends `RobotSpec.num_zeros` zeros to observations."""

    def __init__(self, domain: RobotDomain, render_mode: str | None = None) -> None:
        super().__init__(domain, render_mode)  # type: ignore[call-arg]
        self.observation_space = Box(-np.inf, np.inf, (domain.robot_spec.observation_dim,), np.float64)
        self._zeros = np.zeros(domain.robot_spec.num_zeros)

    def _get_obs(self) -> NDArray[np.float64]:
        return np.concatenate((super()._get_obs(), self._zeros))  # type: ignore[misc]


@cache
def _environment_class(robot_name: str, executes_exactly: bool) -> Any:
    base: Any = import_named(robot(robot_name).environment_class)

    class DomainEnvironment(base):  # type: ignore[misc]
        """gymnasium's v4 robot with the model of a domain."""

        def __init__(self, domain: RobotDomain, render_mode: str | None = None) -> None:
            self.domain = domain
            super().__init__(render_mode=render_mode)
            EzPickle.__init__(self, domain, render_mode)

        def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
            model = compile_model(self.domain.robot_spec, self.domain.shifts, self.domain.physics)
            model.vis.global_.offwidth = self.width
            model.vis.global_.offheight = self.height
            return model, mujoco.MjData(model)

        def __reduce__(self) -> tuple[Any, ...]:
            # The class is local to this function, so pickle the call that creates it.
            return make_unwrapped, (self.domain, self.render_mode)

    extras: list[type] = [] if executes_exactly else [_Executing]
    if robot(robot_name).num_zeros:
        extras.append(_Padded)
    return type(f"{base.__name__}OfDomain", (*extras, DomainEnvironment), {})
