"""How figures look: Okabe and Ito's colours, which colour-blind readers tell apart, each with a marker of its own.

Figures are made without pyplot, so that importing this package leaves a notebook's backend as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#F0E442")
"""Okabe and Ito (2008), the best to be seen on white first."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MAX_TOGETHER = len(COLORS)
"""Methods in one panel: beyond it each gets a panel of its own."""


@dataclass(frozen=True)
class Style:
    """How one method is drawn."""

    color: str
    marker: str


def styles(methods: Sequence[str]) -> dict[str, Style]:
    """A style for every method; beyond eight they come again, for panels that do not share."""
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
