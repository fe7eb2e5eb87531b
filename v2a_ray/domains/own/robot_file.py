"""The YAML file that makes a MuJoCo model a robot: what it observes, what is rewarded, when an episode ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from v2a_ray.errors import ConfigError
from v2a_ray.settings.base import Positive, Settings
from v2a_ray.settings.yaml_files import read_yaml, validate

Names = list[str] | Literal["all"]
Pair = tuple[str, str]
Bounds = tuple[float, float]


def _of_all(value: object) -> object:
    """`joint_positions` alone means that of all joints."""
    return {value: "all"} if isinstance(value, str) else value


class _OneOf(Settings):
    """A mapping with exactly one of its keys, beside those that qualify it."""

    @model_validator(mode="after")
    def _is_one(self) -> _OneOf:
        if len(self.named) != 1:
            known = [name for name in type(self).model_fields if name not in ("weight", "range")]
            raise ValueError(f"give exactly one of {', '.join(known)}")
        return self

    @property
    def named(self) -> dict[str, Any]:
        """What was given, by its key."""
        every = {name: getattr(self, name) for name in type(self).model_fields if name not in ("weight", "range")}
        return {name: value for name, value in every.items() if value is not None}


class ObservationTerm(_OneOf):
    """Numbers of an observation."""

    joint_positions: Names | None = None
    """Radians, or metres of a slide joint."""
    joint_velocities: Names | None = None
    joint_sines: Names | None = None
    """Sines, then cosines, of hinge joints that turn without end."""
    site_position: str | None = None
    """Of a site in the world, metres."""
    site_offset: Pair | None = None
    """Position of the second site less that of the first, metres."""
    body_position: str | None = None
    """Of a body's centre in the world, metres."""
    body_velocity: str | None = None
    """Of a body's centre in the world, m/s."""
    sensor: str | None = None
    """The numbers of a sensor of the model."""


Observed = Annotated[ObservationTerm, BeforeValidator(_of_all)]


def _joints() -> list[ObservationTerm]:
    return [ObservationTerm(joint_positions="all"), ObservationTerm(joint_velocities="all")]


class RewardTerm(_OneOf):
    """A number per step, times its weight."""

    weight: float = 1.0
    distance: Pair | None = None
    """Between two sites, metres."""
    velocity: str | None = None
    """Of a body's centre along the world's x axis, m/s."""
    height: str | None = None
    """Of a body above the world's origin, metres."""
    upright: str | None = None
    """Cosine of a body's tilt."""
    squared_action: Literal[True] | None = None
    """Sum of squares of the action, in its own unit."""
    squared_velocity: Literal[True] | None = None
    """Sum of squares of all joint velocities."""
    alive: Literal[True] | None = None
    """1."""


class HealthRule(_OneOf):
    """An episode ends where the number leaves its range."""

    range: tuple[float | None, float | None]
    """Least and largest; `null` where there is no bound."""
    joint: str | None = None
    """Position of a joint."""
    height: str | None = None
    upright: str | None = None


class ResetConfig(Settings):
    """Where episodes begin: at the model's own positions, plus uniform noise."""

    position_noise: Annotated[float, Field(ge=0.0)] = 0.0
    """Largest, of hinge and slide joints."""
    velocity_noise: Annotated[float, Field(ge=0.0)] = 0.0
    joints: dict[str, Bounds] = Field(default_factory=dict)
    """Joints that are drawn from a range instead, for example those of a goal."""


class RobotFile(Settings):
    """A robot: a model and what is asked of it."""

    model: str
    """MJCF, relative to this file."""
    frame_skip: Positive = 1
    """Simulation steps per action."""
    max_episode_steps: Positive
    observation: Annotated[list[Observed], Field(min_length=1)] = Field(default_factory=_joints)
    """Joined in this order."""
    reward: Annotated[list[RewardTerm], Field(min_length=1)] | str
    """A sum of terms, or `module:function` of (model, data, action) to a number."""
    health: list[HealthRule] = Field(default_factory=list)
    """None: episodes end at their time limit alone."""
    reset: ResetConfig = ResetConfig()
    references: Bounds | None = None
    """Returns that score 0 and 100."""


def read_robot(path: Path) -> RobotFile:
    """The file's content. Raises ConfigError with file and line."""
    if not path.exists():
        # Not left to `read_yaml`, which would offer our experiments.
        remedy = "name the robot's file from the working directory: mjcf:FOLDER/robot.yaml"
        raise ConfigError("no such file", where=str(path), remedy=remedy)
    remedy = "docs/own_robot.md has the keys and what they mean"
    return validate(RobotFile, read_yaml(path), path, remedy)
