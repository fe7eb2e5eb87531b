"""Robots of plugin files: every process that simulates or checks one knows it, and its file is in the keys."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.command import v2a, v2a_here
from tests.data.builders import arrays_of, write_hdf5
from tests.data.test_ingest import write_sources
from tests.data.test_mixture import hopper_table
from tests.orchestration.tiny_sweeps import RATES
from v2a_ray.data.formats.location import locate
from v2a_ray.data.mixing.mixture import CollectionRequest
from v2a_ray.domains import Domain, parse_domain, robot_spec
from v2a_ray.domains.robot_spec import robot
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import ConfigError
from v2a_ray.experiments import plugins
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.plugins import load_files, load_installed
from v2a_ray.experiments.reading import load_experiment
from v2a_ray.experiments.sweep import load_sweep

ROBOT = """
from dataclasses import replace
from v2a_ray.domains.robot_spec import register_robot, robot

def stands(positions, velocities):
    return positions[:, 1] > 0.7

task = replace(robot("hopper").task, is_healthy=stands)
register_robot(replace(robot("hopper"), name="{name}", reset_noise_scale=0.005, task=task))
"""


@pytest.fixture(autouse=True)
def leave_nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    for register in ("_ROBOTS", "_MODULES"):
        monkeypatch.setattr(robot_spec, register, dict(getattr(robot_spec, register)))
    monkeypatch.setattr(plugins, "_loaded", {})


def plugin_robot(folder: Path, name: str) -> Domain:
    """A robot of a plugin file. Each test has its own, for worker processes keep what they loaded for another test."""
    (folder / "mine.py").write_text(ROBOT.format(name=name))
    load_files([str(folder / "mine.py")])
    return parse_domain(name)


def experiment_of(folder: Path, name: str, plugin: str = "mine.py") -> Path:
    data = {"behavior": "random", "num_transitions": 120}
    content: dict[str, Any] = {"name": "x", "method": "iql_mixed", "plugins": [plugin]}
    content |= {"target": data | {"domain": name}, "sources": [data | {"domain": f"{name}/gravity-0.5"}]}
    content |= {"policy": {"num_steps": 20, "width": 8, "batch_size": 16}}
    content |= {"evaluation": {"num_episodes": 1, "interval_steps": 0}}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(content))
    return folder / "experiment.yaml"


def test_a_run_collects_trains_and_evaluates(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ROBOT.format(name="runs"))
    done = v2a_here("run", str(experiment_of(tmp_path, "runs")), "--run-dir", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "score unknown (the domain has no reference returns)" in " ".join(done.stdout.split())


def test_actors_collect(ray_cluster: None, tmp_path: Path) -> None:
    from v2a_ray.orchestration.data.collect import collect

    domain = plugin_robot(tmp_path, "collects")
    (table,) = collect([CollectionRequest(domain.name, domain.name, "random", 10, 0, 0.1)], num_actors=1)
    assert table.num_transitions == 10


def test_ray_data_combines(ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from v2a_ray.orchestration.data import ingest

    monkeypatch.setattr(ingest, "ONE_PROCESS_BYTES", 0)
    domain = plugin_robot(tmp_path, "combines")
    (source,) = write_sources(tmp_path, {"near": hopper_table((5, 6))})
    manifest = ingest.ingest([replace(source, domain=domain.name)], tmp_path / "all", robot=domain.robot_spec)
    assert manifest["num_transitions"] == 11


@pytest.mark.slow
def test_actors_train_behaviors(ray_cluster: None, tmp_path: Path) -> None:
    from v2a_ray.orchestration.rllib.behavior_training import train_behavior
    from v2a_ray.orchestration.rllib.ppo import PPOSettings

    settings = PPOSettings(train_batch_steps=64, minibatch_steps=64, num_epochs=1)
    domain = plugin_robot(tmp_path, "trains")
    folder = train_behavior(domain, tmp_path / "out", 64, settings=settings, num_environment_runners=1)
    assert (folder / "expert.safetensors").is_file()


def test_tasks_convert(ray_cluster: None, tmp_path: Path) -> None:
    from v2a_ray.orchestration.data.convert import convert_hdf5

    domain = plugin_robot(tmp_path, "converts")
    location = locate(write_hdf5(tmp_path / "a.hdf5", arrays_of(hopper_table((120, 130)))))
    manifest = convert_hdf5(location, tmp_path / "many", domain=domain, name="near", rows_per_slice=120)
    assert manifest["num_transitions"] == 250


def test_every_command_knows_robots_of_the_environment_variable(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ROBOT.format(name="drawn"))
    command = ("domains", "render", "drawn/gravity-0.5", "-o", "drawn.png")
    done = v2a(*command, cwd=tmp_path, env=os.environ | {"V2A_PLUGINS": "mine.py"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drawn.png").is_file()


@pytest.mark.slow
def test_actors_know_robots_of_packages(tmp_path: Path) -> None:
    (tmp_path / "site" / "mine-1.0.dist-info").mkdir(parents=True)
    (tmp_path / "site" / "mine.py").write_text(ROBOT.format(name="packed").replace("register_robot(re", "ROBOT = (re"))
    (tmp_path / "site" / "mine-1.0.dist-info" / "METADATA").write_text("Name: mine\nVersion: 1.0\n")
    entry = "[v2a_ray.robots]\npacked = mine:ROBOT\n"
    (tmp_path / "site" / "mine-1.0.dist-info" / "entry_points.txt").write_text(entry)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'site'}:{Path(__file__).parents[2]}"}
    command = ("data", "collect", "--domain", "packed", "--behavior", "random", "--num-transitions", "20", "-o", "out")
    done = v2a(*command, "--num-actors", "1", cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr


def test_the_file_of_a_finished_run_may_lie_elsewhere_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "now").mkdir()
    (tmp_path / "now" / "moved.py").write_text(ROBOT.format(name="moves"))
    raw = yaml.safe_load(experiment_of(tmp_path, "moves", str(tmp_path / "then" / "moved.py")).read_text())
    with pytest.raises(ConfigError, match=r"moved.py: was not loaded(.|\n)*if you trust it, put V2A_PLUGINS="):
        ExperimentConfig.model_validate(raw)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("V2A_PLUGINS", "now/moved.py")
    load_installed.__wrapped__()
    config = ExperimentConfig.model_validate(raw)
    assert pickle.loads(pickle.dumps(config)) == config
    assert make_plan(config).keys() >= {"data/target", "policy"}


def test_a_changed_robot_renews_what_it_makes(tmp_path: Path) -> None:
    def keys() -> dict[str, str]:
        return {name: node.key for name, node in make_plan(load_experiment(experiment)).items()}

    experiment, file = experiment_of(tmp_path, "changes"), tmp_path / "mine.py"
    file.write_text(ROBOT.format(name="changes"))
    before = keys()
    assert keys() == before
    file.write_text(file.read_text().replace("0.005", "0.006"))
    assert not set(before.values()) & set(keys().values())
    assert robot("changes").reset_noise_scale == 0.006


def test_a_search_does_not_rank_by_a_score_that_a_robot_has_not(tmp_path: Path) -> None:
    plugin_robot(tmp_path, "searched")
    experiment_of(tmp_path, "searched")
    search: dict[str, Any] = {"num_trials": 2, "space": RATES}
    content = {"name": "search", "base": "experiment.yaml", "search": search}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"searched has no references\n  try: {return_mean: max}, or give it"):
        load_sweep(tmp_path / "search.yaml")
    search["objectives"] = {"return_mean": "max"}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(content))
    assert load_sweep(tmp_path / "search.yaml").trials


def test_a_plugin_cannot_take_the_name_of_a_robot_of_ours(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ROBOT.format(name="hopper"))
    with pytest.raises(ConfigError, match=r"robot 'hopper' is there already, in v2a_ray\.domains.robots\.hopper"):
        load_experiment(experiment_of(tmp_path, "hopper"))
    assert parse_domain("hopper").identity == "hopper/stock@d4rl"
