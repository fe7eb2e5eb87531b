"""A sweep with batched policies: the same table, nothing trained twice, a failure affects one policy only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.cli.command import CONFIG, v2a, v2a_here, yaml_folder

SWEEP: dict[str, Any] = {
    "name": "packed",
    "base": "tiny.yaml",
    "settings": {
        "method": "iql_mixed",
        "policy": {"num_steps": 60, "log_interval_steps": 20},
        "evaluation": {"interval_steps": 0},
    },
    "policies_per_trial": "auto",
    "axes": {"policy.data": ["mixed", "target"], "policy.learning_rate": [3e-4, 1e30], "seed": [0, 1]},
}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yaml_folder(tmp_path_factory.mktemp("packs"), tiny=CONFIG, packed=SWEEP)


def rows_of(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The results by their values of the axes."""
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    return {(row["axis/policy.learning_rate"], row["axis/policy.data"], row["axis/seed"]): row for row in rows}


@pytest.mark.slow
def test_packs_train_missing_policies_and_isolate_failures(workspace: Path) -> None:
    one = "axes={policy.learning_rate: [3.0e-4], policy.data: [mixed], seed: [0]}"
    alone = ["sweep", "packed.yaml", one, "policies_per_trial=1", "--run-dir", "alone", "--num-cpus", "1"]
    done = v2a(*alone, cwd=workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    done = v2a("sweep", "packed.yaml", "--run-dir", "packed", "--num-cpus", "1", cwd=workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    # Eight trials in two batches of four, one per `policy.data`: one policy was in the store, four diverge.
    assert len(list((workspace / "packed/tune/packed").glob("trial-*"))) == 2
    assert done.stdout.count("reused   policy") == 1
    rows, before = rows_of(workspace / "packed"), rows_of(workspace / "alone")
    assert len(rows) == 8
    for (rate, _, _), row in rows.items():
        if rate == "0.0003":
            assert row["status"] == "finished" and row["num_episodes"] == 3
        else:
            assert row["status"].startswith("failed: update step 20: ") and "is not finite" in row["status"]
    kept = ("0.0003", "mixed", "0")
    assert rows[kept]["artifact/policy"] == before[kept]["artifact/policy"]
    assert rows[kept]["seconds"] == before[kept]["seconds"]  # not trained again


@pytest.mark.slow
def test_a_policy_whose_data_needs_more_memory_fails_alone(workspace: Path) -> None:
    sizes = {"name": "sizes", "axes": {"policy.data": ["target"], "target.num_transitions": [100, 20_000], "seed": [0]}}
    yaml_folder(workspace, sizes=SWEEP | sizes)
    limited = ["settings.loading.memory_gib=0.004", "--run-dir", "sizes", "--num-cpus", "1"]
    done = v2a("sweep", "sizes.yaml", *limited, cwd=workspace)
    assert len(list((workspace / "sizes/tune/sizes").glob("trial-*"))) == 1, done.stdout + done.stderr
    rows = pq.read_table(workspace / "sizes/results.parquet").to_pylist()
    status = {row["axis/target.num_transitions"]: row["status"] for row in rows}
    assert status["100"] == "finished" and "too little to shuffle 20,000 transitions" in status["20000"]


@pytest.mark.parametrize("value", ["0", "many", "1.5"])
def test_a_wrong_number_of_policies_is_one_message(workspace: Path, value: str) -> None:
    done = v2a_here("sweep", "packed.yaml", f"policies_per_trial={value}", "--run-dir", "none", cwd=workspace)
    assert done.returncode == 2 and "policies_per_trial" in done.stderr
