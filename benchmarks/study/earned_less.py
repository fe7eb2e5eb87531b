"""Part D where the source earned no more than the target: OTDF, and the target alone with OTDF's support term.

The tables of `docs/study.md`, from rows of the choice and of single methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.study.design import SUPPORTED
from benchmarks.study.run import files_of, read_scores
from benchmarks.study.selection import BASELINES, NOTICEABLE, OTDF, SHOWN, Group
from benchmarks.study.tables import BETTER
from v2a_ray.experiments.choice import FILTER, TARGET
from v2a_ray.report.markdown import table_lines

SWEEPS = {
    "hopper_map": ("otdf_hopper", "parts_hopper"),
    "walker2d_map": ("otdf_walker2d", "supported_walker2d"),
    "halfcheetah_map": ("otdf_halfcheetah", "supported_halfcheetah"),
    "ant_map": ("otdf_ant", "supported_ant"),
    "choice_published_hopper": ("published_hopper", "supported_published_hopper"),
    "choice_published_walker2d": ("choice_published_walker2d", "supported_published_walker2d"),
}
"""Tasks of the choice, and the sweeps that have more methods of them; Hopper's first, on which both were found."""
CHOSEN = "v2a choose"
SINGLE = (TARGET, SUPPORTED, FILTER, OTDF)
SHOWN_METHODS = (BETTER, *SINGLE, CHOSEN)

Task = tuple[str, Group, dict[str, float]]
"""Name of the tasks, the policies to choose from, and the score of each of `SHOWN_METHODS`."""


def read_tasks(by_name: Mapping[str, Sequence[Group]], rows: Path) -> list[Task]:
    """The tasks and seeds whose source earned no more, and of which the choice or the files in `rows` have all methods.

    `by_name` are the policies that are chosen from, by name of the tasks.
    """
    found = []
    for name, sweeps in SWEEPS.items():
        more = read_scores(files_of(sweeps, rows))
        for group in by_name.get(name, ()):
            scores = {**group.scores, **more.get((group.task, group.seed), {})}
            if group.source_earns_more is False and group.has(SHOWN[0]) and scores.keys() >= set(SINGLE):
                scores[CHOSEN] = scores[group.chosen(SHOWN[0], "fitted_q_lower")]
                scores[BETTER] = max(scores[method] for method in BASELINES)
                found.append((name, group, {method: scores[method] for method in SHOWN_METHODS}))
    return found


def cell_table(tasks: Sequence[Task]) -> list[str]:
    """Scores of every task and seed, and which of OTDF and the target alone fitted critics prefer, where they were."""
    lines = []
    for name, group, scores in tasks:
        cells = [f"{scores[method]:.1f}" for method in SHOWN_METHODS]
        pair = [method for method in (TARGET, OTDF) if method in group.numbers]
        preferred = max(pair, key=lambda method: float(group.numbers[method]["lower_value"]))
        lines.append((f"{name}: {group.task}", *cells, preferred if len(pair) == 2 else ""))
    return table_lines(("target, from source", *SHOWN_METHODS, "target or OTDF by value"), lines)


def summary_table(tasks: Sequence[Task]) -> list[str]:
    """Mean of every method and the most that it loses to the better baseline; how often it loses more than 3 points."""
    by_name: dict[str, list[Mapping[str, float]]] = {}
    for name, _, scores in tasks:
        by_name.setdefault(name, []).append(scores)
    by_name["all"] = [scores for _, _, scores in tasks]
    by_name["not hopper"] = [scores for name, _, scores in tasks if "hopper" not in name]
    lines = []
    for name, own in ((name, own) for name, own in by_name.items() if own):
        cells = []
        for method in SHOWN_METHODS:
            lost = np.asarray([scores[BETTER] - scores[method] for scores in own])
            mean = np.mean([scores[method] for scores in own])
            behind = f", {lost.max():.1f}, {np.count_nonzero(lost > NOTICEABLE)}" if method != BETTER else ""
            cells.append(f"{mean:.1f}{behind}")
        lines.append((name, str(len(own)), *cells))
    return table_lines(("tasks", "number", *SHOWN_METHODS), lines)
