"""How much of the study was run: cells, seeds and policies of every sweep, by its file and its rows."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq
import yaml

from benchmarks.study.run import finished_rows
from benchmarks.study.suites import FOLDER
from v2a_ray.report.markdown import table_lines

PARTS = {
    "A": ("baselines_", "map_"),
    "B": ("where_z_",),
    "C": ("published_",),
    "D": ("default_", "parts_", "otdf_", "supported_", "choice_", "learners_"),
    "E": ("real",),
}
"""How the names of a part's sweeps begin."""


def report(rows: Path, folder: Path = FOLDER) -> list[str]:
    """A row for each sweep file in `folder`, by part: what of it the files in `rows` have, as a table in Markdown."""
    lines = []
    for part, starts in PARTS.items():
        for path in sorted(path for path in folder.glob("*.yaml") if path.name.startswith(starts)):
            axes = yaml.safe_load(path.read_text())["axes"]
            sizes = {axis: len(values) for axis, values in axes.items()}
            cells = math.prod(size for axis, size in sizes.items() if axis not in ("method", "seed"))
            places = {place for place in _finished(path.stem, rows) if place[2] in axes["method"]}
            begun = {cell for cell, _, _ in places}
            whole = [cell for cell in begun if len({seed for own, seed, _ in places if own == cell}) == sizes["seed"]]
            policies = f"{len(places)} of {math.prod(sizes.values())}"
            every = f"{len(whole)} of {cells} ({sizes['seed']})"
            lines.append((part, path.stem, f"{len(begun)} of {cells}", every, policies))
    return table_lines(("part", "sweep", "cells with a seed", "cells with all (seeds)", "policies"), lines)


def _finished(sweep: str, rows: Path) -> set[tuple[str, str, str]]:
    """Cell, seed and method of a sweep's finished policies."""
    if (path := rows / f"{sweep}.parquet").exists():
        axes = ("axis/cell", "axis/seed", "axis/method")
        return {tuple(row.get(axis, "-") for axis in axes) for row in finished_rows(path)}
    # Sweeps whose policies were only chosen from have no rows but those of the choice.
    path = rows / f"selection_{sweep}.parquet"
    table = pq.read_table(path).to_pylist() if path.exists() else []
    return {(row["task"], row["seed"], row["method"]) for row in table}
