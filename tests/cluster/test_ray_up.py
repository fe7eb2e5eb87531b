"""The files for `ray up`, against Ray's own schema and checks."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import boto3
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
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


MINE = "198.51.100.7/32"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """An emulated EC2 in the region of the cluster's file; Ray keeps its key pair in an empty home folder."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        _forget_clients()
        yield boto3.client("ec2", region_name=_config("aws")["provider"]["region"])
    _forget_clients()


def _forget_clients() -> None:
    """Ray keeps its clients, which belong to one emulation."""
    from ray.autoscaler._private.aws import utils

    for cached in (utils.resource_cache, utils.client_cache):
        cached.cache_clear()


def _group_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("security_group", FOLDER / "aws" / "security_group.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _bootstrapped(group: str | None) -> dict[str, Any]:
    """The file as `ray up` completes it, with this group filled in, or without any."""
    config = prepare_config(_config("aws"))
    # Ray would make one, and wait a quarter of a minute until it is known everywhere.
    config["available_node_types"]["head"]["node_config"]["IamInstanceProfile"] = {"Name": "mine"}
    for node in config["available_node_types"].values():
        del node["node_config"]["SecurityGroupIds"]
        if group:
            node["node_config"]["SecurityGroupIds"] = [group]
    completed: dict[str, Any] = bootstrap_aws(config)
    return completed


def _open_to_the_world(ec2: Any) -> list[str]:
    """Names of the groups that let the whole internet in."""
    return [
        group["GroupName"]
        for group in ec2.describe_security_groups()["SecurityGroups"]
        for rule in group["IpPermissions"]
        if any(each["CidrIp"] == "0.0.0.0/0" for each in rule.get("IpRanges", []))
    ]


def test_every_aws_node_names_the_group_to_be_made() -> None:
    groups = [node["node_config"]["SecurityGroupIds"] for node in _config("aws")["available_node_types"].values()]
    assert groups == [["sg-CHANGE-ME"]] * 3


def test_ray_opens_nothing_to_the_world_in_the_group_that_is_made_beforehand(
    aws: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--region", _config("aws")["provider"]["region"], "--ssh-from", MINE]
    assert _group_script().main(words) == _group_script().main(words) == 0
    first, again = capsys.readouterr().out.split()
    assert first == again, "the second time completes the group of the first"

    nodes = _bootstrapped(first)["available_node_types"].values()

    assert [node["node_config"]["SecurityGroupIds"] for node in nodes] == [[first]] * 3
    assert _open_to_the_world(aws) == []
    (group,) = aws.describe_security_groups(GroupIds=[first])["SecurityGroups"]
    ssh, between = sorted(group["IpPermissions"], key=lambda rule: -len(rule["IpRanges"]))
    assert (ssh["FromPort"], ssh["ToPort"], ssh["IpRanges"][0]["CidrIp"]) == (22, 22, MINE)
    assert [pair["GroupId"] for pair in between["UserIdGroupPairs"]] == [first]


def test_ray_would_open_a_group_of_its_own_to_the_world(aws: Any) -> None:
    _bootstrapped(None)
    assert _open_to_the_world(aws) == ["ray-autoscaler-v2a"]


def test_the_whole_internet_is_refused(aws: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        _group_script().main(["--region", "us-west-2", "--ssh-from", "0.0.0.0/0"])
    assert "the whole internet" in capsys.readouterr().err


def test_ray_leaves_the_gcp_network_that_the_file_names(monkeypatch: pytest.MonkeyPatch) -> None:
    # Google's client, which Ray's module imports; this function gets one from its caller.
    for name in (
        "google_auth_httplib2",
        "googleapiclient",
        "googleapiclient.discovery",
        "googleapiclient.errors",
        "httplib2",
    ):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    from ray.autoscaler._private.gcp.config import _configure_subnet

    config = prepare_config(_config("gcp"))

    class Project:
        """Lists Google's default network, as a project has it."""

        def subnetworks(self) -> Project:
            return self

        def list(self, **_: str) -> Project:
            return self

        def execute(self) -> dict[str, Any]:
            return {"items": [{"selfLink": "projects/p/regions/r/subnetworks/default"}]}

    def networks(config: dict[str, Any]) -> list[str]:
        nodes = _configure_subnet(config, Project())["available_node_types"].values()
        return [interface["subnetwork"] for node in nodes for interface in node["node_config"]["networkInterfaces"]]

    assert networks(config) == ["projects/CHANGE-ME-project/regions/us-west1/subnetworks/v2a-ray"] * 3
    del config["available_node_types"]["cpu"]["node_config"]["networkInterfaces"]
    assert "projects/p/regions/r/subnetworks/default" in networks(config), "Ray's own choice"
