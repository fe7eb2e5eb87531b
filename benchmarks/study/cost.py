"""What the study took: the seconds of every artifact in the stores of its sweeps.

    python -m benchmarks.study.cost STORE [STORE ...]

An artifact's record says how long its stage ran, on one thread. Which sweep it belongs to is the longest name of a file
in `tune_configs/study/` with which its experiment's name begins; others are left out. Artifacts are counted once,
however many stores have them. The rows go to `benchmarks/study/rows/cost.parquet`, beside those that are there: a
machine that is replaced takes its store with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.study.run import ROWS
from benchmarks.study.suites import FOLDER
from v2a_ray.engine.store import RECORD
from v2a_ray.files import read_json
from v2a_ray.report.markdown import table_lines

COST = ROWS / "cost.parquet"


def cost_of(store: Path, sweeps: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each artifact in a store that one of the sweeps made."""
    rows = []
    for path in sorted(store.glob(f"*/*/{RECORD}")):
        record = read_json(path)
        name = record.get("config", {}).get("name", "")
        own = [sweep for sweep in sweeps if name == sweep or name.startswith(f"{sweep}_")]
        if own and record["seconds"] is not None:
            place = {"key": record["key"], "stage": record["stage"], "sweep": max(own, key=len)}
            rows.append({**place, "seconds": record["seconds"]})
    return rows


def read_rows(path: Path = COST) -> list[dict[str, Any]]:
    """The artifacts that were counted."""
    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist() if path.exists() else []
    return rows


def report(rows: Sequence[Mapping[str, Any]]) -> str:
    """Hours by sweep, in Markdown."""

    def line(name: str, own: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        policies = [row["seconds"] for row in own if row["stage"] == "policy"]
        others = sum(row["seconds"] for row in own) - sum(policies)
        return name, str(len(policies)), f"{sum(policies) / 3600:.1f}", f"{others / 3600:.1f}"

    sweeps = sorted({row["sweep"] for row in rows})
    lines = [line(sweep, [row for row in rows if row["sweep"] == sweep]) for sweep in sweeps]
    head = ("sweep", "policies", "hours of policies", "hours of columns and data")
    return "\n".join(table_lines(head, [*lines, line("all", rows)]))


def main() -> None:
    """Read the stores, write the rows and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE")
    given = parser.parse_args()
    sweeps = [file.stem for file in FOLDER.glob("*.yaml")]
    new = (row for store in given.stores for row in cost_of(store, sweeps))
    found = {row["key"]: row for row in [*read_rows(), *new]}
    rows = [found[key] for key in sorted(found)]
    pq.write_table(pa.Table.from_pylist(rows), COST)
    print(report(rows))


if __name__ == "__main__":
    main()
