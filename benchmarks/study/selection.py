"""Can numbers without a simulator choose between the target alone, plain mixing and a filter? From finished sweeps.

    python -m benchmarks.study.selection runs/three_tasks [runs/MORE ...] --output DIR --name three_tasks

Later sweeps of the same tasks and seeds add to the candidates that the rows have. `v2a select --with-source` fits
critics of each policy to the target's and the source's transitions, where the target has whole episodes. The policy
with the highest value, less a standard deviation over critics, is chosen, and its true score compared with those that
were to be chosen from. Policies that the source makes look good in dynamics that the target does not have are the
danger. What is in DIR is not computed again. The numbers go to `benchmarks/study/rows/selection_NAME.parquet`, from
which the study's page is written.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy import stats

from benchmarks.study.design import LEFT_OUT
from benchmarks.study.run import ROWS, V2A, finished_rows, read_scores
from v2a_ray.evaluation.aggregates import improvement
from v2a_ray.evaluation.interval import interquartile_mean
from v2a_ray.experiments.choice import CRITIC_STEPS, FILTER, MIX, SOURCE, TARGET
from v2a_ray.experiments.finished import TRIALS
from v2a_ray.experiments.sweep import task_of, trial_folder_name
from v2a_ray.export.find import find_policy
from v2a_ray.export.selection import selection_data
from v2a_ray.files import read_json
from v2a_ray.outputs import file_name
from v2a_ray.report.markdown import table_lines

BASELINES = (TARGET, MIX)
OTDF = "otdf"
CANDIDATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "target or mix": (BASELINES, BASELINES),
    "filter or mix": ((FILTER, MIX), (FILTER, MIX)),
    "any of the three": ((*BASELINES, FILTER), (*BASELINES, FILTER)),
    "filter, mix or source": ((FILTER, MIX, SOURCE), (FILTER, MIX)),
    "filter, mix or source; else target or filter": ((FILTER, MIX, SOURCE), (TARGET, FILTER)),
    "any of the four; else target or filter": ((TARGET, FILTER, MIX, SOURCE), (TARGET, FILTER)),
}
"""What is chosen from where the source's episodes have a higher return than the target's, and where they have not."""
SHOWN = ("any of the four; else target or filter", "filter or mix")
"""What is chosen by `v2a choose`, and by its form from before the source alone was a candidate."""
NOTICEABLE = 3
"""Points of the normalised score, the goal's bound: smaller differences count as none."""
PUBLISHED = "choice_published_"
"""How the names of sweeps begin whose cells are the published suite's."""
NEEDED = (*BASELINES, FILTER)
"""Of every task; the source alone and OTDF were added later, and are not everywhere."""
MEASURES = {"fitted_q_lower": ("lower_value", 1.0), "td_error": ("td_error", -1.0)}
"""Field of a policy in the output of `v2a select`, and whether more or less of it is better."""

MARGIN = 0.25
"""Critics have seen more of the source than of the target, and may favour the mix. Tried: it is preferred to the filter
only if its value is higher by this part of the filter's."""


@dataclass(frozen=True)
class Group:
    """Policies of one task and seed.

    Attributes:
        task: labels of all axes but method and seed, in words.
        scores: normalised score by method.
        numbers: by method, the fields of `MEASURES` in the output of `v2a select`.
        source_earns_more: whether the source's episodes have a higher return than the target's; None where the rows
            do not say it.
    """

    task: str
    seed: str
    scores: Mapping[str, float]
    numbers: Mapping[str, Mapping[str, Any]]
    source_earns_more: bool | None

    def candidates(self, among: str) -> tuple[str, ...]:
        """What a way of that name chooses from here."""
        return CANDIDATES[among][0 if self.source_earns_more else 1]

    def has(self, among: str) -> bool:
        """Whether it is known what a way of that name chooses from here, and all of that was trained."""
        good, bad = CANDIDATES[among]
        return (self.source_earns_more is not None or good == bad) and self.scores.keys() >= set(self.candidates(among))

    def chosen(self, among: str, measure: str) -> str:
        """The best of the candidates of that name by a measure."""
        field, sign = MEASURES[measure]
        return max(self.candidates(among), key=lambda method: sign * self.numbers[method][field])

    @property
    def preferred(self) -> str:
        """The filter, unless the mix is worth more by `MARGIN`."""
        cautious, bold = (float(self.numbers[method]["lower_value"]) for method in (FILTER, MIX))
        return MIX if bold - cautious > MARGIN * abs(cautious) else FILTER


def measured(sweeps: Sequence[Path], output: Path) -> list[dict[str, Any]]:
    """A row for each finished candidate of the sweeps. Runs `v2a select` where it has to."""
    rows = []
    for sweep in sweeps:
        for row in finished_rows(sweep / "results.parquet"):
            labels = {name.removeprefix("axis/"): row[name] for name in row if name.startswith("axis/")}
            if labels["method"] not in (*NEEDED, SOURCE, OTDF):
                continue
            place = {"task": task_of(labels), "seed": labels.get("seed") or "0", "method": labels["method"]}
            folder = sweep / TRIALS / trial_folder_name(labels, sweep.name)
            numbers = _selected(folder, output / file_name(f"{sweep.name}-{'-'.join(place.values())}.json"))
            if not numbers:
                print(f"left out: {', '.join(place.values())}", file=sys.stderr)
                continue
            more = _source_earns_more(folder) if labels["method"] == MIX else None
            score = {"score": row["normalized_score_mean"], "source_earns_more": more}
            rows.append(place | score | {field: numbers[field] for field, _ in MEASURES.values()})
    return rows


def _selected(folder: Path, path: Path) -> dict[str, Any]:
    """Fields of `v2a select` for a policy; none where it refuses, which it says: no whole episodes."""
    if not path.exists():
        command = [*V2A, "select", str(folder), "--with-source"]
        command += ["--steps", str(CRITIC_STEPS), "-o", str(path)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, env={"OMP_NUM_THREADS": "1", **os.environ})
        if done.returncode == 2:
            return {}
        done.check_returncode()
    (policy,) = read_json(path)["policies"]
    return dict(policy)


def _source_earns_more(folder: Path) -> bool:
    """By the data of a finished policy."""
    data = selection_data([find_policy(str(folder))], None, with_source=True)
    return data.source_return > data.target_return


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the rows in place of those that the file has of the same policies, beside its others."""
    old = pq.read_table(path).to_pylist() if path.exists() else []
    # Rows from before the source was a candidate do not say what it earned.
    every = [{"source_earns_more": None, **row} for row in [*old, *rows]]
    by_policy = {(row["task"], row["seed"], row["method"]): row for row in every}
    pq.write_table(pa.Table.from_pylist([by_policy[place] for place in sorted(by_policy)]), path)


def is_control(task: str) -> bool:
    """Whether a task's source has the target's own dynamics."""
    return "same" in task.split()


def read_groups(path: Path) -> list[Group]:
    """The tasks and seeds in a file of rows of which every needed method is there."""
    rows = pq.read_table(path).to_pylist()
    groups = []
    for (task, seed), members in itertools.groupby(rows, key=lambda row: (row["task"], row["seed"])):
        numbers = {row["method"]: row for row in members}
        if numbers.keys() >= set(NEEDED):
            scores = {method: row["score"] for method, row in numbers.items()}
            said = {row.get("source_earns_more") for row in numbers.values()} - {None}
            groups.append(Group(task, seed, scores, numbers, said.pop() if said else None))
    return groups


def report(groups: Sequence[Group]) -> str:
    """A table of tasks, and one of what choosing loses, in Markdown."""
    methods = [method for method in (*NEEDED, SOURCE, OTDF) if all(method in group.scores for group in groups)]
    among = [name for name in CANDIDATES if all(group.has(name) for group in groups)]
    return "\n".join([*tasks_table(groups, methods, among), "", *loss_table(groups, methods, among)])


def overview(by_name: Mapping[str, Sequence[Group]]) -> str:
    """Every way to choose that needs the source alone, in all tasks and seeds that have it, in Markdown."""
    ways = [name for name, (good, _) in CANDIDATES.items() if SOURCE in good]
    head = ("tasks", "policies chosen", "better baseline", *ways, "gain [95 %]", "median", "tasks behind")
    lines = []
    by_name = {name: [group for group in groups if all(map(group.has, ways))] for name, groups in by_name.items()}
    every = [replace(group, task=f"{name}: {group.task}") for name, groups in by_name.items() for group in groups]
    own_setting = [group for group in every if not group.task.startswith(PUBLISHED)]
    parts = {
        "all": every,
        "all but the published suite": own_setting,
        "of these, the target's own dynamics": [group for group in own_setting if is_control(group.task)],
        "of these, other dynamics": [group for group in own_setting if not is_control(group.task)],
    }
    for tasks, own in {**by_name, **parts}.items():
        if not own:
            continue
        better = np.asarray([max(group.scores[method] for method in BASELINES) for group in own])
        gains = [chosen_scores(own, way) - better for way in ways]
        cells = [f"{(better + gain).mean():.1f}, {-gain.min():.1f}" for gain in gains]
        cells += [*gain_over_tasks(own, gains[-1]), tasks_behind(own, ways[-1])]
        lines.append((tasks, str(len(own)), f"{better.mean():.1f}", *cells))
    return "\n".join(table_lines(head, lines))


def against_filters(groups: Sequence[Group], paths: Sequence[Path]) -> list[str]:
    """What is chosen against each filter that rows in `paths` have of the same tasks and seeds, as a table."""
    scores = read_scores(paths)
    filters = dict.fromkeys(method for own in scores.values() for method in own if method not in (*BASELINES, SOURCE))
    lines = []
    for method in filters:
        theirs_of = {place: own[method] for place, own in scores.items() if method in own}
        tasks = by_task([group for group in groups if group.has(SHOWN[0]) and (group.task, group.seed) in theirs_of])
        theirs = [np.asarray([theirs_of[group.task, group.seed] for group in seeds]) for seeds in tasks.values()]
        mine = [chosen_scores(seeds, SHOWN[0]) for seeds in tasks.values()]
        if tasks:
            middles = [f"{interquartile_mean(strata)[0]:.1f}" for strata in (theirs, mine)]
            lines.append((method, str(len(tasks)), *middles, f"{improvement(mine, theirs).value:.2f}"))
    return table_lines(("filter", "tasks", "its IQM", "IQM of v2a choose", "P(improvement)"), lines)


def by_task(groups: Sequence[Group]) -> dict[str, list[Group]]:
    """The seeds of every task, which stand together."""
    return {task: list(members) for task, members in itertools.groupby(groups, key=lambda group: group.task)}


def chosen_scores(groups: Sequence[Group], way: str) -> NDArray[np.float64]:
    """The score of what is chosen in each of the groups."""
    return np.asarray([group.scores[group.chosen(way, "fitted_q_lower")] for group in groups])


def chosen_mean(seeds: Sequence[Group], way: str) -> float:
    """Mean score over the seeds of a task of what is chosen in each."""
    return float(chosen_scores(seeds, way).mean())


def chosen_methods(seeds: Sequence[Group], way: str = SHOWN[0]) -> str:
    """The methods that are chosen, each with the number of its seeds."""
    chosen = [group.chosen(way, "fitted_q_lower") for group in seeds]
    return ", ".join(f"{method} {chosen.count(method)}" for method in (*NEEDED, SOURCE) if method in chosen)


def better_mean(seeds: Sequence[Group]) -> float:
    """The higher of the baselines' mean scores over the seeds of a task."""
    return max(float(np.mean([group.scores[method] for group in seeds])) for method in BASELINES)


def gain_over_tasks(groups: Sequence[Group], gains: NDArray[np.float64]) -> tuple[str, str]:
    """Mean over tasks of the mean gain over seeds, with its 95 % t interval from two tasks on; and the median."""
    edges = np.cumsum([len(seeds) for seeds in by_task(groups).values()])[:-1]
    means = [float(own.mean()) for own in np.split(gains, edges)]
    mean, median = f"{np.mean(means):+.1f}", f"{np.median(means):+.1f}"
    if len(means) < 2:
        return mean, median
    interval = stats.ttest_1samp(means, 0.0).confidence_interval(0.95)
    return f"{mean} [{interval.low:+.1f}, {interval.high:+.1f}]", median


def tasks_behind(groups: Sequence[Group], way: str) -> str:
    """In how many tasks the mean of what is chosen is behind the better mean of the baselines by more than 3 points."""
    tasks = by_task(groups).values()
    behind = sum(better_mean(seeds) - chosen_mean(seeds, way) > NOTICEABLE for seeds in tasks)
    return f"{behind} of {len(tasks)}"


def tasks_table(groups: Sequence[Group], methods: Sequence[str], among: Sequence[str]) -> list[str]:
    """What is chosen in every task, beside the means over seeds."""
    name = next(name for name in SHOWN if name in among)
    lines = []
    for task, seeds in by_task(groups).items():
        values = [f"{np.mean([group.scores[method] for group in seeds]):.1f}" for method in methods]
        chosen = f"{chosen_mean(seeds, name):.1f} ({chosen_methods(seeds, name)})"
        lines.append((task, chosen, f"{better_mean(seeds):.1f}", *values))
    return table_lines(("task", name, "better baseline", *methods), lines)


def replayed_table(by_name: Mapping[str, Sequence[Group]]) -> list[str]:
    """What is chosen with the whole source, and without what replays far, in tasks that have both."""
    lines = []
    for name, groups in by_name.items():
        tasks = by_task(groups)
        for task, whole in tasks.items():
            if near := tasks.get(f"{task}{LEFT_OUT}"):
                chosen = [f"{chosen_mean(seeds, SHOWN[0]):.1f} ({chosen_methods(seeds)})" for seeds in (whole, near)]
                lines.append((f"{name}: {task}", str(len(near)), f"{better_mean(whole):.1f}", *chosen))
    head = ("target, from source", "seeds", "better baseline", "v2a choose", "v2a choose --replay")
    return table_lines(head, lines)


def loss_table(groups: Sequence[Group], methods: Sequence[str], among: Sequence[str]) -> list[str]:
    """Score of every way to choose, and what it loses to the better baseline of a task and seed."""
    rules = [
        (name, measure, [group.chosen(name, measure) for group in groups])
        for name, measure in itertools.product(among, MEASURES)
    ]
    rules.append(("filter or mix", "fitted_q_lower, a quarter more", [group.preferred for group in groups]))
    rules += [(method, "nothing", [method] * len(groups)) for method in methods]
    better = np.asarray([max(group.scores[method] for method in BASELINES) for group in groups])
    lines = []
    for name, rule, chosen in rules:
        scores = np.asarray([group.scores[method] for group, method in zip(groups, chosen, strict=True)])
        most = (better - scores).max()
        lines.append((name, rule, f"{scores.mean():.1f}", f"{better.mean():.1f}", f"{most:.1f}"))
    return table_lines(("chosen among", "by", "mean score", "better baseline", "most lost to it"), lines)


def main() -> None:
    """Read, compute what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP_DIR")
    parser.add_argument("--output", type=Path, required=True, help="folder for the outputs of v2a select")
    parser.add_argument("--name", required=True, help="of the rows, which are written beside those that it has")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    path = ROWS / f"selection_{given.name}.parquet"
    write_rows(measured(given.sweeps, given.output), path)
    print(report(read_groups(path)))


if __name__ == "__main__":
    main()
