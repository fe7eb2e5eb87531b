"""Rows whose next observation is the reset of another episode, as in OTDF's medium_expert files.

Such a row looks like an ordinary step: its next observation even equals the following row's observation. Two facts
together identify it. The step arrives close to a start of episodes although it did not leave from there, and it
violates the kinematics that all other steps obey (a position moves by about velocity times time step).

On 24 OTDF and stock files the true rows score 247 and more on the second fact, all other candidates 65 and less; on
roll-outs of our own `python -m benchmarks.reset_detection` measures both.

Both facts need a little of the whole recording: `survey` keeps the starts of episodes and a sample of rows, which do
not depend on how the recording is sliced. With them every row is judged by itself.

Shape suffixes: N transitions, C candidate rows, E episodes, S episode starts, M sampled rows, O observation and A
action dimension, D regressors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.table.segmentation import Rows

Float = NDArray[np.float32]

# With fewer rows, a linear model of one step cannot be distinguished from noise.
MIN_ROWS = 200
# Enough to fit 100 coefficients, and bounded so that a file of millions of rows costs the same.
MAX_FIT_ROWS = 10_000
MAX_STARTS = 64
# In standard deviations of each feature; the quantile ignores features that barely move and so are all noise.
START_DISTANCE = 0.5
FEATURE_QUANTILE = 0.8
# Starts needed to estimate their spread, and how many standard deviations a reset may be away from them.
MIN_STARTS_WITH_SPREAD = 6
START_SPREADS = 6.0
# In medians of the absolute residual.
RESIDUAL_SCORE = 100.0


@dataclass(frozen=True)
class Survey:
    """The part of a recording, or of a slice of it, that the search needs.

    Attributes:
        num_rows: N.
        finite: whether all observations, actions and next observations are finite.
        starts: (E, O) first observation of every episode.
        observation, action, next_observation: (M, O), (M, A), (M, O), the sampled rows.
    """

    num_rows: int
    finite: bool
    starts: Float
    observation: Float
    action: Float
    next_observation: Float


def survey(rows: Rows, num_file_rows: int) -> Survey:
    """The survey of `rows`, a slice of a file of `num_file_rows` rows that begins and ends with an episode."""
    wanted = np.linspace(0, num_file_rows - 1, min(num_file_rows, MAX_FIT_ROWS)).astype(np.int64)
    sample = np.flatnonzero(np.isin(rows.number, wanted, assume_unique=True))
    return Survey(
        num_rows=len(rows),
        finite=all(np.isfinite(values).all() for values in (rows.observation, rows.action, rows.next_observation)),
        starts=rows.observation[np.append(True, rows.last[:-1])],
        observation=rows.observation[sample],
        action=rows.action[sample],
        next_observation=rows.next_observation[sample],
    )


def merge(surveys: Sequence[Survey]) -> Survey:
    """The survey of a whole recording from those of its slices, in file order."""
    arrays = ("starts", "observation", "action", "next_observation")
    return Survey(
        num_rows=sum(each.num_rows for each in surveys),
        finite=all(each.finite for each in surveys),
        **{name: np.concatenate([getattr(each, name) for each in surveys]) for name in arrays},
    )


@dataclass(frozen=True)
class ResetDetector:
    """Judges every row by itself, knowing the `survey` of the whole recording."""

    survey: Survey

    def find(self, rows: Rows) -> NDArray[np.int64]:
        """Indices of the rows whose next observation is a reset. Nothing is found in recordings under 200 rows."""
        found, scores = self.candidates(rows)
        return found[scores > RESIDUAL_SCORE]

    def candidates(self, rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Indices (C,) of the rows that arrive near a start, and how much (C,) each violates the kinematics."""
        if self.survey.num_rows < MIN_ROWS or not self.survey.finite:
            return np.empty(0, dtype=np.int64), np.empty(0)
        found = self._candidates(rows.observation, rows.next_observation)
        if not len(found):
            return found, np.empty(0)
        return found, self._scores(rows.observation[found], rows.action[found], rows.next_observation[found])

    @cached_property
    def _starts(self) -> Float:
        """(S, O)."""
        begins = self.survey.starts
        if len(begins) > MAX_STARTS:
            begins = begins[np.linspace(0, len(begins) - 1, MAX_STARTS).astype(np.int64)]
        return begins

    @cached_property
    def _scale(self) -> Float:
        """(O,)."""
        scale: Float = self.survey.observation.std(axis=0) + np.float32(1e-6)
        return scale

    def _candidates(self, before_NO: Float, after_NO: Float) -> NDArray[np.int64]:
        """Rows that arrive near a start and did not leave from there."""
        near = np.flatnonzero(self._may_be_near_a_start(after_NO))
        arrives = self._distance_to_starts(after_NO[near])
        close = (arrives < START_DISTANCE) & self._among_starts(after_NO[near])
        near, arrives = near[close], arrives[close]
        return near[self._distance_to_starts(before_NO[near]) > 2 * arrives]

    def _among_starts(self, states_NO: Float) -> NDArray[np.bool_]:
        """(N,) bool, whether every feature has a value that a start can have; true if there are too few starts.

        A robot that moves through its initial posture, or hits the floor near it, has other speeds than at a start.
        """
        if len(self._starts) < MIN_STARTS_WITH_SPREAD:
            return np.ones(len(states_NO), dtype=bool)
        spread_O = START_SPREADS * self._starts.std(axis=0) + 1e-6
        apart_NO = np.abs(states_NO - self._starts.mean(axis=0))
        return np.asarray((apart_NO <= spread_O).all(axis=1))

    def _may_be_near_a_start(self, states_NO: Float) -> NDArray[np.bool_]:
        """(N,) bool, false only for rows that are far from all starts: a cheap test with the box around the starts."""
        # A little wider than the distance, so that rounding excludes nothing.
        margin_O = 1.01 * START_DISTANCE * self._scale
        low_O, high_O = self._starts.min(axis=0) - margin_O, self._starts.max(axis=0) + margin_O
        inside = np.zeros(len(states_NO), dtype=np.int16)
        for feature in range(states_NO.shape[1]):
            values = states_NO[:, feature]
            inside += (values >= low_O[feature]) & (values <= high_O[feature])
        return inside > self._rank

    @property
    def _rank(self) -> int:
        """Index of the sorted feature distance that counts as the row's distance."""
        return int(np.ceil(FEATURE_QUANTILE * (self._starts.shape[1] - 1)))

    def _distance_to_starts(self, states_NO: Float) -> Float:
        """(N,) distance to the nearest start: the 0.8 quantile over features, in standard deviations."""
        # One start at a time: N x S x O at once would be gigabytes for a large file.
        nearest = np.full(len(states_NO), np.inf, dtype=np.float32)
        for start_O in self._starts:
            apart_NO = np.abs(states_NO - start_O) / self._scale
            apart_NO.partition(self._rank, axis=1)
            np.minimum(nearest, apart_NO[:, self._rank], out=nearest)
        return nearest

    def _scores(self, before_CO: Float, action_CA: Float, after_CO: Float) -> NDArray[np.float64]:
        """(C,) distance of a step from the linear model of its features, maximum over features, in median residuals."""
        scores = np.zeros(len(before_CO))
        for feature, (weights_D, typical) in enumerate(self._models):
            residual_C = _residuals(before_CO, action_CA, after_CO, feature, weights_D)
            scores = np.maximum(scores, residual_C / (typical + 1e-9))
        return scores

    @cached_property
    def _models(self) -> list[tuple[NDArray[np.floating[Any]], float]]:
        """Per feature the coefficients (D,) of its change in one step, and the median residual.

        The fit excludes candidates, so that they cannot influence it. It is repeated without the rows that fit worst,
        mostly impacts.
        """
        kept = np.ones(len(self.survey.observation), dtype=bool)
        kept[self._candidates(self.survey.observation, self.survey.next_observation)] = False
        before, action, after = (
            getattr(self.survey, name)[kept] for name in ("observation", "action", "next_observation")
        )
        models = []
        for feature in range(before.shape[1]):
            regressors_MD, change_M = _regression(before, action, after, feature)
            fitted = np.arange(len(change_M))
            for _ in range(3):
                weights_D = np.linalg.lstsq(regressors_MD[fitted], change_M[fitted], rcond=None)[0]
                residual_M = np.abs(change_M - regressors_MD @ weights_D)
                fitted = np.flatnonzero(residual_M <= np.quantile(residual_M, 0.95))
            models.append((weights_D, float(np.median(residual_M))))
        return models


def _regression(
    before: Float, action: Float, after: Float, feature: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Regressors of a feature's change in one step: the state before, the action, and the other features after."""
    wide_before, wide_after = before.astype(np.float64), after.astype(np.float64)
    others = np.delete(wide_after, feature, axis=1)
    regressors = np.concatenate([wide_before, action, np.ones((len(before), 1)), others], axis=1)
    return regressors, wide_after[:, feature] - wide_before[:, feature]


def _residuals(
    before: Float, action: Float, after: Float, feature: int, weights_D: NDArray[np.floating[Any]]
) -> NDArray[np.float64]:
    regressors, change = _regression(before, action, after, feature)
    residuals: NDArray[np.float64] = np.abs(change - (regressors * weights_D).sum(axis=1))
    return residuals


def detector_of(rows: Rows, num_file_rows: int | None = None) -> ResetDetector | None:
    """The detector that knows a whole recording; None for an empty one.

    `num_file_rows` is the number of rows in the file, if `rows` lacks some of them.
    """
    if not len(rows):
        return None
    return ResetDetector(survey(rows, num_file_rows or int(rows.number[-1]) + 1))
