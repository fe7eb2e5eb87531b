"""Results of a search: the best draws of every task, and the Pareto front over its objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from v2a_ray.experiments.sweep_config import Direction, Objective, SearchConfig
from v2a_ray.report.markdown import table_lines
from v2a_ray.report.result_tables import TrialResult
from v2a_ray.settings.yaml_files import at

Objectives = Mapping[Objective, Direction]
SHOWN = 10
"""Maximum of draws shown per task and method; results.parquet has all."""


def render_search(results: Sequence[TrialResult], search: SearchConfig, objectives: Objectives) -> Table:
    """One row per draw, the best first; `*` marks the Pareto front of several objectives."""
    header, *rows = _rows(results, search, objectives)
    table = Table(*header, title=f"the best {SHOWN} draws, by {next(iter(objectives))}")
    for row in rows:
        table.add_row(*row)
    return table


def search_markdown(results: Sequence[TrialResult], search: SearchConfig, objectives: Objectives) -> str:
    """The same table as Markdown."""
    header, *rows = _rows(results, search, objectives)
    return "\n".join(table_lines(header, rows)) + "\n"


def pareto_front(values: Sequence[Sequence[float]]) -> list[int]:
    """Positions of the results on the Pareto front; higher is better in every objective."""

    def beaten(mine: Sequence[float]) -> bool:
        return any(
            all(theirs >= own for theirs, own in zip(other, mine, strict=True)) and list(other) != list(mine)
            for other in values
        )

    return [position for position, mine in enumerate(values) if not beaten(mine)]


def _rows(results: Sequence[TrialResult], search: SearchConfig, objectives: Objectives) -> list[list[str]]:
    rows = [["task", "method", *(key.rsplit(".", 1)[-1] for key in search.space), *objectives, "status"]]
    for task, method in dict.fromkeys((result.task, result.method) for result in results):
        mine = [result for result in results if (result.task, result.method) == (task, method)]
        rows += _of_one(mine, search, objectives)
    return rows


def _of_one(results: Sequence[TrialResult], search: SearchConfig, objectives: Objectives) -> list[list[str]]:
    """Rows of one task and method: finished trials first, ordered from the best."""
    signs = {name: 1.0 if direction == "max" else -1.0 for name, direction in objectives.items()}
    done = [r for r in results if r.status == "finished" and all(r.evaluation.get(name) is not None for name in signs)]
    gains = [[sign * result.evaluation[name] for name, sign in signs.items()] for result in done]
    front = set(pareto_front(gains)) if len(signs) > 1 else set()
    order = sorted(range(len(done)), key=lambda position: -gains[position][0])[:SHOWN]
    rows = []
    for position in order:
        result = done[position]
        config = result.config.model_dump(mode="json")
        drawn = [f"{value:.4g}" if isinstance(value := at(config, key), float) else str(value) for key in search.space]
        scores = [f"{result.evaluation[name]:.3g}" for name in signs]
        mark = " *" if position in front else ""
        rows.append([result.task, result.method, *drawn, *scores, result.status + mark])
    left = len(results) - len(done)
    if left:
        stopped = sum(result.status.startswith("stopped") for result in results)
        blank = [""] * (len(search.space) + len(signs))
        rows.append([results[0].task, results[0].method, *blank, f"{stopped} stopped, {left - stopped} failed or left"])
    return rows
