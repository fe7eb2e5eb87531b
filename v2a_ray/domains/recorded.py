"""A robot of which there are recordings and no simulator: `real[:NAME]?observation_dim=O&action_dim=A`.

Its data are read and policies are trained on them as on any others. Nothing can be rolled out in it, so policies are
judged by recorded episodes that no stage has seen (`v2a_ray.evaluation.offline`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from v2a_ray.domains.base import Domain
from v2a_ray.domains.shifts.execution import Execution
from v2a_ray.errors import DomainError
from v2a_ray.robot_interface import UnknownHealth
from v2a_ray.settings.environment_names import RECORDED_SETTINGS, split_recorded, with_dimensions

_NO_LIMIT = 2**31 - 1
"""Of the steps of an episode, where none is given: longer than any recording."""


@dataclass(frozen=True)
class RecordedInterface(UnknownHealth):
    """See `v2a_ray.robot_interface.RobotInterface`."""

    name: str
    observation_dim: int
    action_dim: int
    max_episode_steps: int = _NO_LIMIT

    def remedy_for(self, observation_dim: int, action_dim: int) -> str:
        """See `RobotInterface`."""
        return (
            f"{self.name} is said to have {self.observation_dim} observations and {self.action_dim} actions, the data "
            f"have {observation_dim} and {action_dim}: correct observation_dim and action_dim, or name other columns"
        )


@dataclass(frozen=True)
class RecordedDomain:
    """See `v2a_ray.domains.base.Domain`. The robot's name is the whole name: there are no shifts."""

    robot: str
    robot_spec: RecordedInterface
    shift_names: tuple[str, ...] = ()
    shift_name: str = "stock"

    @property
    def execution(self) -> Execution:
        """Nothing is executed but what was recorded."""
        return Execution()

    @property
    def name(self) -> str:
        """See `Domain`."""
        return self.robot

    @property
    def identity(self) -> str:
        """The name says all."""
        return self.name

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return re.sub(r"[^\w.-]+", "_", self.name)

    @property
    def base(self) -> RecordedDomain:
        """Itself."""
        return self

    @property
    def stock(self) -> RecordedDomain:
        """Itself."""
        return self

    def describe(self) -> dict[str, Any]:
        """See `Domain`."""
        spec = self.robot_spec
        sizes = {"observation_dim": spec.observation_dim, "action_dim": spec.action_dim}
        limit = {} if spec.max_episode_steps == _NO_LIMIT else {"max_episode_steps": spec.max_episode_steps}
        return {"name": self.name, "simulator": None, **sizes, **limit}

    def __str__(self) -> str:
        return self.name


def parse_recorded_domain(text: str) -> RecordedDomain:
    """Read the name of a robot without a simulator. Raises DomainError for dimensions that are missing or wrong."""
    try:
        robot, settings = split_recorded(text)
    except ValueError as error:
        raise DomainError(str(error), where=f"domain {text!r}", remedy=f"{text.split('?')[0]}?KEY=VALUE") from None
    unknown = [key for key in settings if key not in RECORDED_SETTINGS]
    if unknown:
        raise DomainError(f"no setting {unknown[0]!r}", where=text, remedy=f"one of {', '.join(RECORDED_SETTINGS)}")
    for key in RECORDED_SETTINGS[:2]:
        if key not in settings:
            raise DomainError(f"{key} is not given", where=text, remedy=f"`{key}: N` beside `domain`, or ?{key}=N")
    for key, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DomainError(f"{key} is {value!r}", where=text, remedy="a positive whole number")
    name = with_dimensions(robot, settings)
    return RecordedDomain(name, RecordedInterface(name, **settings))


def require_simulator(domain: Domain) -> None:
    """Raise DomainError where nothing can be rolled out."""
    if isinstance(domain, RecordedDomain):
        raise DomainError(
            "has no simulator: there are recordings of it alone",
            where=domain.name,
            remedy="`v2a select` compares policies on held-out episodes; or name a simulated domain of its dimensions",
        )
