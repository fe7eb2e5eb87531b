"""What an oracle would choose of a source: the near dynamics alone, where there are near and far ones. From rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.study.design import SEEDS
from benchmarks.study.run import ROWS, read_cells
from benchmarks.study.selection import BASELINES, SHOWN, better_mean, by_task, chosen_mean, read_groups
from v2a_ray.experiments.choice import FILTER, MIX

LARGE = 5
"""Points of the normalised score: the part that is had of a smaller gain is not stated."""


def report(path: Path) -> str:
    """In the cells and seeds of the ceiling's rows that the choice has too, a table in Markdown.

    The gain is that of mixing the near source alone over the better of target alone and mixing all.
    """
    robot = path.stem.removeprefix("map_").removesuffix("_ceiling")
    tasks = by_task(read_groups(ROWS / f"selection_{robot}_map.parquet"))
    head = (*BASELINES, f"{MIX}, near alone", FILTER, "v2a choose", "gain of the near alone", "had of it by v2a choose")
    lines = [f"| target, from source | seeds | {' | '.join(head)} |", "| --- " * (len(head) + 2) + "|"]
    for cell, scores in read_cells([path], [MIX], SEEDS).items():
        # The first seeds of both are the same ones.
        seeds = tasks.get(cell, [])[: len(scores[MIX])]
        if not seeds:
            continue
        ceiling, better, chosen = (
            float(scores[MIX][: len(seeds)].mean()),
            better_mean(seeds),
            chosen_mean(seeds, SHOWN[0]),
        )
        means = [float(np.mean([group.scores[method] for group in seeds])) for method in (*BASELINES, FILTER)]
        values = [*means[:2], ceiling, means[2], chosen]
        gain = ceiling - better
        had = f"{100 * (chosen - better) / gain:.0f} %" if gain >= LARGE else ""
        shown = " | ".join(f"{value:.1f}" for value in values)
        lines.append(f"| {cell} | {len(seeds)} | {shown} | {gain:+.1f} | {had} |")
    return "\n".join(lines)
