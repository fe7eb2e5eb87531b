"""Clusters whose nodes come and go, with Ray's own autoscaler; its nodes are processes on this machine."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.orchestration.elastic_head import ElasticHead, node_type
from tests.orchestration.ray_head import REPOSITORY, RayHead, v2a
from tests.orchestration.tiny_sweeps import rows_of, write_sweep
from v2a_ray.orchestration.cluster.capacity import Capacity, NodeType

CPU, GPU = NodeType("cpu", {"CPU": 16, "memory": 2**35}, 8), NodeType("gpu", {"CPU": 8, "GPU": 1}, 4)
HEAD = NodeType("head", {"memory": 2**33}, 1)


def resumed(running: Any, times: int) -> bool:
    text: str = running.log.read_text()
    return text.count("goes on at step") == times


def test_room_is_that_of_the_largest_cluster() -> None:
    there = Capacity((HEAD, CPU, GPU), max_workers=12, elastic=True)
    assert there.total("GPU") == 4
    assert there.room({"CPU": 1, "GPU": 0.25}) == 16
    assert there.room({"CPU": 5}) == 24, "three fit on a node, and one node does not lend cores to another"


def test_work_without_a_gpu_starts_no_node_with_one() -> None:
    assert Capacity((HEAD, CPU, GPU), elastic=True).room({"CPU": 1}) == 128
    assert Capacity((HEAD, GPU), elastic=True).room({"CPU": 1}) == 32, "where there is nothing else"
    assert Capacity((HEAD, CPU, GPU)).room({"CPU": 1}) == 160, "machines that are there are used"


def test_the_limit_on_all_workers_counts() -> None:
    assert Capacity((HEAD, CPU, GPU), max_workers=2, elastic=True).total("GPU") == 2
    assert Capacity((HEAD, CPU, GPU), max_workers=2, elastic=True).room({"CPU": 1}) == 32


def driver(head: RayHead, script: str, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a script that has joined the cluster."""
    joined = "from v2a_ray.orchestration.cluster.session import ray_session\n"
    joined += f"with ray_session(address={head.address!r}):\n"
    indented = "".join(f"    {line}\n" for line in script.strip().splitlines())
    command = [sys.executable, "-c", joined + indented, *words]
    return subprocess.run(command, env=head.client, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def empty() -> Iterator[ElasticHead]:
    """A cluster of a head that computes nothing, which may grow."""
    head = ElasticHead(cpu=node_type(8, CPU=1), gpu=node_type(1, CPU=4, GPU=1), absent=node_type(2, CPU=2, rare=1))
    yield head
    head.stop()


@pytest.mark.slow
def test_a_stage_that_may_use_a_gpu_starts_the_node_that_has_one(empty: ElasticHead) -> None:
    done = driver(
        empty,
        """
import json, ray
from v2a_ray.orchestration.cluster.capacity import capacity
from v2a_ray.orchestration.cluster.gpus import cluster_gpus, gpu_share, reserved_gpu
there = capacity()
share = gpu_share("auto", cluster_gpus())
got = ray.get(ray.remote(reserved_gpu).options(num_cpus=1, num_gpus=share).remote())
workers = [node["Resources"] for node in ray.nodes() if "CPU" in node["Resources"]]
print(json.dumps([cluster_gpus(), there.room({"CPU": 1}), share, got, [[w["CPU"], w.get("GPU", 0)] for w in workers]]))
""",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1, 12, 0.25, True, [[4, 1]]]


@pytest.mark.slow
def test_a_head_without_cores_runs_no_task_that_reserves_none(empty: ElasticHead) -> None:
    done = driver(
        empty,
        """
import ray
from v2a_ray.orchestration.cluster.away_from_head import away_from_head
where = ray.remote(lambda: ray.get_runtime_context().get_node_id())
there = {ray.get(where.options(num_cpus=0, **away_from_head()).remote()) for _ in range(4)}
print([node["Resources"].get("CPU", 0) > 0 for node in ray.nodes() if node["NodeID"] in there])
""",
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout.lower())) == {True}


@pytest.mark.slow
def test_what_no_node_type_has_is_refused_at_once(empty: ElasticHead) -> None:
    done = driver(
        empty,
        """
from v2a_ray.orchestration.cluster.requirements import require_resources
require_resources({"CPU": 4}, "policy.num_threads", print)
require_resources({"CPU": 5}, "policy.num_threads", print)
""",
    )
    assert (
        "one process asks for 5 CPU, and the largest node has 4 CPU, of all that the autoscaler may start"
        in done.stderr
    )
    assert "up to 8 of cpu (1 CPU)" in done.stderr and done.stdout == ""


@pytest.mark.slow
def test_data_are_collected_by_nodes_that_come(tmp_path: Path) -> None:
    head = ElasticHead(cpu=node_type(1, CPU=1))
    data = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 50}
    run = {"name": "tiny", "method": "bc_target", "target": data, "sources": [data | {"name": "other"}]}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run | {"store": str(tmp_path / "store")}))
    env = head.client | {"RAY_ADDRESS": head.address}
    collect = ["--domain", "hopper/stock", "--behavior", "random", "--num-transitions", "50"]
    try:
        for command in (["collect", *collect], ["mix", "run.yaml"]):
            done = v2a("data", *command, "-o", command[0], cwd=tmp_path, env=env)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        head.stop()
    assert (tmp_path / "collect").is_dir() and (tmp_path / "mix").is_dir()


class Running:
    """`v2a sweep` on a cluster."""

    def __init__(self, head: RayHead, path: Path) -> None:
        command = [sys.executable, "-m", "v2a_ray.cli.main", "sweep", str(path), "--run-dir", str(path.with_suffix(""))]
        self.log = path.with_suffix(".log")
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--address", head.address], env=head.client, cwd=path.parent, stdout=output, stderr=output
            )

    def wait_for(self, what: Callable[[], object], seconds: float = 900) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def end(self) -> str:
        """Its output, when it has ended well."""
        assert self.process.wait(timeout=900) == 0, self.log.read_text()
        return self.log.read_text()


def nodes_that_came(head: RayHead) -> list[tuple[float, float]]:
    """CPUs and GPUs of every node that is or was there, without the head."""
    done = driver(head, "import json, ray\nprint(json.dumps([node['Resources'] for node in ray.nodes()]))")
    resources = json.loads(done.stdout)
    return sorted((each["CPU"], each.get("GPU", 0)) for each in resources if "CPU" in each)


@pytest.mark.slow
@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_a_sweep_starts_all_nodes_of_its_group_and_none_of_the_other(tmp_path: Path, v2: bool) -> None:
    # Long enough that the last of the eight nodes still finds a trial to train.
    settings = {"policy": {"device": "cpu", "num_steps": 3000}, "evaluation": {"interval_steps": 0}}
    path = write_sweep(tmp_path, name="grows", axes={"seed": list(range(16))}, settings=settings)
    head = ElasticHead(v2=v2, cpu=node_type(8, CPU=1), gpu=node_type(1, CPU=4, GPU=1))
    try:
        Running(head, path).end()
        assert nodes_that_came(head) == [(1, 0)] * 8
    finally:
        head.stop()
    assert [row["status"] for row in rows_of(path)] == ["finished"] * 16


@pytest.mark.slow
def test_cuda_is_accepted_and_starts_the_node(empty: ElasticHead, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, name="cuda", axes={"seed": [0]}, settings={"policy": {"device": "cuda"}})
    Running(empty, path).process.wait(timeout=400)
    # The node has a GPU for Ray, and this machine has none for torch: the policy got there.
    (row,) = rows_of(path)
    assert "this process has no GPU" in row["status"] or row["status"] == "finished"
    assert (4, 1) in nodes_that_came(empty)


LONG: dict[str, Any] = {
    "policy": {"num_steps": 6000, "checkpoint_interval_steps": 100, "log_interval_steps": 100, "device": "cpu"},
    "evaluation": {"interval_steps": 0},
}


@pytest.mark.slow
def test_nodes_that_are_taken_back_cost_no_retry_and_what_is_since_the_checkpoint(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, name="spot", axes={"seed": [0]}, settings=LONG, resources={"max_retries": 0})
    head = ElasticHead(cpu=node_type(1, CPU=1))
    try:
        running = Running(head, path)
        for loss in (1, 2):
            running.wait_for(lambda: list(tmp_path.glob("artifacts/policy/*.work/checkpoint.safetensors")))
            (node,) = head.nodes()
            head.reclaim(node)
            running.wait_for(partial(resumed, running, loss))
        out = running.end()
    finally:
        head.stop()
    assert out.count("has left; what it was computing goes on elsewhere") == 2
    assert [row["status"] for row in rows_of(path)] == ["finished"]


@pytest.mark.slow
@pytest.mark.parametrize("v2", [False, True], ids=["v1", "v2"])
def test_a_node_that_never_comes_is_said_with_what_is_missing(v2: bool) -> None:
    head = ElasticHead(v2=v2, cpu=node_type(1, CPU=1), absent=node_type(2, CPU=2, rare=1))
    try:
        done = driver(
            head,
            """
import time, ray
from v2a_ray.orchestration.cluster import node_watch
node_watch.WAIT_SECONDS = 4.0
lines = []
waiting = ray.remote(num_cpus=2)(lambda: 1).remote()
with node_watch.watching([], lines.append):
    deadline = time.monotonic() + 60
    while not lines and time.monotonic() < deadline:
        time.sleep(0.2)
print(lines[0])
""",
        )
    finally:
        head.stop()
    assert done.stdout.startswith("for 4 seconds no node has come for what waits: 1 x (2 CPU)"), done.stderr
    assert "may start up to 2 of absent (2 CPU and 1 rare)" in done.stdout
    assert v2 or "InsufficientInstanceCapacity: no such machine is left" in done.stdout


@pytest.mark.slow
def test_a_node_that_joins_late_with_other_code_ends_the_work(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(REPOSITORY / "v2a_ray", other / "v2a_ray", ignore=shutil.ignore_patterns("__pycache__"))
    with (other / "v2a_ray/errors.py").open("a") as file:
        file.write("# another version\n")
    path = write_sweep(tmp_path, name="late", axes={"seed": [0, 1, 2]}, settings=LONG)
    head = RayHead(num_cpus=1)
    try:
        running = Running(head, path)
        running.wait_for(lambda: list(tmp_path.glob("artifacts/policy/*.work/checkpoint.safetensors")))
        head.add_node(num_cpus=1, PYTHONPATH=str(other))
        assert running.process.wait(timeout=200) == 2
    finally:
        head.stop()
    out = " ".join(running.log.read_text().split())
    assert "the node has v2a_ray" in out and "`v2a submit` ships the code with the job" in out


@pytest.mark.slow
def test_a_node_that_joins_late_without_the_environment_ends_the_work(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    shutil.copy(REPOSITORY / "tests/domains/own_environments.py", own / "late_robot.py")
    data = {"domain": "gym:late_robot:Cart?max_episode_steps=20", "behavior": "random", "num_transitions": 100}
    settings = LONG | {"method": "bc_target", "target": data, "sources": []}
    path = write_sweep(tmp_path, name="late", axes={"seed": [0, 1, 2]}, settings=settings)
    head = RayHead(num_cpus=1, PYTHONPATH=f"{REPOSITORY}:{own}")
    try:
        nodes, head.client = head.client, head.client | {"PYTHONPATH": f"{REPOSITORY}:{own}"}
        running = Running(head, path)
        running.wait_for(lambda: list(tmp_path.glob("artifacts/policy/*.work/checkpoint.safetensors")))
        head.client = nodes
        head.add_node(num_cpus=1)
        assert running.process.wait(timeout=200) == 2
    finally:
        head.stop()
    out = " ".join(running.log.read_text().split())
    assert "No module named 'late_robot'" in out and "package on every node" in out


@pytest.mark.slow
def test_ctrl_c_while_nothing_has_come_yet_ends_at_once(tmp_path: Path) -> None:
    settings = {"policy": {"device": "cpu", "num_threads": 2}}
    path = write_sweep(tmp_path, name="waits", axes={"seed": [0]}, settings=settings)
    head = ElasticHead(cpu=node_type(1, CPU=1), absent=node_type(1, CPU=2))
    try:
        running = Running(head, path)
        running.wait_for(lambda: "computed rows/target" in running.log.read_text())
        time.sleep(3)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=60) == 130
    finally:
        head.stop()
