"""How far the scores of one cell are apart when only the seed differs: what a cell with one seed can say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.study.run import Scores, read_scores
from benchmarks.study.selection import BASELINES
from benchmarks.study.tables import FILTERS, Standing, standing_of
from v2a_ray.report.markdown import table_lines

Float = NDArray[np.float64]
FEWEST_CELLS = 3
"""With several seeds, for a method to be in the table."""


def scores_by_method(rows: Path) -> dict[str, list[Float]]:
    """Scores (seeds,) of each cell with two seeds or more, in all files of rows that have cells, by method."""
    found: dict[str, list[Float]] = {}
    for path in sorted(rows.glob("*.parquet")):
        if "axis/cell" not in pq.read_schema(path).names:
            continue
        of_cell: dict[tuple[str, str], list[float]] = defaultdict(list)
        for (cell, _), scores in read_scores([path]).items():
            for method, score in scores.items():
                of_cell[cell, method].append(score)
        for (_, method), values in of_cell.items():
            if len(values) >= 2:
                found.setdefault(method, []).append(np.asarray(values))
    return found


def spread_table(rows: Path) -> list[str]:
    """Standard deviation over seeds within a cell, by method: pooled over its cells, the median one, the largest."""
    lines = []
    for method, cells in sorted(scores_by_method(rows).items()):
        if len(cells) < FEWEST_CELLS:
            continue
        freedom = np.asarray([len(scores) - 1 for scores in cells])
        variance = np.asarray([scores.var(ddof=1) for scores in cells])
        pooled = np.sqrt(np.average(variance, weights=freedom))
        numbers = (pooled, np.sqrt(np.median(variance)), np.sqrt(variance.max()))
        policies = sum(map(len, cells))
        lines.append((method, str(len(cells)), str(policies), *(f"{number:.1f}" for number in numbers)))
    head = ("method", "cells", "policies", "pooled standard deviation", "median cell", "largest")
    return table_lines(head, lines)


def crossed(cells: Sequence[Scores], method: str) -> Standing:
    """A method beside the baseline that is better in the cell's other seeds, on average over the seeds of each cell."""
    gains = []
    for scores in cells:
        seeds = range(len(scores[method]))
        better = [max(BASELINES, key=lambda name: float(np.delete(scores[name], seed).mean())) for seed in seeds]
        gains.append(np.mean([scores[method][seed] - scores[better[seed]][seed] for seed in seeds]))
    return Standing(np.asarray(gains))


def crossed_table(cells: Sequence[Scores]) -> list[str]:
    """What each filter gains over the better baseline of the same seeds, and over that of the other seeds."""
    several = [scores for scores in cells if len(scores[BASELINES[0]]) >= 2]
    lines = [(method, standing_of(several, method).interval, crossed(several, method).interval) for method in FILTERS]
    return table_lines((f"{len(several)} cells", "better in the same seeds", "better in other seeds"), lines)
