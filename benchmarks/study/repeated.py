"""Policies of the study that were trained twice: do they have the same returns, to the bit?

    python -m benchmarks.study.repeated

Several sweeps have cells in common, and `rows/again/` has policies of cells that were run a second time for this
question. Where one found the other's policy in its store, the training time of both rows is the same; where the times
differ, the policy was trained again, on another day and often on another machine, from data that were collected again.
Rows that name no processor are older than those that do, and from other kinds of it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.study.run import AGAIN, ROWS, finished_rows
from benchmarks.study.suites import FOLDER
from v2a_ray.report.markdown import table_lines

OTHER_PROCESSOR = """On another kind of processor the same command has other numbers. It rounds otherwise, and an
expert's long roll-outs go apart, so that its data are others; then training does. It is as good as another seed. Three
cells of Hopper's map were run there, seed 0. Two have what they had. In the third, a thousand rows of an expert beside
a far expert, the target's mean return is 3390.8 instead of 3389.3, and our default has 39 points instead of 86, the
target alone 38 instead of 53. On that machine and with its data another library of matrix products
(`V2A_MATRIX_PRODUCTS=mkl`) makes them 40 and 42: it is the data that matter there.
"""


def policies(rows: Path, folder: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Of every finished policy: its settings in one line, the name of its sweep, and its row."""
    for path, again in itertools.product(sorted(folder.glob("*.yaml")), (False, True)):
        file = rows / (AGAIN if again else ".") / f"{path.stem}.parquet"
        if not file.exists():
            continue
        content = yaml.safe_load(path.read_text())
        axes, name = content["axes"], f"{path.stem}, run again" if again else path.stem
        for row in finished_rows(file):
            labels = {axis: row.get(f"axis/{axis}") for axis in axes}
            if all(label in axes[axis] for axis, label in labels.items()):
                # An axis of plain values sets the setting of its name.
                chosen = [
                    axes[axis][label] if isinstance(axes[axis], Mapping) else {axis: label}
                    for axis, label in sorted(labels.items())
                ]
                yield json.dumps([content["settings"], *chosen], sort_keys=True), name, row


def report(rows: Path = ROWS, folder: Path = FOLDER) -> str:
    """Policies that were trained twice, in Markdown: by sweep, and on two kinds of processor by method."""
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for settings, sweep, row in policies(rows, folder):
        found.setdefault(settings, []).append((sweep, row))
    equal: dict[tuple[str, str], list[bool]] = {}
    moved: dict[str, list[tuple[bool, float]]] = {}
    for same in found.values():
        for (one, first), (other, second) in itertools.combinations(same, 2):
            is_equal = first["returns"] == second["returns"]
            if first.get("processor") != second.get("processor"):
                difference = abs(first["normalized_score_mean"] - second["normalized_score_mean"])
                moved.setdefault(first["axis/method"], []).append((is_equal, difference))
            elif first["seconds"] != second["seconds"]:
                equal.setdefault((one, other), []).append(is_equal)
    lines = [(*sweeps, str(len(pairs)), str(sum(pairs))) for sweeps, pairs in sorted(equal.items())]
    every = [pair for pairs in equal.values() for pair in pairs]
    head = ("sweep", "and", "policies trained by both", "of which equal to the bit")
    table = table_lines(head, [*lines, ("all", "", str(len(every)), str(sum(every)))])
    return "\n".join([*table, *(["", OTHER_PROCESSOR, *moved_table(moved)] if moved else [])])


def moved_table(moved: Mapping[str, Sequence[tuple[bool, float]]]) -> list[str]:
    """Of policies trained on two kinds of processor: how many are equal, and how far their scores are apart."""
    lines = []
    for method, pairs in moved.items():
        differences = [difference for _, difference in pairs]
        equal = sum(is_equal for is_equal, _ in pairs)
        apart = (f"{np.mean(differences):.1f}", f"{max(differences):.1f}")
        lines.append((method, str(len(pairs)), str(equal), *apart))
    return table_lines(("method", "policies", "equal to the bit", "scores differ by", "at most by"), lines)


if __name__ == "__main__":
    print(report())
