"""Shifts of execution: they change a commanded action before it reaches the actuators.

They do not change the MuJoCo model. At environment step t

    executed_t = clip(commanded_{t - delay_steps} + noise_std * n_t, -1, 1),    n_t ~ N(0, I)

with zeros for commands before the reset. Rewards are computed from the commanded action.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Execution:
    """How commanded actions are executed. The default executes them unchanged.

    Attributes:
        noise_std: standard deviation of the Gaussian noise added to each action dimension; 0 adds none.
        delay_steps: environment steps between command and execution.
    """

    noise_std: float = 0.0
    delay_steps: int = 0

    @property
    def is_exact(self) -> bool:
        """Whether every action is executed immediately and unchanged."""
        return self == Execution()


class ActionChannel:
    """Turns commanded into executed actions in one environment; holds the delayed actions."""

    def __init__(self, execution: Execution, action_dim: int) -> None:
        self.execution, self.action_dim = execution, action_dim
        self._under_way: deque[NDArray[Any]] = deque()
        self.reset()

    def reset(self) -> None:
        """Forget earlier commands."""
        zeros = np.zeros(self.action_dim)
        self._under_way = deque([zeros] * self.execution.delay_steps)

    def execute(self, commanded: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        """The action (A,) to execute now that `commanded` (A,) is given.

        With noise, exactly one `generator.normal` of size A is drawn per call. Raises ValueError for another shape.
        """
        if np.shape(commanded) != (self.action_dim,):
            raise ValueError(f"an action of shape {np.shape(commanded)}, expected {(self.action_dim,)}")
        # A copy, because the caller may write its next action into the same array.
        self._under_way.append(np.array(commanded, dtype=np.float64))
        executed = self._under_way.popleft()
        if self.execution.noise_std:
            executed = executed + generator.normal(0.0, self.execution.noise_std, self.action_dim)
        clipped: NDArray[Any] = np.clip(executed, -1.0, 1.0)
        return clipped
