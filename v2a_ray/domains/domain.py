"""Our domains: a robot, a physics version, and zero or more dynamics shifts, with one name for all of it.

Grammar: `robot/shift[+shift...]@physics`, for example `hopper/gravity-0.5+friction-2@d4rl`. In input `@physics` may be
left out (d4rl), and so may `/stock`. `gym:` begins the name of anybody's environment (`v2a_ray.domains.own`), and
`real` that of a robot without a simulator (`v2a_ray.domains.recorded`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal, cast

import v2a_ray.domains.robots  # noqa: F401 - registers them
from v2a_ray.domains.base import Domain
from v2a_ray.domains.compiled_model import domain_edits, stock_specification
from v2a_ray.domains.own.domain import parse_gym_domain
from v2a_ray.domains.recorded import parse_recorded_domain
from v2a_ray.domains.robot_spec import RobotSpec, all_robots, robot, robot_content
from v2a_ray.domains.shifts.execution import Execution
from v2a_ray.domains.shifts.kinds import Shift
from v2a_ray.domains.shifts.names import combined_execution, named_shifts, parse_shift
from v2a_ray.errors import DomainError
from v2a_ray.settings.environment_names import is_environment, is_recorded

Physics = Literal["d4rl", "modern"]
PHYSICS: tuple[Physics, ...] = ("d4rl", "modern")


@dataclass(frozen=True)
class RobotDomain:
    """One of our robots under given dynamics.

    Attributes:
        robot: the robot's name.
        shifts: in the order written; empty for the stock robot.
        physics: "d4rl" reproduces data recorded with D4RL, ODRL and OTDF; "modern" keeps MuJoCo's exact capsule
            inertia. Both have the semantics of gymnasium's v4 environments, so their rewards are comparable.
    """

    robot: str
    shifts: tuple[Shift, ...] = ()
    physics: Physics = "d4rl"

    @property
    def shift_names(self) -> tuple[str, ...]:
        """See `Domain`."""
        return tuple(shift.name for shift in self.shifts)

    @property
    def shift_name(self) -> str:
        """`stock`, or the shifts joined by `+`."""
        return "+".join(self.shift_names) or "stock"

    @property
    def name(self) -> str:
        """Canonical name, for example `hopper/gravity-0.5@d4rl`."""
        return f"{self.robot}/{self.shift_name}@{self.physics}"

    @property
    def identity(self) -> str:
        """See `Domain`: the name says all, except of a plugin's robot."""
        content = robot_content(self.robot)
        return f"{self.name} {content}" if content else self.name

    @property
    def slug(self) -> str:
        """The name as a file name, for example `hopper_gravity-0.5_d4rl`."""
        return f"{self.robot}_{self.shift_name}_{self.physics}"

    @property
    def gym_id(self) -> str:
        """Identifier in gymnasium's registry, for example `v2a/hopper-gravity-0.5-d4rl-v0`."""
        return f"v2a/{self.robot}-{self.shift_name.replace('+', '_')}-{self.physics}-v0"

    @property
    def robot_spec(self) -> RobotSpec:
        """The robot's dimensions and constants."""
        return robot(self.robot)

    @property
    def execution(self) -> Execution:
        """How commanded actions are executed. Raises DomainError if two shifts set the same field."""
        return combined_execution(self.shifts)

    @property
    def base(self) -> RobotDomain:
        """The same dynamics for the robot that this one is a variant of; itself for a robot in its own right."""
        return replace(self, robot=self.robot_spec.variant_of or self.robot)

    @property
    def stock(self) -> RobotDomain:
        """See `Domain`."""
        return replace(self, shifts=())

    def describe(self) -> dict[str, Any]:
        """Everything that defines the domain, as plain values to print: each edit with its old and new numbers."""
        spec = self.robot_spec
        stock = stock_specification(spec)
        return {
            "name": self.name,
            "gym_id": self.gym_id,
            "robot": self.robot,
            "physics": self.physics,
            "model": spec.asset,
            "observation_dim": spec.observation_dim,
            "action_dim": spec.action_dim,
            "max_episode_steps": spec.max_episode_steps,
            "reset_noise_scale": spec.reset_noise_scale,
            "edits": [
                {"shift": shift.name, "edit": edit.place, "old": edit.old(stock), "new": edit.value}
                for shift, edit in domain_edits(spec, self.shifts)
            ],
            "execution": asdict(self.execution),
        }

    def __str__(self) -> str:
        return self.name


# A sweep parses the same few domains thousands of times, and parsing reads the robot's XML.
@lru_cache(maxsize=1024)
def parse_domain(text: str) -> Domain:
    """Read a domain's name. Raises DomainError naming the robots, shifts or physics that exist."""
    if is_environment(text):
        return parse_gym_domain(text)
    return parse_recorded_domain(text) if is_recorded(text) else _parse_robot_domain(text)


def require_robot(domain: Domain, what: str) -> RobotDomain:
    """The domain, where `what` needs to know a robot's whole model. Raises DomainError for other environments."""
    if isinstance(domain, RobotDomain):
        return domain
    raise DomainError(f"{what} needs one of our robots", where=domain.name, remedy=f"one of {', '.join(all_robots())}")


def _parse_robot_domain(text: str) -> RobotDomain:
    body, at, physics = text.strip().partition("@")
    if at and physics not in PHYSICS:
        raise DomainError(f"no physics {physics!r}", where=f"domain {text!r}", remedy=f"one of {', '.join(PHYSICS)}")
    robot_name, slash, shift_text = body.partition("/")
    robot(robot_name)
    names = [] if not slash or shift_text == "stock" else shift_text.split("+")
    shifts = tuple(parse_shift(name, robot_name) for name in names)
    domain = RobotDomain(robot_name, shifts, cast(Physics, physics) if at else "d4rl")
    # Shifts that contradict each other are found when they are combined.
    domain_edits(domain.robot_spec, shifts)
    _ = domain.execution
    return domain


def catalogue(robot_name: str | None = None, physics: Physics = "d4rl") -> list[RobotDomain]:
    """Every named domain of a robot, or of all robots but variants: stock and each named shift."""
    names = [robot_name] if robot_name else [spec.name for spec in all_robots().values() if not spec.variant_of]
    return [RobotDomain(name, shifts, physics) for name in names for shifts in named_shifts(name)]
