"""Pictures of datasets: return and length histograms and feature ranges, one colour per source."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from v2a_ray.data.checks.findings import Finding
from v2a_ray.data.inspection.inspect import Inspection, SourceSummary
from v2a_ray.evaluation.interval import with_spread
from v2a_ray.outputs import MARK

BINS = 30
COLORS = [colormaps["tab10"](index) for index in range(10)]
SEVERITY_COLORS = {"error": "#b3261e", "warning": "#8a5a00", "info": "#555555"}
# Rows of findings that a picture names; the page and the report have all.
MAX_FINDINGS = 8
LINE_LENGTH = 165
_WIDTH = 11.0
FIELDS = ("observation", "action")
Sources = Sequence[SourceSummary]


def figure_of(inspection: Inspection) -> bytes:
    """A PNG of the whole inspection: counts, histograms, ranges, findings."""
    sources = inspection.sources
    notes = _notes(inspection.findings)
    heights = [0.5 + 0.24 * len(sources), 2.9, _ranges_height(sources), 0.3 + 0.22 * len(notes)]
    figure: Any = Figure(figsize=(_WIDTH, sum(heights)), layout="constrained")
    figure.get_layout_engine().set(rect=(0.012, 0.0, 0.976, 1.0))
    table, distributions, ranges, findings = figure.subfigures(4, 1, height_ratios=heights)
    _draw_table(table, sources)
    draw_distributions(distributions, sources)
    draw_ranges(ranges, sources)
    axes = findings.subplots()
    axes.axis("off")
    for index, (text, color) in enumerate(notes):
        axes.text(0.0, 1.0 - (index + 0.5) / len(notes), text, color=color, fontsize=8, va="center")
    return _png(figure)


def distributions_pngs(sources: Sequence[SourceSummary]) -> list[bytes]:
    """Histograms of returns and of lengths, a picture each."""
    return [_panel(3.2, draw, sources) for draw in (_draw_returns, _draw_lengths)]


def ranges_pngs(sources: Sequence[SourceSummary]) -> list[bytes]:
    """Ranges of observations and of actions, a picture each."""
    height = _ranges_height(sources)
    return [_panel(height, partial(_draw_field, field=field), sources) for field in FIELDS]


def _panel(
    height: float, draw: Callable[[Any, Sequence[SourceSummary]], None], sources: Sequence[SourceSummary]
) -> bytes:
    figure = Figure(figsize=(_WIDTH / 2, height), layout="constrained")
    draw(figure.subplots(), sources)
    return _png(figure)


def draw_distributions(figure: Any, sources: Sequence[SourceSummary]) -> None:
    """Histograms of returns and lengths side by side."""
    returns, lengths = figure.subplots(1, 2)
    _draw_returns(returns, sources)
    _draw_lengths(lengths, sources)


def _draw_returns(axes: Any, sources: Sequence[SourceSummary]) -> None:
    _draw_histogram(axes, "return of an episode", sources, [each.returns for each in sources])


def _draw_lengths(axes: Any, sources: Sequence[SourceSummary]) -> None:
    lengths = [each.lengths.astype(float) for each in sources]
    _draw_histogram(axes, "length of an episode in steps", sources, lengths)


def _draw_histogram(axes: Any, label: str, sources: Sequence[SourceSummary], values: Sequence[Any]) -> None:
    """Shares of each source's episodes, over common bins."""
    finite = [array[np.isfinite(array)] for array in values]
    together = np.concatenate(finite)
    low, high = (together.min(), together.max()) if len(together) else (0.0, 1.0)
    margin = 0.5 if low == high else 0.0
    edges = np.linspace(low - margin, high + margin, BINS + 1)
    for index, (each, array) in enumerate(zip(sources, finite, strict=True)):
        share = np.full(len(array), 100.0 / max(len(array), 1))
        color = COLORS[index % len(COLORS)]
        axes.hist(array, edges, weights=share, color=color, alpha=0.25)
        axes.hist(array, edges, weights=share, color=color, histtype="step", linewidth=1.4, label=_plain(each.source))
    axes.set_xlabel(label)
    axes.set_ylabel("% of episodes")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(sources) > 1:
        axes.legend(fontsize=7, frameon=False)


def draw_ranges(figure: Any, sources: Sequence[SourceSummary]) -> None:
    """Ranges of observations and actions side by side."""
    for axes, field in zip(figure.subplots(1, 2, width_ratios=(3, 2)), FIELDS, strict=True):
        _draw_field(axes, sources, field)


def _draw_field(axes: Any, sources: Sequence[SourceSummary], field: str) -> None:
    """Per feature, in units of the widest range over sources: 5 to 95 % thick, smallest to largest thin, median dot."""
    width = max(len(getattr(each, f"{field}_range")) for each in sources)
    offsets = np.linspace(-0.32, 0.32, len(sources)) if len(sources) > 1 else np.zeros(1)
    scale = np.full(width, 1e-12)
    for each in sources:
        ranges = np.nan_to_num(getattr(each, f"{field}_range"))
        scale[: len(ranges)] = np.maximum(scale[: len(ranges)], np.abs(ranges).max(axis=1))
    for index, each in enumerate(sources):
        ranges, quantiles = getattr(each, f"{field}_range"), getattr(each, f"{field}_quantiles")
        unit = scale[: len(ranges)]
        places = np.arange(len(ranges)) + offsets[index]
        color = COLORS[index % len(COLORS)]
        thick = max(2.0, 9.0 / len(sources))
        axes.hlines(places, ranges[:, 0] / unit, ranges[:, 1] / unit, color=color, linewidth=0.8)
        axes.hlines(places, quantiles[:, 0] / unit, quantiles[:, 2] / unit, color=color, linewidth=thick, alpha=0.55)
        axes.plot(quantiles[:, 1] / unit, places, ".", color=color, markersize=3.5)
    step = max(1, width // 40)
    labels = [f"{field}[{feature}]   ±{scale[feature]:.3g}" for feature in range(0, width, step)]
    axes.set_yticks(range(0, width, step), labels, fontsize=7)
    axes.set_ylim(width - 0.4, -0.6)
    axes.set_xlim(-1.05, 1.05)
    axes.axvline(0.0, color="0.8", linewidth=0.8, zorder=0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_xlabel("fraction of the largest |value| (beside the name); thick: 5 to 95 %", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _ranges_height(sources: Sequence[SourceSummary]) -> float:
    rows = max(len(each.observation_range) for each in sources)
    per_row = 0.17 + 0.035 * len(sources)
    return float(np.clip(0.9 + per_row * rows, 2.6, 14.0))


def _draw_table(figure: Any, sources: Sequence[SourceSummary]) -> None:
    axes = figure.subplots()
    axes.axis("off")
    header = ("source", "domain", "behavior", "episodes", "terminated", "transitions", "length", "return")
    cells = [
        (
            _plain(each.source),
            _plain(each.domain),
            _plain(each.behavior),
            f"{each.num_episodes:,}",
            f"{each.num_terminated:,}",
            f"{each.num_transitions:,}",
            f"{each.lengths.mean():.0f}",
            with_spread(each.returns, 1),
        )
        for each in sources
    ]
    widths = (0.27, 0.22, 0.1, 0.08, 0.09, 0.09, 0.06, 0.13)
    view = axes.table(cells, colLabels=header, colWidths=widths, loc="center", cellLoc="right", edges="horizontal")
    view.auto_set_font_size(False)
    view.set_fontsize(8)
    for (row, column), cell in view.get_celld().items():
        cell.set_edgecolor("0.85")
        if column < 3:
            cell.get_text().set_ha("left")
            cell._loc = "left"
        if row == 0:
            cell.get_text().set_color("0.35")
        elif column == 0:
            cell.get_text().set_color(COLORS[(row - 1) % len(COLORS)])


def _notes(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Lines and their colours."""
    if not findings:
        return [("all checks passed", "#1b6e2d")]
    lines = [
        (_plain(line), SEVERITY_COLORS[each.severity])
        for each in findings[:MAX_FINDINGS]
        for line in textwrap.wrap(f"{each.severity} {each.check}: {each}", LINE_LENGTH, subsequent_indent="    ")
    ]
    hidden = len(findings) - MAX_FINDINGS
    return lines + ([(f"and {hidden} more", SEVERITY_COLORS["info"])] if hidden > 0 else [])


def _plain(text: str) -> str:
    """Escape dollar signs, which start mathematics in Matplotlib."""
    return text.replace("$", r"\$")


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=130, format="png", metadata={"Software": MARK})
    return buffer.getvalue()
