"""Datasets in the terminal: their content, findings of checks, and lists of datasets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from v2a_ray.data.checks import CHECKS
from v2a_ray.data.checks.findings import Finding
from v2a_ray.data.inspection.inspect import Inspection, SourceSummary, summarize
from v2a_ray.data.inspection.listing import Listed
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.evaluation.interval import with_spread

HISTOGRAM_BINS = 12
BARS = " ▁▂▃▄▅▆▇█"
COLORS = {"error": "red", "warning": "yellow", "info": "dim"}


def histogram(values: NDArray[np.float64], bins: int = HISTOGRAM_BINS) -> str:
    """A histogram of one character per bin, from the smallest to the largest finite value."""
    counts, _ = np.histogram(values[np.isfinite(values)], bins=bins)
    # Rounded up, so that a non-empty bin is never blank.
    heights = np.ceil(counts / max(int(counts.max()), 1) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[height] for height in heights)


def render(table: EpisodeTable, findings: Sequence[Finding] = ()) -> RenderableType:
    """A report on one table for `rich.print`: sources, ranges of the features, and findings."""
    return _render(summarize(table), findings)


def render_inspection(inspection: Inspection) -> RenderableType:
    """A report on datasets inspected together, with the robots that the checks assumed."""
    parts = [_render(inspection.sources, inspection.findings)]
    for name, domain in inspection.assumed.items():
        parts.append(Text(f"{name} was checked as {domain}", style="dim"))
    return Group(*parts)


def render_checks() -> Table:
    """Every check with its default severity, meaning and remedy."""
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in ("check", "severity", "fires when"):
        view.add_column(name, overflow="fold")
    for check in CHECKS.values():
        text = Text(check.meaning)
        if check.remedy:
            text.append(f"\n{check.remedy}", style="dim")
        view.add_row(check.name, Text(check.severity, style=COLORS[check.severity]), text)
    return view


def render_list(listed: Sequence[Listed]) -> Table:
    """Two lines per dataset."""
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    view.add_column(_over("dataset", "domain · behavior"), overflow="fold")
    view.add_column("format")
    for name in ("episodes", "transitions", "return"):
        view.add_column(name, justify="right", no_wrap=True)
    view.add_column("problems", overflow="fold")
    for each in listed:
        view.add_row(
            _over(each.name, " · ".join(label for label in (each.domain, each.behavior) if label)),
            each.format,
            *(f"{count:,}" if count is not None else "?" for count in (each.num_episodes, each.num_transitions)),
            f"{each.mean_return:.1f}" if each.mean_return is not None else "?",
            Text(each.problems, style=COLORS["error"] if each.unreadable else COLORS["warning"]),
        )
    return view


def _over(first: str, second: str) -> Text:
    """Two lines of a cell, the second dim."""
    return Text.assemble(first, "\n", (second, "dim"))


def _render(summaries: Sequence[SourceSummary], findings: Sequence[Finding]) -> RenderableType:
    parts: list[RenderableType] = [_sources(summaries), *_features(summaries)]
    for finding in findings:
        text = Text(f"{finding.severity} {finding.check}: {finding}", style=COLORS[finding.severity])
        if finding.remedy:
            text.append(f"\n  {finding.remedy}", style="dim")
        parts.append(text)
    if not findings:
        parts.append(Text("all checks passed", style="green"))
    return Group(*parts)


def _sources(summaries: Sequence[SourceSummary]) -> Table:
    """Two lines per source, so that it fits a terminal of 80 columns."""
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    view.add_column(_over("source", "domain · behavior"), overflow="fold")
    view.add_column(_over("episodes", "terminated"), justify="right")
    view.add_column("transitions", justify="right")
    view.add_column(_over("length", "range"), justify="right")
    view.add_column(_over("return", "range"), justify="right")
    view.add_column("returns", no_wrap=True)
    for each in summaries:
        view.add_row(
            _over(each.source, f"{each.domain} · {each.behavior}"),
            _over(f"{each.num_episodes:,}", f"{each.num_terminated:,}"),
            f"{each.num_transitions:,}",
            _over(f"{each.lengths.mean():.0f}", f"{each.lengths.min()}–{each.lengths.max()}"),
            _over(with_spread(each.returns, 1), f"{each.returns.min():.1f} to {each.returns.max():.1f}"),
            histogram(each.returns),
        )
    return view


def _features(summaries: Sequence[SourceSummary]) -> list[Table]:
    """Range of each feature, one column per source; one table per dimension of observations and actions."""
    groups: dict[tuple[int, int], list[SourceSummary]] = {}
    for each in summaries:
        groups.setdefault((len(each.observation_range), len(each.action_range)), []).append(each)
    return [_feature_table(group) for group in groups.values()]


def _feature_table(summaries: Sequence[SourceSummary]) -> Table:
    view = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    view.add_column("feature")
    for each in summaries:
        view.add_column(each.source, justify="right", overflow="fold")
    for field in ("observation", "action"):
        ranges = [getattr(each, f"{field}_range") for each in summaries]
        for feature in range(len(ranges[0])):
            cells = [f"{low:.3g} to {high:.3g}" for low, high in (each[feature] for each in ranges)]
            view.add_row(f"{field}[{feature}]", *cells)
    return view
