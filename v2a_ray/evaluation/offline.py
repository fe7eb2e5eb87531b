"""Numbers on held-out target episodes, which say what can be said of a policy that nobody may try.

None of them is a return. Fitted Q evaluation extrapolates where the policy does what no recording shows; the TD error
says whether its critics explain transitions they were not fitted to; the likelihood of recorded actions says how close
the policy is to whoever acted in the recordings, which is not how good it is.

Shape suffixes: N transitions, E episodes, O observation dimension, A action dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains.rollout import Act
from v2a_ray.engine.trainer import Progress, silent
from v2a_ray.evaluation.fitted_q_evaluation import FittedQConfig, OfflineValue, first_states, fit_critics
from v2a_ray.evaluation.interval import mean_interval
from v2a_ray.settings.measures import RANK_SCORE, OfflineMeasure, rank_score

HELD_OUT = "held_out"
"""In the artifact of a target without a simulator, beside its table: the table of the episodes that no stage sees."""
_LEAST_DEVIATION = 0.01
"""Of an action, of a range of 2: a policy that repeats its data exactly is not infinitely likely."""


@dataclass(frozen=True)
class OfflineData:
    """Recorded episodes that policies are held against.

    Attributes:
        fitted: what critics are fitted to.
        held_out: of the target; no critic, and where a run held them out no policy, has seen them.
        has_rewards: whether rewards were recorded, or named.
        first_EO: (E, O) states in which policies start; by default the first of every held-out episode.
    """

    fitted: EpisodeTable
    held_out: EpisodeTable
    has_rewards: bool = True
    first_EO: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class OfflineNumbers:
    """What held-out episodes say of a policy.

    Attributes:
        value: by fitted Q evaluation; None without rewards, and so is `td_error`.
        td_error: see `FittedQ.td_error`, of held-out transitions, in the unit of the data's rewards.
        action_log_likelihood: see `action_log_likelihood`.
    """

    value: OfflineValue | None
    td_error: float | None
    action_log_likelihood: float
    num_episodes: int
    num_transitions: int

    def of(self, measure: OfflineMeasure) -> float | None:
        """One of the numbers that policies are ranked by; None where it needs rewards and there are none."""
        match measure:
            case "fitted_q_lower":
                return None if self.value is None else self.value.lower
            case "fitted_q_mean":
                return None if self.value is None else self.value.mean
            case "td_error":
                return self.td_error
            case "action_log_likelihood":
                return self.action_log_likelihood

    def summary(self, rank_by: OfflineMeasure) -> dict[str, Any]:
        """As they stand in `result.json`; without rewards policies are ranked by the likelihood of actions."""
        chosen, ranked = rank_by, self.of(rank_by)
        if ranked is None:
            chosen, ranked = "action_log_likelihood", self.action_log_likelihood
        low, high = mean_interval(self.value.of_episode) if self.value else (np.nan, np.nan)
        return {
            "rank_by": chosen,
            RANK_SCORE: rank_score(chosen, ranked),
            "fitted_q_mean": self.value.mean if self.value else None,
            "fitted_q_std": self.value.std if self.value else None,
            "fitted_q_lower": self.value.lower if self.value else None,
            "fitted_q_interval": None if np.isnan(low) else [low, high],
            "td_error": self.td_error,
            "action_log_likelihood": self.action_log_likelihood,
            "num_held_out_episodes": self.num_episodes,
            "num_held_out_transitions": self.num_transitions,
        }


def evaluate_offline(
    act: Act, data: OfflineData, config: FittedQConfig, seed: int, progress: Progress = silent
) -> OfflineNumbers:
    """Hold the policy `act` against recorded episodes; its critics are fitted anew, with this seed."""
    value = td_error = None
    if data.has_rewards:
        critics = fit_critics(act, data.fitted, config, seed, progress)
        first_EO = first_states(data.held_out) if data.first_EO is None else data.first_EO
        value, td_error = critics.value(first_EO), critics.td_error(data.held_out)
    likelihood = action_log_likelihood(act, data.fitted, data.held_out)
    return OfflineNumbers(value, td_error, likelihood, data.held_out.num_episodes, data.held_out.num_transitions)


def action_log_likelihood(act: Act, fitted: EpisodeTable, held_out: EpisodeTable) -> float:
    """Mean of log N(a | pi(s), diag(sigma^2)) over held-out transitions, in nats.

    The policy is deterministic, so sigma (A,) is how far fitted actions are from its own, root mean square, at least
    0.01 in each direction.
    """
    sigma_A = np.maximum(np.sqrt(np.square(_apart(act, fitted)).mean(axis=0)), _LEAST_DEVIATION)
    squares_NA = np.square(_apart(act, held_out) / sigma_A)
    return float(-(0.5 * squares_NA + np.log(sigma_A) + 0.5 * np.log(2.0 * np.pi)).sum(axis=1).mean())


def _apart(act: Act, table: EpisodeTable) -> NDArray[np.float64]:
    """(N, A) recorded actions less the policy's."""
    return table.action.astype(np.float64) - act(table.observation)
