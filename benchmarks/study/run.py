"""A map of the study, one cell and one seed at a time, so that there are rows long before its end.

    nohup nice python -m benchmarks.study.run tune_configs/study/map_hopper.yaml data_root=DIR --num-cpus 1 &

A sweep computes all columns before its first policy; a map has days of them. So each label of the axis `cell` and each
of the axis `seed` is a sweep of its own, with one store for all: the first seed of every cell comes before the second
of any. After each the rows so far are written to `benchmarks/study/rows/NAME.parquet`, without the settings, which the
file has. What that file holds whole is not run again: the same command goes on where it stopped, on this machine from
its last checkpoint and on another one from the rows that were committed. Each policy is trained alone, so that a cell
that is run again by itself has the same numbers to the bit.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from v2a_ray.experiments.sweep import with_grid

ROWS = Path(__file__).parent / "rows"
V2A = (sys.executable, "-m", "v2a_ray.cli.main")
KEPT = (
    "axis/cell",
    "axis/method",
    "axis/seed",
    "status",
    "seconds",
    "num_episodes",
    "return_mean",
    "normalized_score_mean",
    "returns",
    "lengths",
    "source_transitions_eligible",
    "data_kept",
)
"""Columns of results.parquet that a row of the study keeps."""
Scores = Mapping[str, NDArray[np.float64]]
"""Of one cell: method to the final normalised scores, by seed."""


def part_sweep(content: dict[str, Any], cell: str, seed: str, methods: Sequence[str] = ()) -> dict[str, Any]:
    """The sweep of one cell of a map with one seed: of the methods that are named, all of the map's if none is."""
    name = f"{content['name']}_{cell.replace(' ', '_')}_{seed}"
    axes = {"cell": [cell], "seed": [seed], **({"method": list(methods)} if methods else {})}
    return with_grid(content, {"name": name, "axes": axes})


def wanted(content: dict[str, Any], axis: str, labels: Sequence[str] | None) -> list[str]:
    """The labels of an axis that are to be run. Ends the program where the sweep has no such label."""
    known = list(content["axes"][axis])
    if unknown := [label for label in labels or [] if label not in known]:
        raise SystemExit(f"{content['name']} has no {axis} {unknown[0]!r}; it has: {'; '.join(known)}")
    return known if labels is None else list(labels)


def is_whole(rows: pa.Table | None, methods: Sequence[str], cell: str, seed: str) -> bool:
    """Whether the rows have a finished policy of every one of the methods of this cell and seed."""
    if rows is None:
        return False
    columns = (rows[name].to_pylist() for name in ("axis/cell", "axis/seed", "axis/method", "status"))
    finished = {
        method for *place, method, status in zip(*columns, strict=True) if (place, status) == ([cell, seed], "finished")
    }
    return finished >= set(methods)


def with_rows_of(rows: pa.Table | None, results: pa.Table) -> pa.Table:
    """The rows, with those of `results` in place of what they had of the same cell, seed and method."""
    new = results.select([name for name in KEPT if name in results.column_names])
    if rows is None:
        return new
    axes = ("axis/cell", "axis/seed", "axis/method")
    replaced = set(zip(*(new[axis].to_pylist() for axis in axes), strict=True))
    places = zip(*(rows[axis].to_pylist() for axis in axes), strict=True)
    kept = rows.filter(pa.array([place not in replaced for place in places], pa.bool_()))
    return pa.concat_tables([kept, new], promote_options="permissive")


def files_of(sweeps: Sequence[str], rows: Path) -> list[Path]:
    """The files in `rows` of those of the sweeps that have one."""
    return [path for sweep in sweeps if (path := rows / f"{sweep}.parquet").exists()]


def finished_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of the finished policies in a file."""
    return [row for row in pq.read_table(path).to_pylist() if row["status"] == "finished"]


def read_scores(paths: Sequence[Path]) -> dict[tuple[str, str], dict[str, float]]:
    """Scores of the finished policies in files of rows: of each cell and seed, by method."""
    scores: dict[tuple[str, str], dict[str, float]] = {}
    for row in (row for path in paths for row in finished_rows(path)):
        scores.setdefault((row["axis/cell"], row["axis/seed"]), {})[row["axis/method"]] = row["normalized_score_mean"]
    return scores


def read_cells(paths: Sequence[Path], methods: Sequence[str], wanted: Sequence[int]) -> dict[str, Scores]:
    """The cells in files of rows, in their order, with the wanted seeds that each of the methods has; at least one."""
    scores = {place: own for place, own in read_scores(paths).items() if own.keys() >= set(methods)}
    cells: dict[str, Scores] = {}
    for cell in dict.fromkeys(cell for cell, _ in scores):
        seeds = [scores[cell, str(seed)] for seed in wanted if (cell, str(seed)) in scores]
        if seeds:
            cells[cell] = {method: np.asarray([own[method] for own in seeds]) for method in methods}
    return cells


def main() -> None:
    """Run what is missing, and write the rows after every part. Ends with 1 if a part's sweep did not end with 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--num-cpus", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="results of the parts, and their store")
    for axis in ("cell", "seed", "method"):
        parser.add_argument(
            f"--{axis}s", nargs="+", metavar=axis.upper(), help="these alone; all of the sweep's without"
        )
    arguments = parser.parse_args()
    content = yaml.safe_load(arguments.sweep.read_text())
    ROWS.mkdir(exist_ok=True)
    folder, path = arguments.runs / content["name"], ROWS / f"{content['name']}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    rows = pq.read_table(path) if path.exists() else None
    failed: list[str] = []
    places = (wanted(content, "seed", arguments.seeds), wanted(content, "cell", arguments.cells))
    methods = wanted(content, "method", arguments.methods)
    chosen = methods if arguments.methods else []
    for seed, cell in itertools.product(*places):
        if is_whole(rows, methods, cell, seed):
            continue
        own = part_sweep(content, cell, seed, chosen)
        run_dir = folder / "_".join([own["name"], *chosen]).replace(" ", "_")
        file = run_dir.with_name(f"{run_dir.name}.yaml")
        file.write_text(yaml.safe_dump(own, sort_keys=False, width=120))
        # Overrides come last: `policies_per_trial=auto` repeats what was trained in batches.
        settings = [f"store={arguments.runs / 'artifacts'}", "policies_per_trial=1", *arguments.overrides]
        command = [*V2A, "sweep", str(file), *settings, "--run-dir", str(run_dir)]
        command += ["--num-cpus", str(arguments.num_cpus)]
        start = time.perf_counter()
        status = subprocess.run(command, check=False).returncode
        print(f"{cell}, seed {seed}: status {status}, {time.perf_counter() - start:.0f} s", flush=True)
        if status != 0:
            failed.append(own["name"])
        if (results := run_dir / "results.parquet").exists():
            rows = with_rows_of(rows, pq.read_table(results))
            pq.write_table(rows, path)
    if failed:
        raise SystemExit(f"{len(failed)} parts did not finish: {', '.join(failed)}")


if __name__ == "__main__":
    main()
