"""Learning curves as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa

SCORE, RETURN = "evaluation/normalized_score_mean", "evaluation/return_mean"
_SIZE = (7.0, 4.2)


def score_curve(curves: pa.Table) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Update steps and normalised scores of a policy's evaluations, from its `curves.parquet`.

    Returns instead, where the domain has no references.
    """
    steps = curves.column("step").to_numpy()
    scores = curves.column(SCORE if has_scores(curves) else RETURN).to_numpy(zero_copy_only=False).astype(float)
    evaluated = ~np.isnan(scores)
    return steps[evaluated], scores[evaluated]


def has_scores(curves: pa.Table) -> bool:
    """Whether returns could be normalised."""
    return SCORE in curves.column_names


def _axis(curves: pa.Table) -> str:
    return f"{'normalised score' if has_scores(curves) else 'return'} in the target"


def plot_run(curves: pa.Table, path: Path, title: str) -> None:
    """The normalised score over update steps of one run, or its return where there is none."""
    figure, axes = plt.subplots(figsize=_SIZE, layout="constrained")
    steps, scores = score_curve(curves)
    axes.plot(steps, scores, marker="o")
    axes.set_ylabel(_axis(curves))
    _finish(figure, axes, path, title)


def plot_cells(cells: Mapping[str, Mapping[str, Sequence[pa.Table]]], path: Path, title: str) -> None:
    """One panel per task, one line per method: mean over seeds, with a band of one standard deviation.

    Args:
        cells: task to method to the curves of its seeds.
    """
    columns = min(3, len(cells))
    rows = -(-len(cells) // columns)
    methods = list(dict.fromkeys(method for by_method in cells.values() for method in by_method))
    legend_columns = 2 * columns
    size = (4.6 * columns, 3.6 * rows + 0.2 * -(-len(methods) // legend_columns))
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, sharey=True)
    styles = {
        # Beyond ten methods colours come again, with another line.
        method: {"color": f"C{index % 10}", "linestyle": ("-", "--", ":", "-.")[index // 10 % 4]}
        for index, method in enumerate(methods)
    }
    lines: dict[str, Any] = {}
    for axes, (task, by_method) in zip(grid.flat, cells.items(), strict=False):
        for method, seeds in by_method.items():
            curves = [score_curve(table) for table in seeds]
            shortest = min(len(steps) for steps, _ in curves)
            scores = np.stack([values[:shortest] for _, values in curves])
            steps, mean = curves[0][0][:shortest], scores.mean(axis=0)
            (lines[method],) = axes.plot(steps, mean, marker="o", markersize=3, **styles[method])
            if len(seeds) > 1:
                std = scores.std(axis=0, ddof=1)
                axes.fill_between(steps, mean - std, mean + std, color=styles[method]["color"], alpha=0.15, linewidth=0)
        axes.set_title(task if len(cells) > 1 else "", fontsize=10)
        axes.set_xlabel("update steps")
        axes.grid(alpha=0.3)
    for axes in grid.flat[len(cells) :]:
        axes.set_visible(False)
    counts = sorted({len(seeds) for by_method in cells.values() for seeds in by_method.values()})
    seeds_text = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    what = "one seed" if counts == [1] else f"mean ± sample standard deviation of {seeds_text} seeds"
    figure.suptitle(f"{title} · {what}", fontsize=10)
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=legend_columns, fontsize=8)
    labels = {_axis(table) for by_method in cells.values() for seeds in by_method.values() for table in seeds}
    figure.supylabel(" or ".join(sorted(labels)))
    figure.savefig(path, dpi=130, format="png")  # also under a temporary name
    plt.close(figure)


def _finish(figure: Any, axes: Any, path: Path, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("update steps")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=130, format="png")  # also under a temporary name
    plt.close(figure)
