"""Figures of the results page as SVG that takes its ink from the page, so that both themes can be read.

What belongs to method number i lies in groups whose ids begin with `m<i>-`: the page's script hides and shows them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from v2a_ray.evaluation.aggregates import profile
from v2a_ray.evaluation.interval import mean_interval
from v2a_ray.report.comparison import Comparison
from v2a_ray.report.curves import Cells, cells_figure, in_words
from v2a_ray.report.figures import MAX_TOGETHER, panels, styles
from v2a_ray.settings.base import leaves

_INK = "#010203"
"""Placeholder for the colour of the page's text until the SVG is written."""
_STYLE = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "xtick.labelcolor"), _INK
    ),
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
    "svg.fonttype": "none",
}
_THRESHOLDS = 101
_RESPONSES = {
    "policy.filter.alignment_weight": "λ: weight of alignment against value",
    "policy.filter.keep_fraction": "ξ: part of the eligible transitions that is kept",
}
"""Settings whose response is shown where they vary."""


def figures(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Title, caption and SVG of every figure; empty figures are left out."""
    cells = _cells(comparison)
    made: list[tuple[str, str, Callable[[], Figure]]] = [
        ("Scores by task", f"Mean {comparison.score_title} over seeds; lines: 95 % bootstrap intervals of three seeds "
         "and more.", lambda: _bars(comparison)),
        ("Performance profiles", "The part of seeds that score more than a threshold, averaged over tasks; bands: "
         "95 % stratified bootstrap intervals. Higher is better everywhere.", lambda: _profiles(comparison)),
    ]  # fmt: skip
    if cells:
        gids = {method: f"m{index}-curve" for index, method in enumerate(comparison.methods)}
        made.append(("Learning curves", f"Lines: {in_words(cells)}.", lambda: cells_figure(cells, gids=gids)))
    if responses := _responses(comparison):
        caption = (
            f"Mean {comparison.score_title} over tasks and seeds of every method that was trained with several values; "
            "bands: 95 % bootstrap intervals of three policies and more."
        )
        made.append(("Response to λ and ξ", caption, lambda: _response_figure(comparison, responses)))
    return [(title, caption, as_svg(draw, f"{title}. {caption}")) for title, caption, draw in made]


def _cells(comparison: Comparison) -> Cells:
    cells: dict[str, dict[str, list[Any]]] = {}
    for record in comparison.finished:
        cells.setdefault(record.task, {}).setdefault(record.method, []).append(record.curves())
    return cells


def _responses(comparison: Comparison) -> dict[str, dict[str, dict[float, list[float]]]]:
    """Setting to method to value to scores, of settings and methods that have several values."""
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for record in comparison.finished:
        settings = leaves(record.result["config"])
        for key in _RESPONSES:
            if key in settings and record.score is not None:
                by_value = found.setdefault(key, {}).setdefault(record.method, {})
                by_value.setdefault(float(settings[key]), []).append(record.score)
    several = {key: {name: each for name, each in of.items() if len(each) > 1} for key, of in found.items()}
    return {key: of for key, of in several.items() if of}


def _response_figure(comparison: Comparison, responses: dict[str, dict[str, dict[float, list[float]]]]) -> Figure:
    """A panel per setting, a line per method."""
    style, methods = styles(comparison.methods), comparison.methods
    figure, grid = panels(len(responses), 2, 5.0, 3.4)
    for axes, (key, by_method) in zip(grid, responses.items(), strict=True):
        for method, by_value in by_method.items():
            values = sorted(by_value)
            means = [float(np.mean(by_value[value])) for value in values]
            ends = np.array([mean_interval(np.asarray(by_value[value])) for value in values])
            name, look = f"m{methods.index(method)}-response-{key.rsplit('.', 1)[-1]}", style[method]
            axes.plot(values, means, color=look.color, marker=look.marker, markersize=4, label=method, gid=name)
            if not np.isnan(ends).any():
                axes.fill_between(values, *ends.T, color=look.color, alpha=0.15, linewidth=0, gid=f"{name}-band")
        axes.set_xlabel(_RESPONSES[key])
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.supylabel(comparison.score_title, fontsize=10)
    return figure


def _bars(comparison: Comparison) -> Figure:
    """One panel per task, a bar per method."""
    methods, tasks = comparison.methods, comparison.tasks
    style = styles(methods)
    figure, grid = panels(len(tasks), 3, 3.6, 0.9 + 0.3 * len(methods))
    for number, (axes, task) in enumerate(zip(grid, tasks, strict=True)):
        for index, method in enumerate(methods):
            scores = comparison.scores(method, task)
            if not len(scores):
                continue
            mean, (low, high) = float(scores.mean()), mean_interval(scores)
            axes.barh(index, mean, color=style[method].color, height=0.7)[0].set_gid(f"m{index}-bar-{number}")
            if not np.isnan(low):
                axes.plot([low, high], [index, index], color=_INK, linewidth=1.4, gid=f"m{index}-interval-{number}")
        axes.set_yticks(range(len(methods)), methods)
        axes.set_title(task, fontsize=10)
        axes.grid(axis="x", alpha=0.3)
    grid[0].invert_yaxis()
    figure.supxlabel(comparison.score_title, fontsize=10)
    return figure


def _profiles(comparison: Comparison) -> Figure:
    """All methods in one panel; beyond eight a panel for each."""
    methods = [method for method in comparison.methods if comparison.strata(method)]
    style = styles(comparison.methods)
    scores = np.concatenate([np.concatenate(comparison.strata(method) or []) for method in methods] or [np.zeros(1)])
    thresholds_T = np.linspace(np.floor(scores.min()), np.ceil(scores.max()) + 1e-9, _THRESHOLDS)
    apart = len(methods) > MAX_TOGETHER
    figure, grid = panels(len(methods), 4, 3.0, 2.2) if apart else panels(1, 1, 7.0, 3.8)
    for number, method in enumerate(methods):
        axes = grid[number if apart else 0]
        value_T, low_T, high_T = profile(comparison.strata(method) or [], thresholds_T)
        name = f"m{comparison.methods.index(method)}-profile"
        color, marker = style[method].color, style[method].marker
        axes.plot(thresholds_T, value_T, color=color, marker=marker, markevery=10, markersize=4, label=method, gid=name)
        if not np.isnan(low_T).any():
            axes.fill_between(thresholds_T, low_T, high_T, color=color, alpha=0.15, linewidth=0, gid=f"{name}-band")
        axes.set_title(method if apart else "", fontsize=9)
        axes.grid(alpha=0.3)
    if methods and not apart:
        figure.legend(loc="outside lower center", ncols=4, fontsize=8)
    for axes in grid:
        axes.set_xlabel(f"threshold: {comparison.score_title}", fontsize=8 if apart else 10)
    figure.supylabel("part of seeds above it", fontsize=10)
    return figure


def as_svg(draw: Callable[[], Figure], label: str) -> str:
    """A figure for the page; `label` is the text that stands for it."""
    buffer = io.StringIO()
    # Ids inside one page must differ between its figures.
    with mpl.rc_context({**_STYLE, "svg.hashsalt": label}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        draw().savefig(buffer, format="svg", transparent=True, metadata=nothing)
    content = buffer.getvalue()
    content = content[content.index("<svg") :].replace(_INK, "currentColor").replace("#000000", "currentColor")
    # Matplotlib counts its groups in every figure anew, and an id may be on a page but once.
    content = re.sub(r'<g id="[\w.]+_\d+">', "<g>", content)
    return content.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def shown_colors(methods: Sequence[str]) -> list[str]:
    """The colour of every method on the page."""
    return [style.color.replace("#000000", "currentColor") for style in styles(methods).values()]
