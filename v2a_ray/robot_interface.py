"""The sizes of a robot: what data, checks and domains all ask of one, whichever robot it is."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class RobotInterface(Protocol):
    """The sizes of a robot's observations and actions, and what can be said of observed states."""

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
        """What to try when data have these dimensions instead."""
        ...

    def observed_health(self, observation: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of observations (N, O): (N,) whether surely healthy, (N,) whether surely fallen."""
        ...
