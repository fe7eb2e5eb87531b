"""Trials whose policies are trained by several workers of Ray Train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.orchestration.tiny_sweeps import rows_of, sweep, write_sweep
from v2a_ray.errors import ConfigError


@pytest.mark.slow
def test_trials_of_two_workers_on_two_cores_take_turns_and_end(ray_cluster: None, tmp_path: Path) -> None:
    """Drivers reserve no core: otherwise two drivers would wait for workers that can never start."""
    path = write_sweep(tmp_path, settings={"policy": {"num_workers": 2}}, axes={"seed": [0, 1]})
    sweep(path)
    rows = rows_of(path)
    assert [row["status"] for row in rows] == ["finished", "finished"]
    assert {row["config/policy.num_workers"] for row in rows} == {2}
    # The same sweep again trains nothing.
    times = [row["seconds"] for row in rows]
    sweep(path)
    assert [row["seconds"] for row in rows_of(path)] == times


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"axes": {"policy.num_workers": [1, 2]}}, "trials of one sweep need equal numbers of workers, and have 1, 2"),
        (
            {"axes": {"seed": [0, 1]}, "scheduler": {"kind": "asha"}, "settings": {"policy": {"num_workers": 2}}},
            "scheduler.kind=asha ends trials of one process",
        ),
        (
            {"axes": {"seed": [0]}, "settings": {"policy": {"num_workers": 16}}},
            "16 processes ask for 1 CPU each, and the cluster has room for 2",
        ),
    ],
)
def test_unsupported_settings_of_parallel_trials_are_refused(
    ray_cluster: None, tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(write_sweep(tmp_path, **content))
