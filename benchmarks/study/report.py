"""Writes docs/study.md, docs/study_choices.md and their figures from the rows that were committed. Nothing is run here.

python -m benchmarks.study.report
python -m benchmarks.study.report --add runs/where_z_pays       # first makes rows of a finished sweep
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.study import (
    ceiling,
    cost,
    earned_less,
    extent,
    figures,
    nearest,
    prose,
    prose_choice,
    prose_end,
    repeated,
    rule,
    selection,
    spread,
    standing,
    where_z_matters,
)
from benchmarks.study.cells import NEAR
from benchmarks.study.design import PARTS, UNDER
from benchmarks.study.run import ROWS, Scores, files_of, finished_rows, read_cells, with_rows_of
from benchmarks.study.selection import BASELINES
from benchmarks.study.suites import (
    BASELINE_METHODS,
    METHODS,
    PUBLISHED_METHODS,
    REAL_METHODS,
    REAL_SEEDS,
    SEEDS,
    Z_METHODS,
)
from benchmarks.study.tables import (
    BETTER,
    cell_table,
    contrast_table,
    contrasts,
    iqm_table,
    learners_table,
    standing_of,
    standing_table,
)
from v2a_ray.evaluation.interval import with_spread
from v2a_ray.experiments.choice import TARGET
from v2a_ray.report.markdown import table_lines

ROOT = Path(__file__).parents[2]
PUBLISHED_CONTRASTS = (
    ("v2a", "v2a without z"),
    ("v2a", "iql_mixed"),
    *((method, BETTER) for method in PUBLISHED_METHODS if method not in BASELINES),
)
"""Named before the runs, for the published suite: does z help, does the filter, is any filter ahead of both."""

Z_CONTRASTS = (
    ("v2a", "v2a without z"),
    ("value alone", "value alone without z"),
    ("v2a", BETTER),
    ("value alone", BETTER),
)
"""For the mixes in which z mends A: does it help the policy, and does the filter."""

REPLAYED = "choice_replayed_"
FILTERED = {
    **{f"{robot}_map": (f"map_{robot}", f"default_{robot}") for robot in NEAR},
    "choice_published_hopper": ("published_hopper",),
    "choice_published_walker2d": ("choice_published_walker2d",),
}
"""Tasks of which the choice and filters are known: rows of the choice, and those of the filters."""

Choices = Mapping[str, Sequence[selection.Group]]
"""By name of the tasks: the policies that are chosen from."""


def map_cells(robot: str) -> dict[str, Scores]:
    """The cells of a robot's map; baselines and the default were run before the map on some robots."""
    return read_cells(files_of([f"{part}_{robot}" for part in ("map", "baselines", "default")], ROWS), METHODS, SEEDS)


def gains_of(cells: Mapping[str, Scores], choices: Sequence[selection.Group]) -> dict[str, dict[str, float]]:
    """What every method, and `v2a choose`, gain over the better baseline: by cell, in those that have it."""
    gains = {
        method: dict(zip(cells, standing_of(list(cells.values()), method).gains.tolist(), strict=True))
        for method in METHODS
    }
    tasks = selection.by_task([group for group in choices if group.has(selection.SHOWN[0])])
    chosen = {
        task: selection.chosen_mean(seeds, selection.SHOWN[0]) - selection.better_mean(seeds)
        for task, seeds in tasks.items()
    }
    return gains | ({"v2a choose": chosen} if chosen else {})


def robot_section(robot: str, cells: Mapping[str, Scores]) -> list[str]:
    """What the rows of a robot's map say. Its figure is written beside the page."""
    whole = sum(len(scores[METHODS[0]]) == len(SEEDS) for scores in cells.values())
    lines = [f"### {robot}", "", f"{len(cells)} cells have a seed, {whole} have all {len(SEEDS)}.", ""]
    if not cells:
        return lines
    picture = f"study_map_{robot}.png"
    figures.map_of_help(robot, cells, ROOT / "docs" / picture)
    lines += [f"![gain over the target alone by cell]({picture})", "", *cell_table(cells), ""]
    if len(cells) >= 3:
        every = list(cells.values())
        lines += [*standing_table(every), ""]
        other = [scores for cell, scores in cells.items() if not selection.is_control(cell)]
        if len(other) < len(every):
            lines += [*standing_table(other, which="cells with other dynamics"), ""]
        lines += [*iqm_table(every), "", *contrast_table(contrasts(every)), ""]
    return lines


def policies_table(path: Path) -> list[str]:
    """Mean and spread of every method of a sweep without cells."""
    scores: dict[str, list[float]] = {}
    for row in finished_rows(path):
        scores.setdefault(row["axis/method"], []).append(row["normalized_score_mean"])
    lines = [(name, str(len(own)), with_spread(np.asarray(own), 1)) for name, own in scores.items()]
    return table_lines(("method", "seeds", "score"), lines)


def methods_section(cells: Mapping[str, Scores], methods: Sequence[str]) -> list[str]:
    """Scores by cell and method, and over cells from three on."""
    lines = [*cell_table(cells, methods), ""]
    return [*lines, *iqm_table(list(cells.values()), methods), ""] if len(cells) >= 3 else lines


def parts_section(robot: str) -> list[str]:
    """The parts of the default beside the methods of the map, in cells and seeds that have both."""
    methods = (*BASELINES, "v2a_supported", *PARTS)
    cells = read_cells([ROWS / f"{sweep}_{robot}.parquet" for sweep in ("map", "parts")], methods, SEEDS)
    counts = standing_table(list(cells.values()), methods)
    return [f"#### {robot}", "", *methods_section(cells, methods), *counts, ""]


def learners_section(path: Path) -> list[str]:
    """The other base learners beside IQL, in cells and seeds that have all."""
    robot = path.stem.removeprefix("learners_")
    methods = [name for names in UNDER.values() for name in names]
    sweeps = [f"{part}_{robot}" for part in ("map", "baselines", "learners")]
    cells = read_cells(files_of(sweeps, ROWS), methods, SEEDS)
    lines = [*learners_table(list(cells.values())), ""] if len(cells) >= 3 else []
    return [*lines, *cell_table(cells, methods), ""]


def baselines_section(path: Path) -> list[str]:
    """What a robot's source is worth without a filter. Its figure is written beside the page."""
    robot, cells = path.stem.removeprefix("baselines_"), read_cells([path], BASELINE_METHODS, SEEDS)
    if not cells:
        return []
    picture = f"study_{path.stem}.png"
    figures.map_of_help(robot, cells, ROOT / "docs" / picture, BASELINE_METHODS)
    counts = standing_table(list(cells.values()), BASELINE_METHODS)
    return [
        f"![gain over the target alone by cell]({picture})",
        "",
        *cell_table(cells, BASELINE_METHODS),
        "",
        *counts,
        "",
    ]


def published_section(path: Path) -> list[str]:
    """What the rows of a robot in the published setting say, of the methods that were run."""
    known = set(pq.read_table(path)["axis/method"].to_pylist())
    methods = [method for method in PUBLISHED_METHODS if method in known]
    cells = read_cells([path], methods, REAL_SEEDS)
    lines = methods_section(cells, methods)
    if len(cells) >= 3 and known >= set(PUBLISHED_METHODS):
        lines += [*contrast_table(contrasts(list(cells.values()), PUBLISHED_CONTRASTS)), ""]
    return lines


def real_section(path: Path) -> list[str]:
    """Part E: every method in every cell, and beside the target alone."""
    cells = read_cells([path], REAL_METHODS, REAL_SEEDS)
    others = [method for method in REAL_METHODS if method != TARGET]
    beside = standing_table(list(cells.values()), others, other=TARGET) if cells else []
    return [*methods_section(cells, REAL_METHODS), *beside, ""]


def crossed_section(maps: Mapping[str, Mapping[str, Scores]]) -> list[str]:
    """What it is worth to choose the baseline by the scores that it is compared by."""
    cells = [scores for own in maps.values() for scores in own.values()]
    cells += read_cells(files_of(["real"], ROWS), METHODS, REAL_SEEDS).values()
    return [prose_end.CROSSED, *spread.crossed_table(cells), ""]


def sections(start: str, head: str, section: Callable[[Path], list[str]], level: str = "###") -> list[str]:
    """A part of the page: `head`, and a section for each file of rows whose name begins with `start`."""
    paths = sorted(ROWS.glob(f"{start}*.parquet"))
    lines = [head] if paths else []
    for path in paths:
        lines += [f"{level} {path.stem.removeprefix(start)}", "", *section(path)]
    return lines


def overview_section(choices: Choices, maps: Mapping[str, Mapping[str, Scores]]) -> list[str]:
    """The picture of all maps, of the robots whose map has at least three cells."""
    gains = {}
    for robot, cells in maps.items():
        if len(cells) >= 3:
            gains[robot] = gains_of(cells, choices.get(f"{robot}_map", ()))
    if not gains:
        return []
    figures.overview(gains, ROOT / "docs" / "study_overview.png")
    return [prose.OVERVIEW, "![what each method gains over the better baseline](study_overview.png)", ""]


def map_part(choices: Choices, maps: Mapping[str, Mapping[str, Scores]]) -> list[str]:
    """Part A."""
    lines = []
    for robot in sorted(maps):
        lines += robot_section(robot, maps[robot])
    lines += sections("baselines_", prose.BASELINES, baselines_section, "####")
    ceilings = {robot: ceiling.report(robot) for robot in sorted(NEAR) if ceiling.was_run(robot)}
    lines += [prose.CEILING] if ceilings else []
    for robot, tables in ceilings.items():
        lines += [f"#### {robot}", "", tables, ""]
    if (path := ROWS / nearest.PATH.name).exists():
        lines += [prose.NEAREST, nearest.report(nearest.read_rows(path)), "", prose.ALL_FAR, ceiling.far_report(), ""]
    if (path := ROWS / rule.NUMBERS.name).exists():
        lines += [prose.RULE, rule.report(rule.read_numbers(path), ROWS), ""]
    if own := {name: groups for name, groups in choices.items() if not name.startswith(REPLAYED)}:
        lines += [prose.RULE_EVERYWHERE, *rule.of_choices(own), ""]
    return lines


def z_part() -> list[str]:
    """Part B."""
    lines = []
    if (path := ROWS / where_z_matters.ROWS.name).exists():
        lines += [prose.WHERE_Z, where_z_matters.report(where_z_matters.read_rows(path)), ""]
    if (path := ROWS / "where_z_pays.parquet").exists():
        lines += [prose.Z_PAYS, *policies_table(path), ""]
    if (path := ROWS / "where_z_policies.parquet").exists():
        cells = read_cells([path], list(Z_METHODS), SEEDS)
        lines += [prose.Z_POLICIES, *methods_section(cells, list(Z_METHODS))]
        if len(cells) >= 3:
            lines += [*contrast_table(contrasts(list(cells.values()), Z_CONTRASTS)), ""]
    return lines


def choice_part(choices: Choices) -> list[str]:
    """Part D, and the page of its own that has every task."""
    replayed = {name.removeprefix(REPLAYED): own for name, own in choices.items() if name.startswith(REPLAYED)}
    by_name = {name: own for name, own in choices.items() if not name.startswith(REPLAYED)}
    lines = [prose_choice.CHOICE, selection.overview(by_name), "", prose_choice.AGAINST_FILTERS]
    for name in (name for name in FILTERED if name in by_name):
        table = selection.against_filters(by_name[name], files_of(FILTERED[name], ROWS))
        lines += [f"#### {name}", "", *table, ""]
    lines += [prose_choice.CHOICE_SHORTFALL]
    if tasks := earned_less.read_tasks(by_name, ROWS):
        lines += [prose_choice.EARNED_LESS, *earned_less.summary_table(tasks), ""]
        lines += [prose_choice.EARNED_LESS_SAYS, *earned_less.cell_table(tasks), ""]
    if replayed:
        lines += [prose_choice.REPLAYED, *selection.replayed_table(replayed), ""]
    by_task = [line for name, groups in by_name.items() for line in (f"## {name}", "", selection.report(groups), "")]
    write_page("study_choices", [prose_choice.CHOICES, *by_task])
    return lines


def main() -> None:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--add", type=Path, metavar="SWEEP_DIR", help="a finished sweep, which becomes rows/NAME.parquet"
    )
    given = parser.parse_args()
    if given.add:
        pq.write_table(
            with_rows_of(None, pq.read_table(given.add / "results.parquet")), ROWS / f"{given.add.name}.parquet"
        )
    paths = sorted(ROWS.glob("selection_*.parquet"))
    choices = {path.stem.removeprefix("selection_"): selection.read_groups(path) for path in paths}
    maps = {robot: map_cells(robot) for robot in NEAR if (ROWS / f"map_{robot}.parquet").exists()}
    numbers = standing.standings(maps)
    head, of_map, limits, failed = (
        standing.with_numbers(text, numbers) for text in (prose.HEAD, prose.MAP, prose_end.LIMITS, prose_end.FAILED)
    )
    lines = [
        head,
        *overview_section(choices, maps),
        prose.DESIGN,
        *extent.report(ROWS),
        of_map,
        *map_part(choices, maps),
    ]
    lines += z_part()
    lines += sections("published_", prose.PUBLISHED, published_section)
    lines += choice_part(choices) if choices else []
    if (ROWS / "parts_hopper.parquet").exists():
        lines += [prose_choice.PARTS, *parts_section("hopper")]
    lines += sections("learners_", prose_choice.LEARNERS, learners_section, "####")
    if (path := ROWS / "real.parquet").exists():
        lines += [prose.REAL, *real_section(path)]
    lines += [prose_end.SPREAD, *spread.spread_table(ROWS), "", *crossed_section(maps)]
    lines += [limits, failed, prose_end.FINDINGS, prose_end.REPEATED, repeated.report(ROWS), ""]
    if (path := ROWS / cost.COST.name).exists():
        lines += [prose_end.COST, cost.report(cost.read_rows(path))]
    write_page("study", lines)


def write_page(name: str, lines: Sequence[str]) -> None:
    """Write a page of the documentation, and say where."""
    path = ROOT / "docs" / f"{name}.md"
    path.write_text("\n".join(lines).rstrip() + "\n")
    print(path)


if __name__ == "__main__":
    main()
