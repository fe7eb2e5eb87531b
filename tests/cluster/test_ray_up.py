"""The files for `ray up`, against Ray's own schema and checks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

FOLDER = Path(__file__).parents[2] / "cluster"
every_provider = pytest.mark.parametrize("provider", ["aws", "gcp", "ssh"])


def _config(provider: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((FOLDER / provider / "cluster.yaml").read_text())
    return config


@every_provider
def test_ray_accepts_the_file(provider: str) -> None:
    validate_config(prepare_config(_config(provider)))


@pytest.mark.parametrize(
    ("key", "value"), [("idle_timeout", 5), ("max_workers", "12"), ("setup_commands", "pip install x")]
)
def test_rays_check_sees_what_is_wrong(key: str, value: object) -> None:
    config = _config("aws") | {key: value}

    with pytest.raises(Exception, match=r"idle_timeout|is not of type"):
        validate_config(config | {"cluster_synced_files": []})


@every_provider
def test_every_node_asks_for_the_token_and_gets_it_as_a_file(provider: str) -> None:
    config = prepare_config(_config(provider))
    starts = [
        command
        for command in config["head_start_ray_commands"] + config["worker_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in command for command in config["setup_commands"])


@every_provider
def test_the_dashboard_stays_on_loopback(provider: str) -> None:
    config = prepare_config(_config(provider))
    assert not [command for command in config["head_start_ray_commands"] if "--dashboard-host" in command]
    assert not [command for command in config["head_start_ray_commands"] if "--include-dashboard=false" in command]


@every_provider
def test_all_nodes_share_the_folder_of_the_artifacts(provider: str) -> None:
    config = prepare_config(_config(provider))
    assert any("/mnt/v2a" in command for command in config["initialization_commands"])
    for commands in (config["head_start_ray_commands"], config["worker_start_ray_commands"]):
        assert "V2A_STORE=/mnt/v2a/artifacts" in commands[-1]


@pytest.mark.parametrize("provider", ["aws", "gcp"])
def test_workers_come_when_needed_and_go_when_idle(provider: str) -> None:
    config = prepare_config(_config(provider))
    nodes = config["available_node_types"]
    assert config["head_node_type"] == "head"
    assert nodes["head"]["max_workers"] == 0
    assert nodes["head"]["resources"]["CPU"] == 0
    workers = {name: node for name, node in nodes.items() if name != "head"}
    assert set(workers) == {"cpu", "gpu"}
    assert all(node["min_workers"] == 0 for node in workers.values())
    assert config["max_workers"] == sum(node["max_workers"] for node in workers.values())
    assert 0 < config["idle_timeout_minutes"] <= 10


def test_all_machines_of_the_list_take_part() -> None:
    (node,) = prepare_config(_config("ssh"))["available_node_types"].values()
    assert node["min_workers"] == node["max_workers"] == 2


def test_nodes_are_set_up_alike_everywhere() -> None:
    configs = [_config(provider) for provider in ("aws", "gcp", "ssh")]
    for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands", "file_mounts"):
        first, *others = (copy.deepcopy(config[key]) for config in configs)
        assert all(other == first for other in others), key
