"""Plots of learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from v2a_ray.evaluation.aggregates import mean_curve
from v2a_ray.evaluation.interval import MIN_VALUES
from v2a_ray.report.figures import MAX_TOGETHER, Style, panels, styles
from v2a_ray.settings.measures import RANK_SCORE, SCORE_TITLE

SCORE, RETURN = "evaluation/normalized_score_mean", "evaluation/return_mean"
OFFLINE = f"evaluation/{RANK_SCORE}"
AXES = {
    OFFLINE: "score on held-out target episodes (no simulator)",
    SCORE: SCORE_TITLE,
    RETURN: "return in the target",
}
"""Recorded metric to what it is; of those that a policy has, the first is drawn."""
Cells = Mapping[str, Mapping[str, Sequence[pa.Table]]]
"""Maps a task to a method to the curves of its seeds."""
MAX_POINTS = 200
"""Maximum of points per line; more could not be distinguished."""


def score_curve(curves: pa.Table) -> tuple[NDArray[Any], NDArray[Any]]:
    """Update steps and scores of a policy's evaluations, from its `curves.parquet`: the first of `AXES` that it has."""
    steps = curves.column("step").to_numpy()
    scores = curves.column(drawn(curves)).to_numpy(zero_copy_only=False).astype(float)
    evaluated = ~np.isnan(scores)
    return steps[evaluated], scores[evaluated]


def drawn(curves: pa.Table) -> str:
    """The metric that a policy's curve shows."""
    return next((name for name in AXES if name in curves.column_names), RETURN)


def axis_of(curves: pa.Table) -> str:
    """Axis label for the values of a policy's evaluations."""
    return AXES[drawn(curves)]


def plot_run(curves: pa.Table, path: Path, title: str) -> None:
    """The score over update steps of one run."""
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    axes = figure.subplots()
    steps, scores = score_curve(curves)
    axes.plot(steps, scores, marker="o", color="#0072B2")
    axes.set_title(title, parse_math=False)
    axes.set_xlabel("update steps")
    axes.set_ylabel(axis_of(curves))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130, format="png")  # also under a temporary name


def plot_cells(cells: Cells, path: Path, title: str) -> None:
    """One panel per task, one line per method: mean over seeds, with its 95 % bootstrap interval.

    Beyond eight methods every method has a panel of its own, in which the others are grey.
    """
    figure = cells_figure(cells, f"{title} · {in_words(cells)}")
    figure.savefig(path, dpi=130, format="png")  # also under a temporary name


def in_words(cells: Cells) -> str:
    """Caption that explains lines and bands."""
    counts = sorted({len(seeds) for by_method in cells.values() for seeds in by_method.values()})
    if counts == [1]:
        return "one seed, which says nothing about others"
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    if counts[-1] < MIN_VALUES:
        return f"mean of {number} seeds, too few for an interval"
    few = "" if counts[0] >= MIN_VALUES else f", none below {MIN_VALUES}"
    return f"mean of {number} seeds; bands: 95 % bootstrap intervals{few}"


def by_final_score(cells: Cells) -> list[str]:
    """All methods, the best at the end of training first: the mean over tasks and seeds of the last evaluation."""
    finals: dict[str, list[float]] = {}
    for by_method in cells.values():
        for method, seeds in by_method.items():
            scores = [values[-1] for _, values in map(score_curve, seeds) if len(values)]
            finals.setdefault(method, []).append(float(np.mean(scores)) if scores else -np.inf)
    return sorted(finals, key=lambda method: -np.mean(finals[method]))


def cells_figure(cells: Cells, title: str = "", gids: Mapping[str, str] | None = None) -> Figure:
    """See `plot_cells`; `gids` maps the methods, in another order, to the prefix of their SVG groups' ids."""
    methods = list(gids) if gids else by_final_score(cells)
    style = styles(methods)
    apart = len(methods) > MAX_TOGETHER
    each = [(task, [method]) for task, mine in cells.items() for method in methods if method in mine]
    shown = each if apart else [(task, methods) for task in cells]
    columns = 4 if apart else 3
    figure, grid = panels(len(shown), columns, 3.0 if apart else 4.4, 2.2 if apart else 3.4)
    lines: dict[str, Any] = {}
    for number, (axes, (task, mine)) in enumerate(zip(grid, shown, strict=True)):
        if apart:
            for other in cells[task].values():
                steps, scores_SK = _stacked(other)
                axes.plot(steps, scores_SK.mean(axis=0), color="0.75", linewidth=0.6)
        for method in mine:
            if method in cells[task]:
                name = f"{gids[method]}-{number}" if gids else None
                lines[method] = draw_curve(axes, cells[task][method], style[method], name)
        parts = ([task] if len(cells) > 1 else []) + (mine if apart else [])
        axes.set_title(" · ".join(parts), fontsize=9 if apart else 10, parse_math=False)
        axes.set_xlabel("update steps")
        axes.grid(alpha=0.3)
    if title:
        figure.suptitle(title, fontsize=10, parse_math=False)
    if not apart:
        legend = figure.legend(
            [lines[method] for method in methods if method in lines],
            [method for method in methods if method in lines],
            loc="outside lower center",
            ncols=min(4, 2 * len(cells)),
            fontsize=8,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
    tables = (table for by_method in cells.values() for seeds in by_method.values() for table in seeds)
    figure.supylabel(" or ".join(sorted({axis_of(table) for table in tables})), fontsize=10)
    return figure


def draw_curve(axes: Axes, seeds: Sequence[pa.Table], style: Style, gid: str | None) -> Any:
    """One method's line and band; returns the line."""
    steps, scores_SK = _stacked(seeds)
    mean, low, high = mean_curve(scores_SK)
    every = max(1, len(steps) // 12)
    (line,) = axes.plot(
        steps, mean, color=style.color, marker=style.marker, markersize=4, markevery=every, linewidth=1.4, gid=gid
    )
    if not np.isnan(low).all():
        band = f"{gid}-band" if gid else None
        axes.fill_between(steps, low, high, color=style.color, alpha=0.15, linewidth=0, gid=band)
    return line


def _stacked(seeds: Sequence[pa.Table]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Steps (K,) and scores (S, K) of a method's seeds, up to the end of the shortest curve."""
    curves = [score_curve(table) for table in seeds]
    shortest = min(len(steps) for steps, _ in curves)
    kept = np.unique(np.linspace(0, max(0, shortest - 1), min(shortest, MAX_POINTS)).astype(int))
    return curves[0][0][kept], np.stack([values[kept] for _, values in curves])
