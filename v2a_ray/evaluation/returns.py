"""Evaluates a policy in a domain: returns, lengths and normalised scores of evaluation episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains import Domain, normalized_score
from v2a_ray.domains.rollout import Act, roll_out
from v2a_ray.evaluation.interval import spread


@dataclass(frozen=True)
class EpisodeResults:
    """Undiscounted returns and lengths of evaluation episodes, each (num_episodes,)."""

    domain: Domain
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @property
    def normalized_scores(self) -> NDArray[np.float64] | None:
        """(num_episodes,): 100 (J - J_random) / (J_expert - J_random); None without reference returns."""
        return normalized_score(self.domain, self.returns)

    def summary(self) -> dict[str, float | None]:
        """Means and sample standard deviations (None for one episode), as in `result.json`.

        Scores are None if the domain has no reference returns.
        """
        scores, several = self.normalized_scores, len(self.returns) > 1
        return {
            "num_episodes": len(self.returns),
            "return_mean": float(self.returns.mean()),
            "return_std": spread(self.returns) if several else None,
            "normalized_score_mean": None if scores is None else float(scores.mean()),
            "normalized_score_std": spread(scores) if several and scores is not None else None,
            "episode_length_mean": float(self.lengths.mean()),
        }


def evaluate(act: Act, domain: Domain, num_episodes: int, seed: int) -> EpisodeResults:
    """Run `num_episodes` episodes side by side, episode i reset with seed + i."""
    return EpisodeResults(domain, *roll_out(act, domain, num_episodes, seed))
