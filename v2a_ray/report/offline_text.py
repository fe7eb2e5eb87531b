"""Results of policies that nobody tried, in words: the numbers, what they can say and what they cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from v2a_ray.settings.measures import score_title

KNOWN = (
    "Known: whether a policy's critics explain target transitions that no stage has seen (TD error), what its actions "
    "are worth by those critics and how far they disagree (fitted Q), how close it stays to whoever acted in the "
    "recordings (log-likelihood), and how much of the source was used."
)
UNKNOWN = (
    "Not known: the return. Critics extrapolate to actions and states that no recording shows, all of them alike, and "
    "their spread does not tell; a policy that leaves the recorded states may do better or much worse than any number "
    "here. How well each number ranks policies where returns are known is measured in docs/no_simulator.md. Before a "
    "policy acts on a robot, try it slowly, within limits, beside an emergency stop."
)


def offline_lines(target: Mapping[str, Any]) -> list[str]:
    """What `v2a run` prints of a policy without a simulator."""
    kept = f"source kept {target['data_kept']:.0%}" if target.get("data_kept") is not None else ""
    lines = [
        f"ranked by {score_title(target)}: {_number(target['rank_score'])}",
        f"{target['num_held_out_episodes']} held-out episodes, {target['num_held_out_transitions']:,} transitions; "
        "no simulator, so no return",
        "fitted Q " + _value(target),
        f"TD error {_number(target['td_error'])} · log-likelihood of actions "
        f"{_number(target['action_log_likelihood'])}" + (f" · {kept}" if kept else ""),
    ]
    if "held_out_alignment_mean" in target:
        lines.append(
            f"alignment: held-out target {_number(target['held_out_alignment_mean'])}, source "
            f"{_number(target['source_alignment_mean'])}; {target['source_as_aligned']:.0%} of the source is as "
            "aligned as nine tenths of the held-out target"
        )
    return lines


def offline_sentences(targets: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a page says of policies that were evaluated so; nothing of none."""
    if not targets:
        return []
    titles = " or ".join(dict.fromkeys(score_title(target) for target in targets))
    episodes = sorted({int(target["num_held_out_episodes"]) for target in targets})
    counts = " to ".join(str(each) for each in dict.fromkeys((episodes[0], episodes[-1])))
    return [
        f"The target has no simulator, so a score is no return: it is the {titles}, over {counts} episodes. "
        "More is better.",
        KNOWN,
        UNKNOWN,
    ]


def _value(target: Mapping[str, Any]) -> str:
    if target["fitted_q_mean"] is None:
        return "unknown (the recordings have no rewards)"
    interval = target["fitted_q_interval"]
    between = f", 95 % over episodes [{_number(interval[0])}, {_number(interval[1])}]" if interval else ""
    return f"{_number(target['fitted_q_mean'])} ± {_number(target['fitted_q_std'])} over critics{between}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
