"""Mean and standard deviation of a table from its parts, to double precision for any division into parts.

The sum of squares minus the squared mean loses the digits that the two share: with a mean of 1,000 and a standard
deviation of 0.01, ten of sixteen. Here every part keeps its mean and its squared deviations from that mean, and parts
are merged by the formula of Chan, Golub and LeVeque (1983), which only adds squares.

Shape suffixes: N rows, F features, K parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 8192
"""Rows that are converted to double precision at a time."""


@dataclass(frozen=True)
class Moments:
    """Count, mean and spread of rows of features.

    Attributes:
        count: number of rows.
        mean: (F,) float64.
        deviations: (F,) float64 sum of squared deviations from `mean`.
    """

    count: int
    mean: NDArray[np.float64]
    deviations: NDArray[np.float64]

    @staticmethod
    def of(values: NDArray[Any]) -> Moments:
        """The moments of at least one row, (N, F)."""
        return Moments.merge([_of_block(values[i : i + _BLOCK_ROWS]) for i in range(0, len(values), _BLOCK_ROWS)])

    @staticmethod
    def merge(parts: Sequence[Moments]) -> Moments:
        """The moments of all rows of all parts. Another partition gives the same result up to rounding."""
        counts_K = np.asarray([part.count for part in parts], dtype=np.float64)
        total = counts_K.sum()
        # NumPy sums the last axis pairwise, so the rounding error grows only with log K.
        means_FK = np.stack([part.mean for part in parts], axis=-1)
        origin_F1 = means_FK[:, :1]
        mean_F = origin_F1[:, 0] + ((means_FK - origin_F1) * counts_K).sum(axis=-1) / total
        between_F = (np.square(means_FK - mean_F[:, None]) * counts_K).sum(axis=-1)
        within_F = np.stack([part.deviations for part in parts], axis=-1).sum(axis=-1)
        return Moments(int(total), mean_F, within_F + between_F)

    @property
    def std(self) -> NDArray[np.float64]:
        """(F,) population standard deviation."""
        return np.sqrt(self.deviations / self.count)

    def to_dict(self) -> dict[str, Any]:
        """Lossless plain values."""
        return {"count": self.count, "mean": self.mean.tolist(), "deviations": self.deviations.tolist()}

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Moments:
        """Inverse of `to_dict`."""
        return Moments(plain["count"], np.asarray(plain["mean"]), np.asarray(plain["deviations"]))


def _of_block(values: NDArray[Any]) -> Moments:
    values_FN = np.ascontiguousarray(values.T, dtype=np.float64)
    shifted_FN = values_FN - values_FN[:, :1]
    shift_F = shifted_FN.sum(axis=1) / len(values)
    centred_FN = shifted_FN - shift_F[:, None]
    # After centring, a nonzero mean is rounding error; subtracting it from the squares corrects for it.
    rest_F = centred_FN.sum(axis=1)
    deviations_F = np.square(centred_FN).sum(axis=1) - rest_F**2 / len(values)
    return Moments(len(values), values_FN[:, 0] + shift_F, np.maximum(deviations_F, 0.0))
