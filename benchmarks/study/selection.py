"""Can numbers without a simulator choose between the target alone, plain mixing and a filter? From finished sweeps.

    python -m benchmarks.study.selection runs/three_tasks --output DIR

`v2a select --with-source` fits critics to the target's and the source's transitions for the policies of one task and
seed, where the target has whole episodes. The policy with the highest value, less a standard deviation over critics, is
chosen, and its true score compared with those that were to be chosen from. Policies that the source makes look good in
dynamics that the target does not have are the danger. What is in DIR is not computed again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from v2a_ray.files import read_json

BASELINES = ("iql_target", "iql_mixed")
CANDIDATES: tuple[tuple[str, ...], ...] = (
    BASELINES,
    (*BASELINES, "v2a_supported"),
    (*BASELINES, "v2a_supported", "v2a"),
)
"""What is chosen from."""
MEASURES = {"fitted_q_lower": ("lower_value", 1.0), "td_error": ("td_error", -1.0)}
"""Field of a policy in the output of `v2a select`, and whether more or less of it is better."""
NUM_STEPS = 2000


@dataclass(frozen=True)
class Group:
    """Policies of one task and seed.

    Attributes:
        task: labels of all axes but method and seed, in words.
        scores: normalised score by method.
        numbers: fields of `v2a select` by method.
    """

    task: str
    seed: str
    scores: Mapping[str, float]
    numbers: Mapping[str, Mapping[str, Any]]

    def chosen(self, among: Sequence[str], measure: str) -> str | None:
        """The best of `among` by a measure; None if it is not known of all of them."""
        field, sign = MEASURES[measure]
        if any(field not in self.numbers[method] for method in among):
            return None
        return max(among, key=lambda method: sign * self.numbers[method][field])


def read_groups(sweep: Path, output: Path) -> list[Group]:
    """All tasks and seeds of a sweep in which every candidate is finished. Runs `v2a select` where it has to."""
    rows = [row for row in pq.read_table(sweep / "results.parquet").to_pylist() if row["status"] == "finished"]
    axes = [name for name in rows[0] if name.startswith("axis/")]

    def place(row: Mapping[str, Any]) -> tuple[str, str]:
        task = " · ".join(row[axis] for axis in axes if axis not in ("axis/method", "axis/seed"))
        return task, row.get("axis/seed") or "0"

    groups = []
    for (task, seed), members in itertools.groupby(sorted(rows, key=place), key=place):
        by_method = {row["axis/method"]: row for row in members if row["axis/method"] in CANDIDATES[-1]}
        if by_method.keys() != set(CANDIDATES[-1]):
            continue
        folders = {}
        for method, row in by_method.items():
            folders[method] = sweep / "trials" / ",".join(f"{axis.removeprefix('axis/')}={row[axis]}" for axis in axes)
        numbers = _selected(folders, output / f"{sweep.name}-{task}-{seed}.json".replace("/", "_"))
        if not numbers:
            print(f"left out: {task}, seed {seed}", file=sys.stderr)
            continue
        scores = {method: row["normalized_score_mean"] for method, row in by_method.items()}
        groups.append(Group(task, seed, scores, numbers))
    return groups


def _selected(folders: Mapping[str, Path], path: Path) -> dict[str, dict[str, Any]]:
    """Fields of `v2a select` by method; none where it refuses, which it says: no whole episodes."""
    if not path.exists():
        command = [sys.executable, "-m", "v2a_ray.cli.main", "select", *map(str, folders.values()), "--with-source"]
        steps = ["--steps", str(NUM_STEPS), "-o", str(path)]
        subprocess.run(
            [*command, *steps], check=True, stdout=subprocess.DEVNULL, env={"OMP_NUM_THREADS": "1", **os.environ}
        )
    by_folder = {Path(policy["policy"]).name: policy for policy in read_json(path)["policies"]}
    return {method: by_folder[folder.name] for method, folder in folders.items()}


def report(groups: Sequence[Group]) -> str:
    """A table of tasks, and one of what choosing loses, in Markdown."""
    lines = ["| task | seeds | " + " | ".join(CANDIDATES[-1]) + " | chosen of two | chosen of three |"]
    lines.append("| --- " * (len(CANDIDATES[-1]) + 4) + "|")
    for task, members in itertools.groupby(groups, key=lambda group: group.task):
        same = list(members)
        cells = [f"{np.mean([group.scores[method] for group in same]):.1f}" for method in CANDIDATES[-1]]
        for among in CANDIDATES[:2]:
            names = [group.chosen(among, "fitted_q_lower") or "" for group in same]
            score = np.mean([group.scores[name] for group, name in zip(same, names, strict=True)])
            counts = ", ".join(f"{name} {names.count(name)}" for name in among if name in names)
            cells.append(f"{score:.1f} ({counts})")
        lines.append(f"| {task} | {len(same)} | {' | '.join(cells)} |")
    lines += ["", "| chosen among | by | tasks and seeds | lost to the best of them | lost to the better baseline |"]
    lines.append("| --- " * 5 + "|")
    for among, measure in itertools.product(CANDIDATES, MEASURES):
        known = [(group, name) for group in groups if (name := group.chosen(among, measure))]
        if known:
            best = np.mean([max(group.scores[each] for each in among) - group.scores[name] for group, name in known])
            over = np.mean(
                [max(group.scores[each] for each in BASELINES) - group.scores[name] for group, name in known]
            )
            lines.append(f"| {', '.join(among)} | {measure} | {len(known)} | {best:.1f} | {over:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Read, compute what is missing, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweeps", nargs="+", type=Path, metavar="SWEEP_DIR")
    parser.add_argument("--output", type=Path, required=True, help="folder for the outputs of v2a select")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    print(report([group for sweep in given.sweeps for group in read_groups(sweep, given.output)]))


if __name__ == "__main__":
    main()
