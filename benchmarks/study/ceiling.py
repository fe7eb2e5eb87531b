"""What an oracle would choose of a source: one of its dynamics alone, where there are near and far ones. From rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.study import nearest
from benchmarks.study.cells import FAR, NEAR
from benchmarks.study.run import ROWS, Scores, read_cells
from benchmarks.study.selection import BASELINES, SHOWN, Group, better_mean, by_task, chosen_mean, read_groups
from benchmarks.study.suites import REAL_SHIFTS, SEEDS
from v2a_ray.evaluation.interval import with_spread
from v2a_ray.experiments.choice import MIX, SOURCE
from v2a_ray.report.markdown import table_lines

UNFILTERED = {"hopper": "map", "walker2d": "baselines"}
"""Which sweep has the baselines of a robot's map."""
LARGE = 5
"""Points of the normalised score: the part that is had of a smaller gain is not stated."""
REPLAYS_NEAREST = "gravity-0.5"
"""Of the far dynamics, by `v2a data replay` on the random pools of HalfCheetah and Ant, and on recorded random data."""


def was_run(robot: str) -> bool:
    """Whether there are rows of the near source alone."""
    return _path("ceiling", robot).exists()


def report(robot: str) -> str:
    """The cells and seeds of the ceiling's rows that the baselines and the choice have too, a table in Markdown.

    The gain is that of mixing the near source alone over the better of target alone and mixing all. ± is the sample
    standard deviation over seeds. A second table says how far the sources are, see `distances`.
    """
    tasks = by_task(read_groups(ROWS / f"selection_{robot}_map.parquet"))
    near, far = (_cells(_path(part, robot), MIX) for part in ("ceiling", "far_alone"))
    without = _cells(_path("near_source", robot), SOURCE)
    baselines = read_cells([ROWS / f"{UNFILTERED[robot]}_{robot}.parquet"], BASELINES, SEEDS)
    mixes = [f"near: {NEAR[robot]}", *(f"far: {name}" for name in FAR)]
    lines = []
    for cell, own in near.items():
        alone = [own, *(far.get(f"{cell}, {name} alone", {MIX: np.empty(0)}) for name in FAR)]
        shown = [with_spread(baselines[cell][method], 1) for method in BASELINES]
        shown.append(with_spread(without[cell][SOURCE], 1) if cell in without else "")
        shown += [with_spread(scores[MIX], 1) if len(scores[MIX]) else "" for scores in alone]
        seeds = min(len(own[MIX]), len(baselines[cell][MIX]))
        gain = float(own[MIX][:seeds].mean()) - max(float(baselines[cell][name][:seeds].mean()) for name in BASELINES)
        chosen = tasks.get(cell, [])[:seeds]
        had = _had(chosen, float(own[MIX][: len(chosen)].mean())) if chosen else ""
        lines.append((cell, str(seeds), *shown, f"{gain:+.1f}", had))
    head = ("target, from source", "seeds", *BASELINES, "near without the target", *mixes, "gain", "v2a choose")
    far_off = distances(robot)
    places = {cell: [far_off.get((cell, name), "") for name in (NEAR[robot], *FAR)] for cell in near}
    known = [(cell, *found) for cell, found in places.items() if any(found)]
    return "\n".join([*table_lines(head, lines), "", *table_lines(("how far", *mixes), known)])


def _path(part: str, robot: str) -> Path:
    return ROWS / f"map_{robot}_{part}.parquet"


def _cells(path: Path, method: str) -> dict[str, Scores]:
    """The cells of a sweep of one method; none if it was not run."""
    return read_cells([path], [method], SEEDS) if path.exists() else {}


def far_report() -> str:
    """Where all sources are far, every one alone beside the mix of all, in Markdown; what replays nearest is bold."""
    names = list(REAL_SHIFTS.values())
    lines = []
    for robot, whole, alone in (
        ("halfcheetah: ", "baselines_halfcheetah", "map_halfcheetah_far_alone"),
        ("ant: ", "baselines_ant", "map_ant_far_alone"),
        ("", "real", "real_alone"),
    ):
        found: dict[str, dict[str, float]] = {}
        for cell, scores in _cells(ROWS / f"{alone}.parquet", MIX).items():
            task, _, name = cell.removesuffix(" alone").rpartition(", ")
            found.setdefault(task, {})[REAL_SHIFTS.get(name, name)] = float(scores[MIX][0])
        both = read_cells([ROWS / f"{whole}.parquet"], BASELINES, SEEDS) if found else {}
        for task, by_source in found.items():
            shown = [f"{both[task][method][0]:.1f}" for method in BASELINES]
            for name in names:
                value = f"{by_source[name]:.1f}" if name in by_source else ""
                shown.append(f"**{value}**" if value and name == REPLAYS_NEAREST else value)
            lines.append((f"{robot}{task}", *shown))
    return "\n".join(table_lines(("target, from source", "iql_target", "mixing all", *names), lines))


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


def _had(seeds: Sequence[Group], ceiling: float) -> str:
    """The score of what `v2a choose` takes, and the part of a large gain that it has."""
    better, chosen = better_mean(seeds), chosen_mean(seeds, SHOWN[0])
    large = ceiling - better >= LARGE
    return f"{chosen:.1f}" + (f" ({100 * (chosen - better) / (ceiling - better):.0f} %)" if large else "")
