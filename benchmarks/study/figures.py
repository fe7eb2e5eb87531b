"""Pictures of the study's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from numpy.typing import NDArray
from scipy import stats

from benchmarks.study.run import Scores
from benchmarks.study.selection import NOTICEABLE, is_control
from benchmarks.study.suites import METHODS

mpl.use("Agg")
Float = NDArray[np.float64]


def overview(gains: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> None:
    """What ways to train gain over the better baseline: a point for each cell, the mean and its 95 % t interval.

    Hollow points are controls, whose source has the target's own dynamics, and are not in the mean.

    Args:
        gains: by robot, way and cell; at least two cells that are no controls.
    """
    size = (12, 3.6)
    plot, (panels,) = pyplot.subplots(1, len(gains), figsize=size, sharey=True, layout="constrained", squeeze=False)
    jitter = np.random.default_rng(0)
    for axes, (robot, by_way) in zip(panels, gains.items(), strict=True):
        axes.axvspan(-NOTICEABLE, NOTICEABLE, color="0.94")
        axes.axvline(0, color="0.5", lw=1)
        for place, by_cell in enumerate(by_way.values()):
            height = place + jitter.uniform(-0.25, 0.25, len(by_cell))
            is_other = np.asarray([not is_control(cell) for cell in by_cell])
            every = np.asarray(list(by_cell.values()))
            values = every[is_other]
            axes.plot(values, height[is_other], "o", ms=4, alpha=0.4, color="C0")
            axes.plot(every[~is_other], height[~is_other], "o", ms=4, color="C3", fillstyle="none")
            low, high = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
            axes.plot([low, high], [place, place], color="black", lw=2)
            axes.plot(values.mean(), place, "D", ms=6, color="black")
        axes.set_title(f"{robot}, {max(map(len, by_way.values()))} cells", loc="left", fontsize=10)
        axes.set_yticks(range(len(by_way)), by_way)
    panels[0].invert_yaxis()
    plot.supxlabel("normalised score less that of the better of the target alone and plain mixing", fontsize=10)
    plot.savefig(path, dpi=120)
    pyplot.close(plot)


def gain_interval(mine: Float, others: Float) -> tuple[float, float]:
    """Mean difference of a cell, paired by seed, and the half width of its 95 % t interval (NaN below three seeds)."""
    difference = mine - others
    if len(difference) < 3:
        return float(difference.mean()), float("nan")
    half = stats.t.ppf(0.975, len(difference) - 1) * difference.std(ddof=1) / np.sqrt(len(difference))
    return float(difference.mean()), float(half)


def map_of_help(robot: str, cells: Mapping[str, Scores], path: Path, shown_methods: Sequence[str] = METHODS) -> None:
    """The map of help: what every method gains over the target alone, cell by cell, the worst target first."""
    shown = sorted(cells, key=lambda cell: -float(cells[cell]["iql_target"].mean()))
    plot, axes = pyplot.subplots(figsize=(10, 1.4 + 0.42 * len(shown)), layout="constrained")
    methods = [method for method in shown_methods if method != "iql_target"]
    for number, (method, marker) in enumerate(zip(methods, "os^D"[: len(methods)], strict=True)):
        pairs = [gain_interval(cells[cell][method], cells[cell]["iql_target"]) for cell in shown]
        places = np.arange(len(shown)) + 0.18 * (number - (len(methods) - 1) / 2)
        means, halves = np.asarray(pairs).T
        axes.errorbar(means, places, xerr=halves, fmt=marker, ms=5, label=method)
    axes.axvline(0, color="0.5", lw=1)
    axes.set_yticks(range(len(shown)), [f"{cell}   {cells[cell]['iql_target'].mean():.0f}" for cell in shown])
    axes.set_title(f"{robot}: target, source, and the score of the target alone", loc="left", fontsize=10)
    axes.set_xlabel("gain over the target alone, normalised score")
    axes.grid(axis="y", color="0.93")
    axes.set_axisbelow(True)
    plot.legend(loc="outside lower center", ncols=len(methods), frameon=False)
    plot.savefig(path, dpi=120)
    pyplot.close(plot)
