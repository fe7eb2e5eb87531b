"""A sweep of the study, cell by cell, so that there are rows long before its end.

    nohup nice python -m benchmarks.study.run tune_configs/study/map_hopper.yaml data_root=DIR --num-cpus 1 &

A sweep computes all columns before its first policy; a map has days of them. So each label of the axis `cell` becomes a
sweep of its own, in a folder of its own, with one store for all. The same command goes on where it stopped. After every
cell the rows so far are written to `benchmarks/study/rows/NAME.parquet`, without the settings, which the file has.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

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


def cell_sweep(content: dict[str, Any], label: str) -> dict[str, Any]:
    """The sweep of one cell of a map."""
    name = f"{content['name']}_{label.replace(' ', '_')}"
    return with_grid(content, {"name": name, "axes": {"cell": [label]}})


def gather(results: list[Path]) -> pa.Table:
    """The kept columns of results.parquet of all cells."""
    tables = [pq.read_table(path) for path in results]
    kept = [table.select([name for name in KEPT if name in table.column_names]) for table in tables]
    return pa.concat_tables(kept, promote_options="default")


def main() -> None:
    """Run what is missing, and write the rows after every cell. Ends with 1 if a cell's sweep did not end with 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--num-cpus", type=int, default=1)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="results of the cells, and their store")
    arguments = parser.parse_args()
    content = yaml.safe_load(arguments.sweep.read_text())
    ROWS.mkdir(exist_ok=True)
    folder = arguments.runs / content["name"]
    folder.mkdir(parents=True, exist_ok=True)
    finished: list[Path] = []
    failed: list[str] = []
    for label in content["axes"]["cell"]:
        own = cell_sweep(content, label)
        file, run_dir = folder / f"{own['name']}.yaml", folder / own["name"]
        file.write_text(yaml.safe_dump(own, sort_keys=False, width=120))
        command = [*V2A, "sweep", str(file), *arguments.overrides, f"store={arguments.runs / 'artifacts'}"]
        command += ["--run-dir", str(run_dir), "--num-cpus", str(arguments.num_cpus)]
        start = time.perf_counter()
        status = subprocess.run(command, check=False).returncode
        print(f"{label}: status {status}, {time.perf_counter() - start:.0f} s", flush=True)
        if status != 0:
            failed.append(label)
        if (results := run_dir / "results.parquet").exists():
            finished.append(results)
            pq.write_table(gather(finished), ROWS / f"{content['name']}.parquet")
    if failed:
        raise SystemExit(f"{len(failed)} cells did not finish: {', '.join(failed)}")


if __name__ == "__main__":
    main()
