"""Sweeps small enough for tests: one source, IQL, a handful of update steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from v2a_ray.experiments.sweep import load_sweep
from v2a_ray.orchestration.sweep.run_sweep import run_sweep
from v2a_ray.report.result_tables import TrialResult
from v2a_ray.settings.yaml_files import merge

SETTINGS: dict[str, Any] = {
    "method": "iql_mixed",
    "target": {"domain": "hopper/stock", "behavior": "medium", "num_transitions": 300},
    "sources": [{"domain": "hopper/gravity-0.5", "behavior": "medium", "num_transitions": 300}],
    "alignment": {"num_steps": 5, "width": 16, "batch_size": 16},
    "policy": {"num_steps": 60, "width": 16, "batch_size": 16, "log_interval_steps": 10},
    "evaluation": {"num_episodes": 2, "interval_steps": 10},
}
RATES = {"policy.learning_rate": {"log_uniform": [1e-4, 1e-3]}, "policy.expectile": {"uniform": [0.5, 0.9]}}


def write_sweep(folder: Path, **content: Any) -> Path:
    """A sweep file in `folder`; its settings override `SETTINGS`, and all tests in the folder share its artifacts."""
    settings = merge(SETTINGS | {"store": str(folder / "artifacts")}, content.pop("settings", {}))
    path = folder / f"{content.setdefault('name', 'tiny')}.yaml"
    path.write_text(yaml.safe_dump({"settings": settings, **content}, sort_keys=False))
    return path


def sweep(path: Path, *overrides: str) -> list[TrialResult]:
    """Run the sweep in this process; results go beside its file."""
    folder = path.with_suffix("")
    folder.mkdir(exist_ok=True)
    return run_sweep(load_sweep(path, overrides), folder)


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The table that `sweep` left on disk."""
    rows: list[dict[str, Any]] = pq.read_table(path.with_suffix("") / "results.parquet").to_pylist()
    return rows
