"""Roll-outs of a policy in an environment, several episodes at a time.

Shape suffixes: B environments that are still running, O observation dimension, A action dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains import Domain, make_environment, normalized_score

Act = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Raw observations (B, O) to actions (B, A) in [-1, 1]."""


@dataclass(frozen=True)
class EpisodeResults:
    """Undiscounted returns and lengths of evaluation episodes, each (num_episodes,)."""

    domain: Domain
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @property
    def normalized_scores(self) -> NDArray[np.float64]:
        """(num_episodes,): 100 (J - J_random) / (J_expert - J_random), with the domain's references."""
        return np.asarray([normalized_score(self.domain, float(value)) for value in self.returns])

    def summary(self) -> dict[str, float]:
        """Means and standard deviations, as they stand in `result.json`."""
        scores = self.normalized_scores
        return {
            "num_episodes": len(self.returns),
            "return_mean": float(self.returns.mean()),
            "return_std": float(self.returns.std()),
            "normalized_score_mean": float(scores.mean()),
            "normalized_score_std": float(scores.std()),
            "episode_length_mean": float(self.lengths.mean()),
        }


def evaluate(act: Act, domain: Domain, num_episodes: int, seed: int) -> EpisodeResults:
    """Run `num_episodes` episodes side by side, episode i reset with seed + i, one batched call of `act` per step."""
    environments = [make_environment(domain) for _ in range(num_episodes)]
    returns = np.zeros(num_episodes)
    lengths = np.zeros(num_episodes, dtype=np.int64)
    try:
        observations = np.stack([env.reset(seed=seed + index)[0] for index, env in enumerate(environments)])
        running = np.arange(num_episodes)
        while len(running):
            actions = act(observations.astype(np.float32))
            steps = [environments[index].step(action) for index, action in zip(running, actions, strict=True)]
            returns[running] += [step[1] for step in steps]
            lengths[running] += 1
            alive = np.asarray([not (step[2] or step[3]) for step in steps])
            observations = np.stack([step[0] for step in steps])[alive]
            running = running[alive]
    finally:
        for environment in environments:
            environment.close()
    return EpisodeResults(domain, returns, lengths)
