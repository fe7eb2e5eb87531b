"""Statistics shared by the audits. An undefined statistic is None."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

Values = NDArray[Any]


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float | None:
    """Spearman's rho over pairs without NaN; None for fewer than three pairs or a constant side."""
    one, other = np.asarray(first), np.asarray(second)
    known = np.isfinite(one) & np.isfinite(other)
    one, other = one[known], other[known]
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)


def auc(positive: ArrayLike, negative: ArrayLike) -> float | None:
    """Probability that a positive scores above a negative, ties count half; None if one side is empty."""
    one, other = np.asarray(positive), np.asarray(negative)
    if not len(one) or not len(other):
        return None
    truth = np.concatenate([np.ones(len(one)), np.zeros(len(other))])
    return float(roc_auc_score(truth, np.concatenate([one, other])))


def explained(values: ArrayLike, *groups: ArrayLike) -> list[float]:
    """Shares of the variance of `values` (n,) between nested groups, outermost first, then inside the last groups.

    `explained(h, domain, part)` is [between domains, between a domain's parts, inside parts]; the sum is one.
    """
    x = np.asarray(values, dtype=np.float64)
    total = float(x.var())
    if total == 0:
        return [0.0] * len(groups) + [1.0]
    shares, before = [], 0.0
    for group in groups:
        _, index = np.unique(np.asarray(group), return_inverse=True)
        means = np.bincount(index, x) / np.bincount(index)
        between = float(means[index].var()) / total
        shares.append(between - before)
        before = between
    return [*shares, 1.0 - before]


def weighted_mean(values: Values, weights: Values) -> float | None:
    """Weighted mean over values that are not NaN; None if the weights sum to zero."""
    known = np.isfinite(values)
    values, weights = values[known], weights[known]
    total = float(weights.sum())
    return float((values * weights).sum() / total) if total > 0 else None


def ranks_within(values: Values, groups: ArrayLike) -> NDArray[np.float64]:
    """(n,) in (0, 1): each value's rank among those of its group."""
    labels = np.asarray(groups)
    result = np.empty(len(values))
    for label in np.unique(labels):
        inside = np.flatnonzero(labels == label)
        order = np.argsort(np.argsort(values[inside], kind="stable"), kind="stable")
        result[inside] = (order + 0.5) / len(inside)
    return result
