"""Tables of the study's page, and the statistics in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.study.design import UNDER
from benchmarks.study.run import Scores
from benchmarks.study.selection import BASELINES, NOTICEABLE
from benchmarks.study.suites import METHODS
from v2a_ray.evaluation.aggregates import improvement
from v2a_ray.evaluation.interval import interquartile_mean, with_spread
from v2a_ray.experiments.choice import MIX, TARGET
from v2a_ray.report.markdown import table_lines

Float = NDArray[np.float64]
BETTER = "better baseline"
FILTERS = tuple(method for method in METHODS if method not in BASELINES)
CONTRASTS = (
    ("iql_mixed", "iql_target"),
    *((method, "iql_mixed") for method in FILTERS),
    *((method, "iql_target") for method in FILTERS),
    *((method, BETTER) for method in FILTERS),
)
"""Named before the runs: does mixing help, and does a filter help more than mixing, than nothing, than the better."""
NAMES = {BETTER: "the better baseline", TARGET: "the target alone"}
"""What methods are compared with, in words."""
FAR = 15
"""Points that one seed of a cell can tell, or nearly so ("What one seed says")."""
LEARNER_SHOWN = (*BASELINES, "v2a", BETTER)


@dataclass(frozen=True)
class Contrast:
    """A method against another over cells.

    Attributes:
        number: of cells.
        mean, low, high: of the difference of scores, averaged over seeds and then over cells, with its 95 % t interval.
        p: two-sided, of the t test that it is 0 over cells, after Holm's correction for all contrasts.
        improvement: probability that a seed of the method beats one of the other, averaged over cells (2108.13264).
    """

    method: str
    other: str
    number: int
    mean: float
    low: float
    high: float
    p: float
    improvement: float


def with_better_baseline(scores: Scores) -> Scores:
    """With `better baseline`: the scores of whichever baseline has the higher mean in this cell, which favours it."""
    better = max(BASELINES, key=lambda name: float(scores[name].mean()))
    return {**scores, BETTER: scores[better]}


def _interval(values: Float, sign: str) -> str:
    """Of the mean, 95 %, with a sign as a format has it; empty for one value."""
    if len(values) < 2:
        return ""
    low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    return f" [{low:{sign}.1f}, {high:{sign}.1f}]"


def contrasts(cells: Sequence[Scores], pairs: Sequence[tuple[str, str]] = CONTRASTS) -> list[Contrast]:
    """Each method against the other of its pair over the cells, at least three."""
    cells = [with_better_baseline(scores) for scores in cells]
    rows, raw = [], []
    for method, other in pairs:
        difference = np.asarray([scores[method].mean() - scores[other].mean() for scores in cells])
        tested = stats.ttest_1samp(difference, 0.0)
        interval = tested.confidence_interval(0.95)
        better = improvement([scores[method] for scores in cells], [scores[other] for scores in cells]).value
        rows.append((method, other, float(difference.mean()), float(interval.low), float(interval.high), better))
        raw.append(float(tested.pvalue))
    return [
        Contrast(method, other, len(cells), mean, low, high, p, better)
        for (method, other, mean, low, high, better), p in zip(rows, holm(raw), strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values."""
    order = np.argsort(p_values)
    corrected, largest = np.empty(len(p_values)), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected.tolist()


def cell_table(cells: Mapping[str, Scores], methods: Sequence[str] = METHODS) -> list[str]:
    """Score of every method in every cell."""
    lines = [
        (cell, str(len(scores[methods[0]])), *(with_spread(scores[method], 1) for method in methods))
        for cell, scores in cells.items()
    ]
    return table_lines(("target, from source", "seeds", *methods), lines)


@dataclass(frozen=True)
class Standing:
    """Where a method stands over cells beside the better baseline, or another method.

    Attributes:
        gains: (C,) mean of the method in each cell less that of the other.
    """

    gains: Float

    @property
    def number(self) -> int:
        """Of cells."""
        return len(self.gains)

    @property
    def ahead(self) -> int:
        """Cells in which it is ahead by more than a difference that is noticed."""
        return int(np.count_nonzero(self.gains > NOTICEABLE))

    @property
    def behind(self) -> int:
        """Cells in which it is behind by more than that."""
        return int(np.count_nonzero(self.gains < -NOTICEABLE))

    @property
    def noticed(self) -> int:
        """Cells in which it is either."""
        return self.ahead + self.behind

    @property
    def far_behind(self) -> int:
        """Cells in which it is behind by more than one seed hides."""
        return int(np.count_nonzero(self.gains < -FAR))

    @property
    def mean(self) -> float:
        """Over cells."""
        return float(self.gains.mean())

    @property
    def loss(self) -> float:
        """The mean with the other sign."""
        return -self.mean

    @property
    def median_loss(self) -> float:
        """The median over cells with the other sign."""
        return -float(np.median(self.gains))

    @property
    def largest_loss(self) -> float:
        """Of any cell."""
        return -float(self.gains.min())

    @property
    def least_loss(self) -> float:
        """Of any cell; negative where it gains everywhere."""
        return -float(self.gains.max())

    @property
    def interval(self) -> str:
        """The mean, and its 95 % t interval over cells where there are two."""
        return f"{self.mean:+.1f}{_interval(self.gains, '+')}"

    @property
    def loss_interval(self) -> str:
        """The loss with its interval."""
        return f"{self.loss:.1f}{_interval(-self.gains, '-')}"


def standing_of(cells: Sequence[Scores], method: str, other: str = BETTER) -> Standing:
    """A method beside another over cells."""
    return Standing(
        np.asarray([scores[method].mean() - scores[other].mean() for scores in map(with_better_baseline, cells)])
    )


def standing_table(
    cells: Sequence[Scores], methods: Sequence[str] = METHODS, which: str = "cells", other: str = BETTER
) -> list[str]:
    """In how many cells the mean of a method is above the other's, beside it, or below; and by how much."""
    lines = []
    for method in methods:
        own = standing_of(cells, method, other)
        counts = map(str, (own.ahead, own.number - own.ahead - own.behind, own.behind, own.far_behind))
        lines.append((method, *counts, f"{own.mean:+.1f}", f"{np.median(own.gains):+.1f}"))
    counted = (f"ahead by more than {NOTICEABLE}", f"within {NOTICEABLE}", "behind", f"behind by more than {FAR}")
    return table_lines((f"against {NAMES[other]}, {len(cells)} {which}", *counted, "mean", "median"), lines)


def interval_of(row: Contrast) -> str:
    """The mean difference with its interval."""
    return f"{row.mean:+.1f} [{row.low:+.1f}, {row.high:+.1f}]"


def contrast_table(found: Sequence[Contrast]) -> list[str]:
    """The contrasts in the order in which they were named."""
    lines = []
    for row in found:
        lines.append((f"{row.method} − {row.other}", interval_of(row), f"{row.p:.3g}", f"{row.improvement:.2f}"))
    head = (f"contrast, {found[0].number} cells", "difference [95 %]", "p (Holm)", "P(improvement)")
    return table_lines(head, lines)


def iqm_table(cells: Sequence[Scores], methods: Sequence[str] = METHODS) -> list[str]:
    """Interquartile mean over cells and seeds of every method; no interval while a cell has fewer than three seeds."""
    lines = []
    for method in methods:
        middle, low, high = interquartile_mean([scores[method] for scores in cells])
        interval = "" if np.isnan(low) else f" [{low:.1f}, {high:.1f}]"
        lines.append((method, f"{middle:.1f}{interval}"))
    policies = sum(len(scores[methods[0]]) for scores in cells)
    head = (f"{len(cells)} cells, {policies} policies each", "interquartile mean [95 %]")
    return table_lines(head, lines)


def learners_table(cells: Sequence[Scores]) -> list[str]:
    """V2A's filter and both baselines under each base learner: means over cells, and the filter's gain."""
    lines = []
    for learner, (target, mix, filtered) in UNDER.items():
        own = [{TARGET: scores[target], MIX: scores[mix], "v2a": scores[filtered]} for scores in cells]
        (gain,) = contrasts(own, [("v2a", BETTER)])
        behind = standing_of(own, "v2a").behind
        with_better = [with_better_baseline(scores) for scores in own]
        columns = [f"{np.mean([scores[name].mean() for scores in with_better]):.1f}" for name in LEARNER_SHOWN]
        lines.append((learner, *columns, interval_of(gain), f"{behind} of {len(cells)}"))
    head = ("learner", "target alone", "plain mixing", "v2a", BETTER, "v2a − better baseline [95 %]")
    return table_lines((*head, f"behind by more than {NOTICEABLE}"), lines)
