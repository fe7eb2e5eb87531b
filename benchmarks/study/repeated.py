"""Policies of the study that were trained twice: do they have the same returns, to the bit?

    python -m benchmarks.study.repeated

Several sweeps have cells in common, and `rows/again/` has policies of cells that were run a second time for this
question. Where one found the other's policy in its store, the training time of both rows is the same; where the times
differ, the policy was trained again, on another day and often on another machine, from data that were collected again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.study.run import AGAIN, ROWS, finished_rows
from benchmarks.study.suites import FOLDER
from v2a_ray.report.markdown import table_lines


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
    """For every two sweeps: the policies that both have trained, and those with equal returns, in Markdown."""
    found: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for settings, sweep, row in policies(rows, folder):
        found.setdefault(settings, []).append((sweep, row))
    equal: dict[tuple[str, str], list[bool]] = {}
    for same in found.values():
        for (one, first), (other, second) in itertools.combinations(same, 2):
            if first["seconds"] != second["seconds"]:
                equal.setdefault((one, other), []).append(first["returns"] == second["returns"])
    lines = [(*sweeps, str(len(pairs)), str(sum(pairs))) for sweeps, pairs in sorted(equal.items())]
    every = [pair for pairs in equal.values() for pair in pairs]
    head = ("sweep", "and", "policies trained by both", "of which equal to the bit")
    return "\n".join(table_lines(head, [*lines, ("all", "", str(len(every)), str(sum(every)))]))


if __name__ == "__main__":
    print(report())
