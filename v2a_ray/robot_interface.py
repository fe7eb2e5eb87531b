"""The interface of a robot for data, checks and domains."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class RobotInterface(Protocol):
    """A robot's dimensions, its episode length, and the health of observed states."""

    @property
    def name(self) -> str: ...

    @property
    def observation_dim(self) -> int: ...

    @property
    def action_dim(self) -> int: ...

    @property
    def max_episode_steps(self) -> int:
        """Environment steps after which an episode is truncated."""
        ...

    def remedy_for(self, observation_dim: int, action_dim: int) -> str:
        """The remedy for data with these dimensions."""
        ...

    def observed_health(self, observation: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """For observations (N, O): (N,) bool, whether surely healthy, and (N,) bool, whether surely fallen."""
        ...


class UnknownHealth:
    """Mixed into robots that only their environment knows: no observation tells health or a fall."""

    def observed_health(self, observation: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See `RobotInterface`."""
        unknown = np.zeros(len(observation), dtype=bool)
        return unknown, unknown
