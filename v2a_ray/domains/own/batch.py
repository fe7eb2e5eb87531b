"""Several environments of one domain, stepped one after another, with the interface of `BatchedEnvironment`.

Nothing is known of how somebody's environment steps, so they share neither threads nor a simulator; the policy still
acts on all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.own.domain import GymDomain
from v2a_ray.errors import DomainError

Step = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]


class EnvironmentLoop:
    """Environments 0 .. num_environments - 1 of a domain; each is an episode of its own. No automatic reset."""

    def __init__(self, domain: GymDomain, num_environments: int) -> None:
        """Raises DomainError as `GymDomain.make` does."""
        self.domain = domain
        self._environments: list[Any] = [domain.make() for _ in range(num_environments)]

    def reset(
        self, seeds: Sequence[int], simulations: Sequence[int] | NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Start an episode, with its own seed, in each of `simulations` (by default all); observations (B, O)."""
        rows = range(len(self._environments)) if simulations is None else simulations
        pairs = zip(seeds, rows, strict=True)
        return np.stack([self._environments[row].reset(seed=int(seed))[0] for seed, row in pairs]).astype(np.float64)

    def step(self, actions_BA: NDArray[Any], simulations: NDArray[np.int64] | None = None) -> Step:
        """One step of each of `simulations` (by default all), with actions (B, A) in [-1, 1]."""
        rows = range(len(self._environments)) if simulations is None else simulations
        steps = [self._environments[row].step(action) for row, action in zip(rows, actions_BA, strict=True)]
        observations, rewards, terminated, truncated, _ = zip(*steps, strict=True)
        return (
            np.stack(observations).astype(np.float64),
            np.array([self._number(reward) for reward in rewards], dtype=np.float64),
            np.array(terminated, dtype=bool),
            np.array(truncated, dtype=bool),
        )

    def _number(self, reward: Any) -> float:
        """A reward, also as an array of one element. Raises DomainError for any other."""
        values = np.asarray(reward)
        if values.size != 1 or values.dtype.kind not in "biuf":
            raise DomainError(
                f"the reward is {reward!r} in a step",
                where=f"environment {self.domain.name}",
                remedy="return one number as the reward",
            )
        return float(values.item())

    def close(self) -> None:
        """Free what the environments hold."""
        for environment in self._environments:
            environment.close()

    def __enter__(self) -> EnvironmentLoop:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
