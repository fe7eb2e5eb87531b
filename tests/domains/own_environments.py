"""Environments that no package has: a robot of one's own, as a user would write it, and ones that are refused."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict


class Cart(gymnasium.Env[Any, Any]):
    """A point mass on a line that is pushed towards a goal: no MuJoCo, dict observations, actions in [0, 4]."""

    def __init__(self, mass: float = 1.0) -> None:
        self.mass = mass
        self.observation_space = Dict({"goal": Box(-1, 1, (1,)), "state": Box(-9, 9, (2,))})
        self.action_space = Box(0.0, 4.0, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.goal, self.state = self.np_random.uniform(-1, 1, 1), np.zeros(2)
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.pushed = float(action[0])
        velocity = self.state[1] + 0.1 * (self.pushed - 2.0) / self.mass
        self.state = np.array([self.state[0] + 0.1 * velocity, velocity])
        return self._observe(), -abs(float(self.goal[0] - self.state[0])), False, False, {}

    def _observe(self) -> dict[str, Any]:
        return {"goal": self.goal.astype(np.float32), "state": self.state.astype(np.float32)}


class InArrays(Cart):
    """Rewards as arrays, of as many elements as it is told."""

    def __init__(self, elements: int = 1) -> None:
        super().__init__()
        self.elements = elements

    def step(self, action: Any) -> Any:
        observation, reward, *rest = super().step(action)
        return observation, np.full(self.elements, reward), *rest


class Pictures(Cart):
    """Sees pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_space = Box(0, 255, (8, 8, 3), np.uint8)


class Boundless(Cart):
    """Has no bounds to scale actions by."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = Box(-np.inf, np.inf, (1,))


class Restless(gymnasium.Wrapper):
    """Sets gravity anew at every reset."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("InvertedPendulum-v5"))

    def reset(self, **more: Any) -> Any:
        self.unwrapped.model.opt.gravity[2] = -9.81
        return self.env.reset(**more)


def push_left(observation: Any) -> Any:
    """A behaviour of one observation."""
    return [-0.5]


def push_everywhere(observation: Any) -> Any:
    """A behaviour of a robot with more actuators."""
    return [0.0, 0.0]
