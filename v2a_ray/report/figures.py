"""The style of figures: Okabe and Ito's colours, which colour-blind readers can distinguish, and one marker per colour.

Figures are made without pyplot, so that importing this package does not change a notebook's backend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
"""Okabe and Ito (2008), ordered by visibility on white."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MAX_TOGETHER = len(COLORS)
"""Maximum of methods in one panel; if there are more, each gets its own panel."""


@dataclass(frozen=True)
class Style:
    """Colour and marker of one method."""

    color: str
    marker: str


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A style for every method; styles repeat after eight methods, which then have separate panels."""
    return {
        method: Style(COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)])
        for index, method in enumerate(methods)
    }


def panels(count: int, columns: int, width: float, height: float, share_y: bool = True) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels in rows of at most `columns`; sizes of one panel in inches."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y).flat
    axes = list(grid)
    for unused in axes[count:]:
        unused.set_visible(False)
    return figure, axes[:count]
