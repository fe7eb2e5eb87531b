"""A map of the study, one cell and one seed at a time, so that there are rows long before its end.

    nohup nice python -m benchmarks.study.run tune_configs/study/map_hopper.yaml data_root=DIR --num-cpus 1 &

A sweep computes all columns before its first policy; a map has days of them. So each label of the axis `cell` and each
of the axis `seed` is a sweep of its own, with one store for all: the first seed of every cell comes before the second
of any. After each the rows so far are written to `benchmarks/study/rows/NAME.parquet`, without the settings, which the
file has. What that file holds whole is not run again: the same command goes on where it stopped, on this machine from
its last checkpoint and on another one from the rows that were committed. Each policy is trained alone, so that a cell
that is run again by itself has the same numbers to the bit.

    python -m benchmarks.study.run tune_configs/study/map_hopper.yaml data_root=DIR --again --cells CELL --seeds 0

runs a cell that has rows once more, data and columns and policies, from a store of its own in `RUNS/again`, and says
of every policy whether its returns are those of the rows, to the bit; with status 1 where one differs. The new rows
are written to `benchmarks/study/rows/again/`.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from v2a_ray.experiments.sweep import with_grid
from v2a_ray.processor import processor_name

ROWS = Path(__file__).parent / "rows"
AGAIN = "again"
"""Folder of what was run once more: of rows in ROWS, and of runs and their store."""
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
    "processor",
)
"""Columns of results.parquet that a row of the study keeps, and the processor that computed it; older rows lack it."""
Place = tuple[str, str]
"""A cell and a seed, both as labels."""
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


def read_rows(path: Path) -> pa.Table | None:
    """The rows in a file, None where there is none."""
    return pq.read_table(path) if path.exists() else None


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


def same_returns(rows: pa.Table, again: pa.Table, places: Sequence[Place]) -> Iterator[tuple[bool, str]]:
    """Of every policy in `places` that both have: whether its returns are the same to the bit, and that in words."""
    first, second = (
        {(row["axis/cell"], row["axis/seed"], row["axis/method"]): row for row in table.to_pylist()}
        for table in (rows, again)
    )
    for key, new in second.items():
        if key[:2] not in places or key not in first:
            continue
        old, score = first[key], f"{new['normalized_score_mean']:.2f}"
        if is_same := new["returns"] == old["returns"]:
            found = f"{score}, all {new['num_episodes']} returns the same to the bit"
        else:
            processors = [row.get("processor") or "a processor that is not recorded" for row in (new, old)]
            found = (
                f"{score} on {processors[0]}, and {old['normalized_score_mean']:.2f} in the rows, on {processors[1]}"
            )
        yield is_same, f"{key[0]}, seed {key[1]}, {key[2]}: {found}"


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
    parser.add_argument("--again", action="store_true", help="run what has rows once more, and compare")
    for axis in ("cell", "seed", "method"):
        parser.add_argument(
            f"--{axis}s", nargs="+", metavar=axis.upper(), help="these alone; all of the sweep's without"
        )
    arguments = parser.parse_args()
    content = yaml.safe_load(arguments.sweep.read_text())
    seeds, cells = wanted(content, "seed", arguments.seeds), wanted(content, "cell", arguments.cells)
    methods = wanted(content, "method", arguments.methods)
    first = read_rows(ROWS / f"{content['name']}.parquet")
    places = [
        (cell, seed)
        for seed, cell in itertools.product(seeds, cells)
        if is_whole(first, methods, cell, seed) == arguments.again
    ]
    if arguments.again and not places:
        raise SystemExit(f"no row of {content['name']} has all of these methods: there is nothing to compare with")
    runs, folder = (arguments.runs / AGAIN, ROWS / AGAIN) if arguments.again else (arguments.runs, ROWS)
    rows, failed = run_parts(content, places, methods if arguments.methods else [], runs, folder, arguments)
    all_same = True
    if arguments.again and first is not None and rows is not None:
        for is_same, sentence in same_returns(first, rows, [place for place in places if place not in failed]):
            print(sentence)
            all_same = all_same and is_same
    if failed:
        parts = ", ".join(f"{cell} with seed {seed}" for cell, seed in failed)
        raise SystemExit(f"{len(failed)} parts did not finish: {parts}")
    if not all_same:
        raise SystemExit(1)


def run_parts(
    content: dict[str, Any],
    places: Sequence[Place],
    methods: Sequence[str],
    runs: Path,
    folder: Path,
    arguments: argparse.Namespace,
) -> tuple[pa.Table | None, list[Place]]:
    """Run these methods, or all, of every cell and seed. Returns the rows in `folder`, and the parts that failed.

    `runs` gets results and the store. The rows in `folder` are written after every part.
    """
    path, results = folder / f"{content['name']}.parquet", runs / content["name"]
    folder.mkdir(exist_ok=True)
    results.mkdir(parents=True, exist_ok=True)
    rows, failed = read_rows(path), list[Place]()
    for cell, seed in places:
        own = part_sweep(content, cell, seed, methods)
        run_dir = results / "_".join([own["name"], *methods]).replace(" ", "_")
        file = run_dir.with_name(f"{run_dir.name}.yaml")
        file.write_text(yaml.safe_dump(own, sort_keys=False, width=120))
        # Overrides come last: `policies_per_trial=auto` repeats what was trained in batches.
        settings = [f"store={runs / 'artifacts'}", "policies_per_trial=1", *arguments.overrides]
        command = [*V2A, "sweep", str(file), *settings, "--run-dir", str(run_dir)]
        command += ["--num-cpus", str(arguments.num_cpus)]
        start = time.perf_counter()
        status = subprocess.run(command, check=False).returncode
        print(f"{cell}, seed {seed}: status {status}, {time.perf_counter() - start:.0f} s", flush=True)
        if status != 0:
            failed.append((cell, seed))
        if (found := run_dir / "results.parquet").exists():
            new = pq.read_table(found)
            new = new.append_column("processor", pa.array([processor_name()] * len(new), pa.string()))
            rows = with_rows_of(rows, new)
            pq.write_table(rows, path)
    return rows, failed


if __name__ == "__main__":
    main()
