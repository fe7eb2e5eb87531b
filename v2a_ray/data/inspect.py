"""What is inside a dataset: a summary per source as plain values, and the same for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from v2a_ray.data.findings import Finding
from v2a_ray.data.table import EpisodeTable

HISTOGRAM_BINS = 12
BARS = " ▁▂▃▄▅▆▇█"
COLORS = {"error": "red", "warning": "yellow", "info": "dim"}


@dataclass(frozen=True)
class SourceSummary:
    """One source of a table.

    Attributes:
        source, domain, behavior: labels; several domains or behaviours are joined by a comma.
        num_episodes, num_transitions: counts.
        num_terminated: episodes that ended in a terminal state; the others were cut.
        lengths: (E,) steps per episode.
        returns: (E,) undiscounted return per episode.
        observation_range, action_range: (O, 2) and (A, 2), smallest and largest value of each feature.
    """

    source: str
    domain: str
    behavior: str
    num_episodes: int
    num_transitions: int
    num_terminated: int
    lengths: NDArray[np.int64]
    returns: NDArray[np.float64]
    observation_range: NDArray[np.float32]
    action_range: NDArray[np.float32]


def summarize(table: EpisodeTable) -> list[SourceSummary]:
    """One summary per `source` label, in the order in which sources first appear."""
    labels = np.asarray(table.source)
    summaries = []
    for source in dict.fromkeys(table.source):
        episodes = np.flatnonzero(labels == source)
        part = table.select(episodes) if len(episodes) < table.num_episodes else table
        summaries.append(
            SourceSummary(
                source=source,
                domain=", ".join(dict.fromkeys(part.domain)),
                behavior=", ".join(dict.fromkeys(part.behavior)),
                num_episodes=part.num_episodes,
                num_transitions=part.num_transitions,
                num_terminated=int(part.terminated.sum()),
                lengths=part.lengths,
                returns=part.returns,
                observation_range=_ranges(part.observation),
                action_range=_ranges(part.action),
            )
        )
    return summaries


def histogram(values: NDArray[np.float64], bins: int = HISTOGRAM_BINS) -> str:
    """A histogram of one character per bin, from the smallest to the largest value."""
    counts, _ = np.histogram(values, bins=bins)
    # Rounded up, so that a bin with anything in it is never blank.
    heights = np.ceil(counts / max(int(counts.max()), 1) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[height] for height in heights)


def render(table: EpisodeTable, findings: Sequence[Finding] = ()) -> RenderableType:
    """Everything about a table for `rich.print`: sources, ranges of the features, and findings."""
    summaries = summarize(table)
    parts: list[RenderableType] = [_sources(summaries), _features(summaries)]
    for finding in findings:
        text = Text(f"{finding.severity}: {finding}", style=COLORS[finding.severity])
        if finding.remedy:
            text.append(f"\n  {finding.remedy}", style="dim")
        parts.append(text)
    if not findings:
        parts.append(Text("all checks passed", style="green"))
    return Group(*parts)


def _sources(summaries: Sequence[SourceSummary]) -> Table:
    """Two lines per source, so that it fits a terminal of 80 columns."""
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    view.add_column("source\n[dim]domain · behavior[/]", overflow="fold")
    view.add_column("episodes\n[dim]terminated[/]", justify="right")
    view.add_column("transitions", justify="right")
    view.add_column("length\n[dim]range[/]", justify="right")
    view.add_column("return\n[dim]range[/]", justify="right")
    view.add_column("returns", no_wrap=True)
    for each in summaries:
        view.add_row(
            f"{escape(each.source)}\n[dim]{escape(each.domain)} · {escape(each.behavior)}[/]",
            f"{each.num_episodes:,}\n[dim]{each.num_terminated:,}[/]",
            f"{each.num_transitions:,}",
            f"{each.lengths.mean():.0f}\n[dim]{each.lengths.min()}–{each.lengths.max()}[/]",
            f"{each.returns.mean():.1f} ± {each.returns.std():.1f}\n"
            f"[dim]{each.returns.min():.1f} to {each.returns.max():.1f}[/]",
            histogram(each.returns),
        )
    return view


def _features(summaries: Sequence[SourceSummary]) -> Table:
    """Range of each feature, one column per source."""
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    view.add_column("feature")
    for each in summaries:
        view.add_column(escape(each.source), justify="right", overflow="fold")
    for field in ("observation", "action"):
        ranges = [getattr(each, f"{field}_range") for each in summaries]
        for feature in range(len(ranges[0])):
            cells = [f"{low:.3g} to {high:.3g}" for low, high in (each[feature] for each in ranges)]
            view.add_row(f"{field}[{feature}]", *cells)
    return view


def _ranges(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([values.min(axis=0), values.max(axis=0)], axis=1)
