"""The output of `v2a evaluate`: a table and a JSON file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from v2a_ray.domains import references
from v2a_ray.evaluation.interval import mean_interval, with_spread
from v2a_ray.evaluation.returns import EpisodeResults
from v2a_ray.files import write_json
from v2a_ray.outputs import MARK, new_file


def render_evaluation(results: Sequence[EpisodeResults], policy: str) -> Table:
    """One row per domain."""
    table = Table(title=f"{policy}\nmean ± standard deviation over episodes, 95 % interval of the mean below", box=None)
    table.add_column("domain", overflow="fold")
    for name in ("return", "normalised score", "length", "episodes"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        summary = result.summary()
        table.add_row(
            result.domain.name,
            _cell(result.returns, 0),
            "–" if result.normalized_scores is None else _cell(result.normalized_scores, 1),
            f"{summary['episode_length_mean']:.0f}",
            f"{len(result.returns)}",
        )
    return table


def _cell(values: Any, digits: int) -> str:
    low, high = mean_interval(values)
    interval = "" if math.isnan(low) else f"\n[{low:.{digits}f}, {high:.{digits}f}]"
    return with_spread(values, digits) + interval


def write_evaluation(results: Sequence[EpisodeResults], policy: str, policy_domain: str, seed: int, path: Path) -> None:
    """Write all results as JSON; episode i was reset with `seed` + i."""
    content = {
        "made_by": MARK,
        "policy": policy,
        "policy_domain": policy_domain,
        "seed": seed,
        "domains": [_entry(result) for result in results],
    }
    with new_file(path) as partial:
        write_json(partial, content)


def _entry(result: EpisodeResults) -> dict[str, Any]:
    scores, between = result.normalized_scores, references(result.domain)
    intervals = {
        "return_mean_interval": mean_interval(result.returns),
        "normalized_score_mean_interval": (math.nan, math.nan) if scores is None else mean_interval(scores),
    }
    return {
        "domain": result.domain.name,
        **result.summary(),
        **{name: None if math.isnan(low) else [low, high] for name, (low, high) in intervals.items()},
        "references": between.source if between else None,
        "returns": result.returns.tolist(),
        "lengths": result.lengths.tolist(),
    }
