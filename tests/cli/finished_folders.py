"""Folders as runs and sweeps leave them, made without training: what reports read, with scores of one's choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.sweep import trial_folder_name
from v2a_ray.report.curves import SCORE

PART = {"domain": "hopper/stock", "behavior": "medium", "num_transitions": 10}


def write_result(folder: Path, labels: dict[str, str], score: float, method: str | None = None, **policy: Any) -> None:
    """A finished trial with a learning curve that ends at `score`; `policy` are settings of that section."""
    config = ExperimentConfig.model_validate(
        {"name": "test", "method": method or labels["method"], "seed": int(labels["seed"])}
        | {"target": PART, "sources": [PART], "policy": {"num_steps": 100} | policy}
    )
    folder.mkdir(parents=True)
    result: dict[str, Any] = {
        "method": config.method,
        "config": config.model_dump(mode="json"),
        "stages": [
            {"name": "data/target", "seconds": 2.5, "cached": True, "artifact": "/store/data/1"},
            {"name": "policy", "seconds": 4.0, "cached": False, "artifact": f"/store/policy/{folder.name}"},
        ],
        "target": {"normalized_score_mean": score, "normalized_score_std": 1.0, "return_mean": 30 * score}
        | {"return_std": 2.0, "num_episodes": 10},
        "files": {},
        "versions": {"torch": "2.8.0"},
        "trial": {"labels": labels, "task": labels["mix"], "method": labels["method"]},
    }
    curve = {"step": np.arange(0, 101, 10), SCORE: np.linspace(0, score, 11)}
    pq.write_table(pa.table(curve), folder / "curves.parquet")
    (folder / "result.json").write_text(json.dumps(result))


def write_sweep_folder(folder: Path, scores: dict[str, dict[str, list[float]]], failed: tuple[str, ...] = ()) -> Path:
    """A sweep with scores by method and task, one per seed, and trials of the first method that failed, by reason.

    Methods that are not registered are labels of `iql_mixed`.
    """
    rows = []
    for method, by_task in scores.items():
        for task, values in by_task.items():
            for seed, score in enumerate(values):
                labels = {"mix": task, "method": method, "seed": str(seed)}
                write_result(folder / "trials" / trial_folder_name(labels, "test"), labels, score, "iql_mixed")
                rows.append(_row(labels, "finished"))
    first = next(iter(scores))
    task = next(iter(scores[first]))
    rows += [
        _row({"mix": task, "method": first, "seed": str(90 + number)}, f"failed: {reason}")
        for number, reason in enumerate(failed)
    ]
    (folder / "sweep.yaml").write_text("sweep: {}\n")
    pq.write_table(pa.Table.from_pylist(rows), folder / "results.parquet")
    return folder


def _row(labels: dict[str, str], status: str) -> dict[str, Any]:
    return {
        **{f"axis/{name}": label for name, label in labels.items()},
        "task": labels["mix"],
        "method": labels["method"],
        "method_label": labels["method"],
        "status": status,
        "config/name": "test",
        "config/seed": int(labels["seed"]),
    }
