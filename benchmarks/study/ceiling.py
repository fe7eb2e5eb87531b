"""What an oracle would choose of a source: one of its dynamics alone, where there are near and far ones. From rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.study import nearest
from benchmarks.study.design import FAR, NEAR, REAL_SHIFTS, SEEDS
from benchmarks.study.run import ROWS, Scores, read_cells
from benchmarks.study.selection import BASELINES, SHOWN, Group, better_mean, by_task, chosen_mean, read_groups
from v2a_ray.evaluation.interval import with_spread
from v2a_ray.experiments.choice import FILTER, MIX, SOURCE

UNFILTERED = {"hopper": "map", "walker2d": "baselines"}
"""Which sweep has the baselines of a robot's map."""
LARGE = 5
"""Points of the normalised score: the part that is had of a smaller gain is not stated."""


REPLAYS_NEAREST = "gravity-0.5"
"""Of the far dynamics, by `v2a data replay` on the random pools of HalfCheetah and Ant, and on recorded random data."""


def report(path: Path) -> str:
    """The cells and seeds of the ceiling's rows that the baselines and the choice have too, a table in Markdown.

    The gain is that of mixing the near source alone over the better of target alone and mixing all. ± is the sample
    standard deviation over seeds. In brackets is how far a source is, see `distances`, where it is known.
    """
    robot = path.stem.removeprefix("map_").removesuffix("_ceiling")
    tasks = by_task(read_groups(ROWS / f"selection_{robot}_map.parquet"))
    near = read_cells([path], [MIX], SEEDS)
    far = _cells(path.with_name(f"map_{robot}_far_alone.parquet"), MIX)
    without = _cells(path.with_name(f"map_{robot}_near_source.parquet"), SOURCE)
    baselines = read_cells([path.with_name(f"{UNFILTERED[robot]}_{robot}.parquet")], BASELINES, SEEDS)
    mixes = ["near without the target", f"near: {NEAR[robot]}", *(f"far: {name}" for name in FAR)]
    head = ("target, from source", "seeds", *BASELINES, *mixes, "gain", FILTER, "v2a choose", "had of the gain")
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    far_off = distances(robot)
    for cell, own in near.items():
        alone = {NEAR[robot]: own} | {name: far.get(f"{cell}, {name} alone", {MIX: np.empty(0)}) for name in FAR}
        shown = [with_spread(baselines[cell][method], 1) for method in BASELINES]
        shown.append(with_spread(without[cell][SOURCE], 1) if cell in without else "")
        for name, scores in alone.items():
            bracket = f" ({far_off[cell, name]})" if (cell, name) in far_off else ""
            shown.append(f"{with_spread(scores[MIX], 1)}{bracket}" if len(scores[MIX]) else "")
        seeds = min(len(own[MIX]), len(baselines[cell][MIX]))
        gain = float(own[MIX][:seeds].mean()) - max(float(baselines[cell][name][:seeds].mean()) for name in BASELINES)
        chosen = tasks.get(cell, [])[:seeds]
        last = _had(chosen, float(own[MIX][: len(chosen)].mean())) if chosen else ("", "", "")
        lines.append(f"| {cell} | {seeds} | {' | '.join(shown)} | {gain:+.1f} | {' | '.join(last)} |")
    return "\n".join(lines)


def _cells(path: Path, method: str) -> dict[str, Scores]:
    """The cells of a sweep of one method; none if it was not run."""
    return read_cells([path], [method], SEEDS) if path.exists() else {}


def far_report() -> str:
    """Where all sources are far, every one alone beside the mix of all, in Markdown; what replays nearest is bold."""
    names = list(REAL_SHIFTS.values())
    head = ("target, from source", "iql_target", "mixing all", *names)
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for robot, whole, alone in (
        ("halfcheetah: ", "baselines_halfcheetah", "map_halfcheetah_far_alone"),
        ("ant: ", "baselines_ant", "map_ant_far_alone"),
        ("", "real", "real_alone"),
    ):
        paths = [ROWS / f"{name}.parquet" for name in (whole, alone)]
        if not all(path.exists() for path in paths):
            continue
        both, single = (
            read_cells([path], methods, SEEDS) for path, methods in zip(paths, (BASELINES, [MIX]), strict=True)
        )
        found: dict[str, dict[str, float]] = {}
        for cell, scores in single.items():
            task, _, name = cell.removesuffix(" alone").rpartition(", ")
            found.setdefault(task, {})[REAL_SHIFTS.get(name, name)] = float(scores[MIX][0])
        for task, by_source in found.items():
            shown = [f"{both[task][method][0]:.1f}" for method in BASELINES]
            for name in names:
                value = f"{by_source[name]:.1f}" if name in by_source else ""
                shown.append(f"**{value}**" if value and name == REPLAYS_NEAREST else value)
            lines.append(f"| {robot}{task} | {' | '.join(shown)} |")
    return "\n".join(lines)


def distances(robot: str) -> dict[tuple[str, str], str]:
    """By cell and dynamics: how far the source is from the target's simulator after one step, and after fifty."""
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for row in nearest.read_rows(ROWS / nearest.PATH.name):
        if row["robot"] == robot:
            by_estimator = found.setdefault((row["cell"], row["domain"]), {})
            by_estimator.setdefault(row["estimator"], []).append(-row["score"])
    wanted = {nearest.SIMULATED_SOURCE: 3, nearest.REPLAYED_SOURCE: 1}
    return {
        place: ", ".join(f"{np.mean(by_estimator[name]):.{digits}f}" for name, digits in wanted.items())
        for place, by_estimator in found.items()
        if by_estimator.keys() >= wanted.keys()
    }


def _had(seeds: Sequence[Group], ceiling: float) -> tuple[str, str, str]:
    """The score of the default, and of what `v2a choose` takes, and the part of a large gain that the latter has."""
    better, chosen = better_mean(seeds), chosen_mean(seeds, SHOWN[0])
    default = float(np.mean([group.scores[FILTER] for group in seeds]))
    had = f"{100 * (chosen - better) / (ceiling - better):.0f} %" if ceiling - better >= LARGE else ""
    return f"{default:.1f}", f"{chosen:.1f}", had
