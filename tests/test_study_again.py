"""Cells of the study that are run once more, and compared with their rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from benchmarks.study import run
from v2a_ray.processor import processor_name

ROOT = Path(__file__).parents[1]


def test_policies_run_again_are_compared_by_their_returns() -> None:
    def row(method: str, returns: list[float], cell: str = "a") -> dict[str, object]:
        place = {"axis/cell": cell, "axis/seed": "0", "axis/method": method}
        numbers = {"num_episodes": len(returns), "normalized_score_mean": float(np.mean(returns))}
        return {**place, "returns": json.dumps(returns), **numbers}

    rounding = float(np.nextafter(2.0, 3.0))
    first = pa.Table.from_pylist([row("v2a", [1.0, 2.0]), row("otdf", [1.0, 2.0]), row("igdf", [5.0])])
    again = [
        row("v2a", [1.0, 2.0]),
        row("otdf", [1.0, rounding]),
        row("dvdf", [1.0]),
        row("igdf", [4.0], "b"),
    ]
    second = pa.Table.from_pylist([{**policy, "processor": "here"} for policy in again])
    found = list(run.same_returns(first, second, [("a", "0")]))
    assert [is_same for is_same, _ in found] == [True, False]
    assert "v2a: 1.50, all 2 returns the same" in found[0][1]
    assert "otdf: 1.50 on here, and 1.50 in the rows, on a processor that is not recorded" in found[1][1]


@pytest.mark.slow  # Three sweeps of two policies, each with a Ray of its own.
def test_cell_is_run_again_from_an_empty_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = yaml.safe_load((ROOT / "tune_configs/study/map_hopper.yaml").read_text())
    cell, recipe = next(iter(whole["axes"]["cell"].items()))
    recipe["target"] = {"domain": recipe["target"]["domain"]}
    for data in (recipe["target"], *recipe["sources"]):
        data |= {"behavior": "random", "num_transitions": 300}
    few = {"policy": {"num_steps": 20}, "evaluation": {"num_episodes": 2, "interval_steps": 0}}
    axes = {"cell": {cell: recipe}, "method": ["iql_target", "iql_mixed"], "seed": {"0": whole["axes"]["seed"]["0"]}}
    (tmp_path / "few.yaml").write_text(yaml.safe_dump({"name": "few", "settings": few, "axes": axes}))
    monkeypatch.setattr(run, "ROWS", tmp_path / "rows")

    def study(*options: str) -> str:
        monkeypatch.setattr(
            sys, "argv", ["run", str(tmp_path / "few.yaml"), "--runs", str(tmp_path / "runs"), *options]
        )
        run.main()
        return capfd.readouterr().out

    with pytest.raises(SystemExit, match="nothing to compare with"):
        study("--again")
    study()
    path = tmp_path / "rows/few.parquet"
    first = pq.read_table(path)
    assert first["processor"].to_pylist() == [processor_name()] * 2
    assert study("--again").count("all 2 returns the same to the bit") == 2
    assert pq.read_table(path).equals(first)
    again = pq.read_table(tmp_path / "rows/again/few.parquet")
    assert again["returns"] == first["returns"] and again["seconds"] != first["seconds"]
    other = [{**row, "returns": json.dumps([0.0, *json.loads(row["returns"])[1:]])} for row in first.to_pylist()]
    pq.write_table(pa.Table.from_pylist(other), path)
    with pytest.raises(SystemExit) as ended:
        study("--again")
    assert ended.value.code == 1 and capfd.readouterr().out.count("in the rows") == 2
