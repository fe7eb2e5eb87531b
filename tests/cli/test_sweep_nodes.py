"""Sweeps on a cluster of two nodes: one dies, everything dies, two sweeps at once.

The cluster is real raylets in processes of their own; the commands join it by RAY_ADDRESS, as a job on it does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.cli.command import CONFIG, yaml_folder

SWEEP: dict[str, Any] = {
    "name": "nodes",
    "settings": CONFIG
    | {
        "method": "iql_mixed",
        "policy": {"num_steps": 4000, "width": 16, "checkpoint_interval_steps": 250, "log_interval_steps": 250},
        "evaluation": {"num_episodes": 1},
    },
    "axes": {"seed": [0]},
    # One policy per trial, so that policies are lost one by one.
    "policies_per_trial": 1,
}
STORE = "artifacts"
WAIT_SECONDS = 180


class Nodes:
    """A cluster of two nodes with one CPU each."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        # Ray notices a dead node in seconds instead of a quarter of a minute.
        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": {"health_check_period_ms": 500}}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.other: Any = None

    def start_other(self) -> None:
        """Start the node without the head, if there is none."""
        self.other = self.other or self.cluster.add_node(num_cpus=1)

    def kill_other(self) -> None:
        """SIGKILL to its raylet; its workers end with it."""
        self.cluster.remove_node(self.other, allow_graceful=False)
        self.other = None

    def kill(self) -> None:
        """SIGKILL to everything."""
        if self.other:
            self.kill_other()
        self.cluster.remove_node(self.cluster.head_node, allow_graceful=False)
        self.cluster.shutdown()


@pytest.fixture(scope="module")
def start_nodes() -> Iterator[Callable[[], Nodes]]:
    """A function that starts both nodes if they are down. No other Ray on this machine finds their address."""
    folder = tempfile.mkdtemp(prefix="v2a-", dir="/tmp")  # a short name: Ray's sockets lie below it
    alive: list[Nodes] = []

    def start() -> Nodes:
        if not alive or alive[0].cluster.head_node is None:
            alive[:] = [Nodes()]
        alive[0].start_other()
        return alive[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_worker_niceness", "0")
        yield start
        if alive and alive[0].cluster.head_node:
            alive[0].kill()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yaml_folder(tmp_path_factory.mktemp("nodes"), sweep=SWEEP)


def sweep(nodes: Nodes, workspace: Path, name: str, seeds: Sequence[int]) -> subprocess.Popen[str]:
    """Start the command; its results go to the folder `name`, its output to `name`.log."""
    words = [f"axes.seed={list(seeds)}", f"store={STORE}", "--run-dir", name]
    command = [sys.executable, "-m", "v2a_ray.cli.main", "sweep", "sweep.yaml", *words]
    with (workspace / f"{name}.log").open("w") as log:
        environment = os.environ | {"RAY_ADDRESS": nodes.cluster.address}
        return subprocess.Popen(command, cwd=workspace, env=environment, stdout=log, stderr=log, text=True)


def wait_for(condition: Callable[[], bool], driver: subprocess.Popen[str], log: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert driver.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def assert_complete(folder: Path, seeds: Sequence[int]) -> None:
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    assert [(row["axis/seed"], row["status"]) for row in rows] == [(str(seed), "finished") for seed in seeds]


def finished(workspace: Path) -> dict[str, int]:
    """When each policy was finished, in nanoseconds, by key."""
    return {path.parent.name: path.stat().st_mtime_ns for path in workspace.glob(f"{STORE}/policy/*/artifact.json")}


def num_trained(workspace: Path) -> int:
    """Policies with a checkpoint that are not finished."""
    works = {path.parent.stem for path in workspace.glob(f"{STORE}/policy/*.work/checkpoint.safetensors")}
    return len(works - finished(workspace).keys())


@pytest.mark.slow
def test_a_sweep_survives_the_death_of_a_node(start_nodes: Callable[[], Nodes], workspace: Path) -> None:
    nodes, log = start_nodes(), workspace / "survives.log"
    driver = sweep(nodes, workspace, "survives", [0, 1, 2])
    # With one CPU each, two policies at a time are on two nodes.
    wait_for(lambda: num_trained(workspace) == 2, driver, log)
    nodes.kill_other()
    assert driver.wait(WAIT_SECONDS) == 0, log.read_text()
    assert_complete(workspace / "survives", [0, 1, 2])
    # One policy died and went on from its checkpoint, and the display outlived the node.
    assert log.read_text().count("goes on at step") == 1


@pytest.mark.slow
def test_the_same_command_goes_on_after_all_nodes_died(start_nodes: Callable[[], Nodes], workspace: Path) -> None:
    nodes, log, others = start_nodes(), workspace / "goes-on.log", finished(workspace)
    driver = sweep(nodes, workspace, "goes-on", [3, 4, 5])
    # The third policy has begun, because one of the first two is finished.
    wait_for(lambda: len(finished(workspace)) - len(others) + num_trained(workspace) == 3, driver, log)
    driver.kill()
    driver.wait()
    nodes.kill()
    before, num_begun = finished(workspace), num_trained(workspace)
    mine = before.keys() - others.keys()
    assert len(mine) >= 1 and num_begun >= 1 and len(mine) + num_begun == 3
    driver = sweep(start_nodes(), workspace, "goes-on", [3, 4, 5])
    assert driver.wait(WAIT_SECONDS) == 0, log.read_text()
    assert_complete(workspace / "goes-on", [3, 4, 5])
    # Finished policies are unchanged, begun policies go on, and no other stage is computed again.
    assert finished(workspace) | before == finished(workspace)
    output = log.read_text()
    assert output.count("reused   policy") == len(mine) and "computed" not in output
    assert output.count("goes on at step") == num_begun


@pytest.mark.slow
def test_two_sweeps_at_once_share_artifacts(start_nodes: Callable[[], Nodes], workspace: Path) -> None:
    nodes, others = start_nodes(), finished(workspace)
    seeds = {"one": [6, 7], "two": [7, 8]}
    drivers = {name: sweep(nodes, workspace, name, seeds[name]) for name in seeds}
    for name, driver in drivers.items():
        log = workspace / f"{name}.log"
        assert driver.wait(WAIT_SECONDS) == 0, log.read_text()
        assert_complete(workspace / name, seeds[name])
        # Each sweep shows only its own policies.
        shown = {line.split(":")[0] for line in log.read_text().splitlines() if ": step" in line}
        assert shown <= {f"policy {seed}" for seed in seeds[name]}
    assert len(finished(workspace).keys() - others.keys()) == 3
    assert not [path for path in (workspace / STORE).glob("*/*") if "." in path.name]
