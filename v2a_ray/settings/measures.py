"""The numbers that say how good a policy is, and which of them policies are ranked by.

In a simulator that is the return, normalised where the domain has references. Without one it is a number on held-out
target episodes, which an evaluation names (`rank_by`) and has with the sign by which more is better (`rank_score`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

OfflineMeasure = Literal["fitted_q_lower", "fitted_q_mean", "td_error", "action_log_likelihood"]
OFFLINE_MEASURES: tuple[OfflineMeasure, ...] = get_args(OfflineMeasure)
DEFAULT_MEASURE: OfflineMeasure = "td_error"
"""It loses least where true returns are known (docs/no_simulator.md): values by fitted Q evaluation rank no better than
chance there, because critics overestimate what no recording shows."""
MEASURE_WITH_SOURCE: OfflineMeasure = "fitted_q_lower"
"""Where critics are fitted to the source too, they have seen what policies of the source do; their TD error is then
largest for the policies that go where the target has not been, which may be the best (docs/offline_selection.md)."""
RANK_SCORE = "rank_score"
SCORE_TITLE = "normalised score in the target"
_TITLES = {
    "fitted_q_lower": "fitted Q value less its deviation over critics",
    "fitted_q_mean": "fitted Q value",
    "td_error": "TD error times -1",
    "action_log_likelihood": "log-likelihood of actions",
}
_LESS_IS_BETTER = ("td_error",)


def rank_score(measure: str, value: float) -> float:
    """The value with the sign by which more is better."""
    return -value if measure in _LESS_IS_BETTER else value


def score_of_evaluation(evaluation: Mapping[str, Any]) -> float | None:
    """What policies are compared by: the normalised score, or without a simulator `rank_score`.

    None where the target has a simulator and no references.
    """
    score = evaluation.get(RANK_SCORE, evaluation.get("normalized_score_mean"))
    return None if score is None else float(score)


def score_title(evaluation: Mapping[str, Any]) -> str:
    """What `score_of_evaluation` is, in words."""
    measure = evaluation.get("rank_by")
    return SCORE_TITLE if measure is None else f"{_TITLES[measure]} on held-out target episodes (no simulator)"
