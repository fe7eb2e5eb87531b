"""Columns and rewards in an experiment: part of a key only when given, and what reads rewards refuses to go without."""

from pathlib import Path
from typing import Any

import pytest

from tests.data.builders import make_table, write_csv
from v2a_ray.data.config import Columns, TargetSpec
from v2a_ray.data.formats.readers import read_table
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.context import Job, preprocessing
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import DataError
from v2a_ray.experiments.experiment import ExperimentConfig

COLUMNS = {"observation": ["observation_*"], "action": "action_*", "terminated": False}


def experiment(folder: Path, method: str = "iql_target", **target: Any) -> ExperimentConfig:
    data = {"domain": "hopper/stock@d4rl", "path": "a.csv"}
    sources = [{**data, "name": "source"}]
    return ExperimentConfig.model_validate(
        {"name": "named", "method": method, "data_root": str(folder), "target": data | target, "sources": sources}
    )


def key(config):
    return make_plan(config)["data/target"].key


def test_columns_and_rewards_renew_a_key_only_when_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(make_table(), tmp_path / "a.csv")
    (tmp_path / "rewards_of_keys.py").write_text("def zero(*rows):\n    return rows[0][:, 0] * 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plain = key(experiment(tmp_path))
    assert key(experiment(tmp_path, columns=None, reward=None)) == plain
    others: list[dict[str, Any]] = [
        {"columns": COLUMNS},
        {"reward": 0.0},
        {"reward": 1.0},
        {"reward": "rewards_of_keys:zero"},
    ]
    assert len({plain, *(key(experiment(tmp_path, **each)) for each in others)}) == 5
    with pytest.raises(DataError, match="reward rewards_of_keys:one: cannot be imported"):
        key(experiment(tmp_path, reward="rewards_of_keys:one"))


def test_columns_need_a_file() -> None:
    with pytest.raises(ValueError, match="columns, reward and action_bounds need a path"):
        TargetSpec(domain="hopper", behavior="medium", num_transitions=10, columns=Columns(action="a"))


@pytest.mark.parametrize(
    "method, refuses", [("iql_target", True), ("bc_target", False), ("bc_mixed", False), ("v2a_supported", True)]
)
@pytest.mark.parametrize("role", ["source", "target"])
def test_methods_that_read_rewards_refuse_tables_without(method, refuses, role, tmp_path: Path) -> None:
    write_csv(make_table(), tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text((tmp_path / "a.csv").read_text().replace("reward", "pay"))
    table, findings = read_table(tmp_path / "a.csv")
    inputs = {name: tmp_path / name for name in ("source", "target")}
    for name, folder in inputs.items():
        write_table(table, folder / "table", robot="hopper", findings=findings if name == role else [])
    config = experiment(tmp_path, method)
    job = Job(config, inputs, tmp_path / "output", tmp_path / "work")
    if refuses:
        with pytest.raises(DataError, match=rf"a\.csv: has no rewards, which method {method} needs\n.*reward: 0\.0"):
            preprocessing(job)
    else:
        assert preprocessing(job).reward_scale > 0
