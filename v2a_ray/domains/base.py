"""What everything else asks of a domain: data, experiments, stages, evaluation, export and reports know no more.

There are three kinds: our robots under a dynamics shift (`domain.RobotDomain`), whose whole model we know; anybody's
Gymnasium environment (`own.domain.GymDomain`), of which we know its spaces; and a robot of which there are recordings
and no simulator (`recorded.RecordedDomain`).
"""

from __future__ import annotations

from typing import Any, Protocol

from v2a_ray.domains.shifts.execution import Execution
from v2a_ray.robot_interface import RobotInterface


class Domain(Protocol):
    """A robot under given dynamics. Immutable, hashable, and equal where the name is."""

    @property
    def robot(self) -> str:
        """Name of the robot, whatever its shifts; policies act on any domain of their robot."""
        ...

    @property
    def robot_spec(self) -> RobotInterface:
        """The robot's dimensions."""
        ...

    @property
    def shift_names(self) -> tuple[str, ...]:
        """The shifts, in the order written; none is the stock robot."""
        ...

    @property
    def name(self) -> str:
        """Canonical; `parse_domain` gives this domain again."""
        ...

    @property
    def identity(self) -> str:
        """What artifacts are keyed by: the name, and the content of what it names."""
        ...

    @property
    def slug(self) -> str:
        """The name as a file name."""
        ...

    @property
    def execution(self) -> Execution:
        """What happens to an action between command and execution."""
        ...

    @property
    def base(self) -> Domain:
        """The same dynamics for the robot that this one is a variant of; itself for a robot in its own right."""
        ...

    @property
    def stock(self) -> Domain:
        """The same robot without shifts."""
        ...

    def describe(self) -> dict[str, Any]:
        """Everything that defines the domain, as plain values to print."""
        ...

    @property
    def shift_name(self) -> str:
        """`stock`, or the shifts joined by `+`."""
        ...
