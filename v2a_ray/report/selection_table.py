"""The output of `v2a select`: a table and a JSON file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from v2a_ray.export.choice import Choice
from v2a_ray.export.selection import Candidate, rank_correlation
from v2a_ray.files import write_json
from v2a_ray.outputs import MARK, new_file


def render_selection(candidates: Sequence[Candidate]) -> Table:
    """One row per policy, best first."""
    table = Table(
        title="held-out target episodes; value by fitted Q evaluation: mean ± standard deviation over critics", box=None
    )
    table.add_column("policy", overflow="fold")
    for name in ("value", "TD error", "log-likelihood", "true return"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in candidates:
        known = "–" if one.true_return is None else f"{one.true_return:,.0f}"
        value, error = one.numbers.value, one.numbers.td_error
        worth = "–" if value is None else f"{value.mean:,.1f} ± {value.std:,.1f}"
        likelihood = f"{one.numbers.action_log_likelihood:,.2f}"
        table.add_row(one.name, worth, "–" if error is None else f"{error:,.3g}", likelihood, known)
    return table


def selection_in_words(candidates: Sequence[Candidate]) -> str:
    """The choice, the number of first states, and its rank correlation with true returns."""
    best = candidates[0]
    words = [f"chosen: {best.name}, over {best.numbers.num_episodes} held-out episodes"]
    correlation, count = rank_correlation(candidates)
    if math.isnan(correlation):
        words.append("no rank correlation: fewer than three policies with different true returns (--true-episodes)")
        return "\n".join(words)
    words.append(f"rank correlation with true returns: {correlation:.2f} (Spearman, {count} policies)")
    if best.true_return is not None:
        lost = max(one.true_return for one in candidates if one.true_return is not None) - best.true_return
        words.append(f"lost by choosing it: {lost:,.0f} of true return")
    return "\n".join(words)


def choice_in_words(choice: Choice) -> str:
    """What was chosen, why, and its score where somebody measured it."""
    values = {method: candidate.score for method, candidate in choice.candidates.items()}
    place = "the source" if choice.starts_in_source else "held-out target episodes"
    lines = [
        f"chosen: {choice.method}",
        f"worth in first states of {place}, less a standard deviation over critics: "
        + ", ".join(f"{method} {value:,.1f}" for method, value in values.items()),
    ]
    if choice.replays:
        nearest = choice.replays[0]
        away = ", ".join(f"{each.domain} ({each.distance:.2g})" for each in choice.far_sources)
        lines.append(
            f"sources left out: {away or 'none is far'}; nearest: {nearest.domain} ({nearest.distance:.2g}), in "
            f"standard deviations after {nearest.num_steps} of the target's recorded actions"
        )
    if choice.left_out:
        lines.append(
            f"left out: {' and '.join(choice.left_out)}, because an episode of the source earns "
            f"{choice.source_return:,.0f}, one of the target {choice.target_return:,.0f}"
        )
    targets = {method: record.result["target"] for method, record in choice.records.items()}
    if all(target.get("normalized_score_mean") is not None for target in targets.values()):
        scores = ", ".join(f"{method} {target['normalized_score_mean']:.1f}" for method, target in targets.items())
        lines.append(f"scores in the target, which the choice did not see: {scores}")
    return "\n".join(lines)


def write_selection(candidates: Sequence[Candidate], settings: dict[str, Any], path: Path) -> None:
    """Everything as JSON, best first."""
    correlation, count = rank_correlation(candidates)
    content = {
        "made_by": MARK,
        "settings": settings,
        "rank_correlation": None if math.isnan(correlation) else correlation,
        "num_policies_with_true_return": count,
        "policies": [one.to_dict() for one in candidates],
    }
    with new_file(path) as partial:
        write_json(partial, content)
