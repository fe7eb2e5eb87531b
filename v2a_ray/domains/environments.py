"""From a domain to a gymnasium environment: the v4 class of the robot, given the edited model.

gymnasium's v4 classes take no XML file, so a subclass replaces the one method that loads it. Nothing is added to a
step: a shifted environment runs as fast as the stock one.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import gymnasium
import mujoco
from gymnasium.utils import EzPickle
from gymnasium.wrappers import TimeLimit

from v2a_ray.domains.domain import PHYSICS, Domain, catalogue, parse_domain
from v2a_ray.domains.model import compile_model
from v2a_ray.domains.robots import robot


def make_environment(domain: Domain | str, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """The environment of `domain`, truncated after the robot's `max_episode_steps`.

    Observations are (O,) float64, actions (A,) float32 in [-1, 1]. Raises DomainError for a name that does not exist
    and for parameters under which the robot does not survive a reset.
    """
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    return TimeLimit(make_unwrapped(domain, render_mode), domain.robot_spec.max_episode_steps)


def make_unwrapped(domain: Domain | str, render_mode: str | None = None) -> gymnasium.Env[Any, Any]:
    """The environment without a time limit; what gymnasium's registry calls."""
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    environment: gymnasium.Env[Any, Any] = _environment_class(domain.robot)(domain, render_mode)
    return environment


def register_all() -> None:
    """Put every named domain into gymnasium's registry, so that `gymnasium.make(domain.gym_id)` works."""
    for physics in PHYSICS:
        for domain in catalogue(physics=physics):
            if domain.gym_id not in gymnasium.registry:
                gymnasium.register(
                    id=domain.gym_id,
                    entry_point=f"{__name__}:make_unwrapped",
                    kwargs={"domain": domain.name},
                    max_episode_steps=domain.robot_spec.max_episode_steps,
                    disable_env_checker=True,
                    order_enforce=False,
                )


@cache
def _environment_class(robot_name: str) -> Any:
    module, _, name = robot(robot_name).environment_class.partition(":")
    base: Any = getattr(importlib.import_module(module), name)

    class DomainEnvironment(base):  # type: ignore[misc]
        """gymnasium's v4 robot over a domain's own model."""

        def __init__(self, domain: Domain, render_mode: str | None = None) -> None:
            self.domain = domain
            super().__init__(render_mode=render_mode)
            EzPickle.__init__(self, domain, render_mode)

        def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
            model = compile_model(self.domain.robot_spec, self.domain.shifts, self.domain.physics)
            model.vis.global_.offwidth = self.width
            model.vis.global_.offheight = self.height
            return model, mujoco.MjData(model)

        def __reduce__(self) -> tuple[Any, ...]:
            # The class is local to this function, so pickle by what makes it.
            return make_unwrapped, (self.domain, self.render_mode)

    DomainEnvironment.__name__ = f"{base.__name__}OfDomain"
    return DomainEnvironment
