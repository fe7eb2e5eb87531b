"""Part A's rule: is mixing worth more than the target alone? Predicted from recorded data, without simulator or labels.

    python -m benchmarks.study.rule data_root=DIR --output DIR [--sweeps map_hopper ...]

The numbers of a task are those of its recorded data: size of the target, the return of target and source, the share of
the source whose (s, a) the target has been near to, and how much more the nearest target transition misses the motion
s' - s of a source transition than that of a held-out target transition. The rule is fitted to Hopper's map and tested
on tasks that it was not fitted to. Data come from the product itself: a policy of one update step in every task leaves
the tables that all methods of the task share. The numbers go to `benchmarks/study/rows/numbers.parquet`, scores come
from the rows of the study.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, export_text

from benchmarks.study.run import ROWS, V2A, read_cells
from benchmarks.study.selection import BASELINES, Group, by_task, read_groups
from benchmarks.study.suites import FOLDER, REAL_SEEDS
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.experiments.choice import MIX
from v2a_ray.experiments.finished import read_records
from v2a_ray.export.find import find_policy
from v2a_ray.export.selection import SelectionData, selection_data
from v2a_ray.report.markdown import table_lines

NUMBERS = ROWS / "numbers.parquet"
FITTED_TO = "map_hopper"
TESTED_ON = (
    *("baselines_walker2d", "baselines_halfcheetah", "baselines_ant"),
    *("choice_walker2d", "choice_ant", "published_hopper", "real"),
)
COMPARED = 5_000
"""Transitions of target and of source that are compared, at most."""
NEAR_QUANTILE, NEAREST_PART = 0.95, 0.1
"""Near is what this share of held-out target transitions is. Motion is compared for this part of the source, the
nearest: far from the target nobody knows how it would move."""
FEATURES = ("size", "advantage_of_source", "overlap", "mismatch")


@dataclass(frozen=True)
class Numbers:
    """What a user knows of a task before training.

    Attributes:
        sweep, task: its file, and the labels of its axes besides method and seed.
        size: log10 of the target's transitions.
        target_return, source_return: undiscounted, of an average episode: mean reward times steps between terminals.
        overlap: share of the source whose (s, a) the target has been near to, in [0, 1].
        mismatch: log10 of the median error of motion in the nearest source over that in held-out target transitions.
    """

    sweep: str
    task: str
    size: float
    target_return: float
    source_return: float
    overlap: float
    mismatch: float

    @property
    def features(self) -> list[float]:
        """In the order of `FEATURES`; of the returns their difference, relative to the larger of them."""
        larger = max(abs(self.target_return), abs(self.source_return))
        advantage = (self.source_return - self.target_return) / larger
        return [self.size, advantage, self.overlap, self.mismatch]


def compared(target: EpisodeTable, source: EpisodeTable, seed: int = 0) -> tuple[float, float]:
    """Overlap and mismatch (`Numbers`) of random transitions, a fifth of the target's held out."""
    generator = np.random.default_rng(seed)

    def drawn(table: EpisodeTable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = np.concatenate([table.observation, table.action, table.next_observation - table.observation], axis=1)
        # A transition that was drawn twice would be its own neighbour.
        rows = generator.permutation(np.unique(rows, axis=0))[:COMPARED].astype(np.float64)
        width = table.observation.shape[1] + table.action.shape[1]
        return rows[:, :width], rows[:, width:]

    (inputs, motion), (source_inputs, source_motion) = drawn(target), drawn(source)
    held_out = len(inputs) // 5
    scale = StandardScaler().fit(inputs[held_out:])
    unit = motion[held_out:].std(axis=0) + 1e-8
    nearest = NearestNeighbors(n_neighbors=1).fit(scale.transform(inputs[held_out:]))

    def seen(inputs: NDArray[np.float64], moved: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        """Distances to the nearest target transitions, and the median error of motion where they are smallest."""
        distance, index = nearest.kneighbors(scale.transform(inputs))
        error = np.abs((motion[held_out:][index[:, 0]] - moved) / unit).mean(axis=1)
        close = distance[:, 0] <= np.quantile(distance, NEAREST_PART)
        return distance[:, 0], float(np.median(error[close]))

    own, own_error = seen(inputs[:held_out], motion[:held_out])
    others, error = seen(source_inputs, source_motion)
    overlap = float(np.mean(others <= np.quantile(own, NEAR_QUANTILE)))
    return overlap, float(np.log10(error / own_error))


def numbers_of(sweep: str, task: str, data: SelectionData) -> Numbers:
    """The numbers of a task from its tables, of which it has both."""
    assert data.source is not None
    size = float(np.log10(data.target.num_transitions))
    returns = data.target_return, data.source_return
    return Numbers(sweep, task, size, *returns, *compared(data.target, data.source))


def measure(sweep: str, overrides: Sequence[str], output: Path) -> list[Numbers]:
    """The numbers of every task of a sweep file with seed 0; policies of one step that are there are taken."""
    run_dir = output / sweep
    if not (run_dir / "results.parquet").exists():
        small = ["policy.num_steps=1", "evaluation.num_episodes=1", f"store={output / 'artifacts'}"]
        axes = [f"axes.method=[{MIX}]", 'axes.seed=["0"]']
        command = [*V2A, "sweep", str(FOLDER / f"{sweep}.yaml")]
        subprocess.run([*command, *axes, *small, *overrides, "--run-dir", str(run_dir)], check=True)
    found = []
    for record in read_records(run_dir):
        data = selection_data([find_policy(str(record.folder))], None, with_source=True)
        found.append(numbers_of(sweep, record.task, data))
    return found


def gains(sweep: str, rows: Path = ROWS) -> dict[str, float]:
    """By task, what mixing gains over the target alone, a mean over the seeds that both have."""
    path, (target, mixed) = rows / f"{sweep}.parquet", BASELINES
    if path.exists():
        cells = read_cells([path], BASELINES, REAL_SEEDS)
        return {task: float(np.mean(scores[mixed] - scores[target])) for task, scores in cells.items()}
    found: dict[str, list[float]] = {}
    for group in read_groups(rows / f"selection_{sweep}.parquet"):
        found.setdefault(group.task, []).append(group.scores[mixed] - group.scores[target])
    return {task: float(np.mean(values)) for task, values in found.items()}


def models() -> dict[str, Pipeline | DecisionTreeClassifier]:
    """The two rules: one that weighs all numbers, and one that can be said in a sentence."""
    return {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression()),
        "tree of two questions": DecisionTreeClassifier(max_depth=2, min_samples_leaf=3, random_state=0),
    }


def report(numbers: Sequence[Numbers], rows: Path = ROWS) -> str:
    """The tree in words, and how often each rule is right and what following it loses, in Markdown."""
    by_sweep: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for sweep in dict.fromkeys(each.sweep for each in numbers):
        by_task = gains(sweep, rows)
        known = [each for each in numbers if each.sweep == sweep and each.task in by_task]
        if known:
            own = np.asarray([each.features for each in known])
            by_sweep[sweep] = (own, np.asarray([by_task[each.task] for each in known]))
    features, gained = by_sweep[FITTED_TO]
    lines = []

    def without(values: NDArray[np.float64], row: int) -> NDArray[np.float64]:
        return values[np.arange(len(values)) != row]

    def row(tasks: str, rule: str, predicted: NDArray[np.bool_], gained: NDArray[np.float64]) -> list[str]:
        right, lost = np.mean(predicted == (gained > 0)), np.where(predicted, -gained, gained).clip(min=0).mean()
        return [tasks, str(len(gained)), rule, f"{right:.0%}", f"{lost:.1f}"]

    for name, model in models().items():
        left_out = np.asarray(
            [
                model.fit(without(features, i), without(gained, i) > 0).predict(features[i : i + 1])[0]
                for i in range(len(gained))
            ]
        )
        lines.append(row(f"{FITTED_TO}, each left out once", name, left_out, gained))
        model.fit(features, gained > 0)
        lines += [
            row(sweep, name, model.predict(own), true) for sweep, (own, true) in by_sweep.items() if sweep != FITTED_TO
        ]
    plain = {"mix where the source earned more": 0.0, "always mix": -np.inf, "never mix": np.inf}
    for name, least in plain.items():
        place = FEATURES.index("advantage_of_source")
        lines += [row(sweep, name, own[:, place] > least, true) for sweep, (own, true) in by_sweep.items()]
    tree = models()["tree of two questions"].fit(features, gained > 0)
    said = export_text(tree, feature_names=list(FEATURES), class_names=["target alone", "mix"]).rstrip()
    table = table_lines(("tasks", "number", "rule", "sign is right", "lost to the better baseline"), lines)
    return "\n".join([*table, "", *(f"    {line}" for line in said.splitlines())])


def of_choices(by_name: Mapping[str, Sequence[Group]]) -> list[str]:
    """The rule on every task that was chosen in: in how many it is right, and what it loses beside always and never."""
    lines = []
    for name, groups in by_name.items():
        known = by_task([group for group in groups if group.source_earns_more is not None]).values()
        if not known:
            continue
        target, mixed = BASELINES
        gained = np.asarray([np.mean([seed.scores[mixed] - seed.scores[target] for seed in own]) for own in known])
        earns_more = np.asarray([own[0].source_earns_more for own in known])
        right = np.count_nonzero(earns_more == (gained > 0))
        ways = (earns_more, np.ones_like(earns_more), np.zeros_like(earns_more))
        lost = [f"{np.where(mix, -gained, gained).clip(min=0).mean():.1f}" for mix in ways]
        lines.append((name, str(len(known)), str(np.count_nonzero(earns_more)), str(right), *lost))
    counted = ("number", "the source earned more in", "right in")
    return table_lines(("tasks", *counted, "the rule loses", "always mixing loses", "never mixing loses"), lines)


def read_numbers(path: Path = NUMBERS) -> list[Numbers]:
    """What was measured."""
    return [Numbers(**row) for row in pq.read_table(path).to_pylist()]


def main() -> None:
    """Measure what is asked for, beside what is there, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--sweeps", nargs="+", default=[FITTED_TO, *TESTED_ON])
    parser.add_argument("--output", type=Path, required=True, help="folder for the tables and their store")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    old = [each for each in (read_numbers() if NUMBERS.exists() else []) if each.sweep not in given.sweeps]
    new = [each for sweep in given.sweeps for each in measure(sweep, given.overrides, given.output)]
    pq.write_table(pa.Table.from_pylist([asdict(each) for each in [*old, *new]]), NUMBERS)
    print(report([*old, *new]))


if __name__ == "__main__":
    main()
