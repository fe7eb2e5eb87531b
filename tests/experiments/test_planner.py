"""Trials that share their data share its plan, and are planned as if each were alone."""

from __future__ import annotations

from pathlib import Path

import yaml

from v2a_ray.engine.plan import make_plan
from v2a_ray.experiments.sweep import load_sweep

DATA = {"behavior": "medium", "num_transitions": 300}
SETTINGS = {
    "target": DATA | {"domain": "hopper/stock"},
    "sources": [DATA | {"domain": "hopper/gravity-0.5"}],
}


def test_plans_are_shared_where_the_data_are_and_right_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    mixes = {"near": {"sources": {0: {"domain": "hopper/otdf-kinematic"}}}, "far": {}}
    axes = {"mix": mixes, "method": ["igdf", "dvdf"], "seed": [0, 1]}
    path.write_text(
        yaml.safe_dump({"name": "grid", "settings": SETTINGS | {"store": "s"}, "axes": axes}, sort_keys=False)
    )
    trials = load_sweep(path).trials
    assert len(trials) == 8 and all(trial.plan == make_plan(trial.config) for trial in trials)
    near, far = trials[:4], trials[4:]
    assert {id(trial.plan["source"]) for trial in near} == {id(near[0].plan["source"])}
    assert {id(trial.config.sources) for trial in far} == {id(far[0].config.sources)}
    assert near[0].plan["source"].key != far[0].plan["source"].key
    assert len({trial.plan["policy"].key for trial in trials}) == 8


def test_plans_differ_where_other_episodes_of_a_real_target_are_held_out(tmp_path: Path) -> None:
    (tmp_path / "target.hdf5").write_bytes(b"its bytes are all that a plan needs")
    target = {"domain": "real", "observation_dim": 3, "action_dim": 2, "path": "target.hdf5"}
    places = {"store": str(tmp_path / "store"), "data_root": str(tmp_path)}
    settings = {"method": "iql_target", "target": target, "sources": [], **places}
    path = tmp_path / "grid.yaml"
    path.write_text(yaml.safe_dump({"name": "grid", "settings": settings, "axes": {"offline.seed": [0, 1]}}))
    trials = load_sweep(path).trials
    assert all(trial.plan == make_plan(trial.config) for trial in trials)
    assert len({trial.plan["data/target"].key for trial in trials}) == 2
