"""How much of what an elastic cluster costs is used: a sweep of short policies on nodes that come by demand.

The cluster starts without a worker. Ray's own autoscaler adds nodes of one core, as processes on this machine (its
provider for tests), so that a node is there in seconds; a cloud's machine takes a minute or two, which is paid too and
used by nobody. Nothing is measured inside the sweep: this process looks at Ray's tables while `v2a sweep` runs.

- utilisation: core-seconds that tasks and trials reserve, over core-seconds from a node's start to the sweep's end.
- first trial: seconds from a node's start to the start of the first trial in it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

os.environ["RAY_AUTH_MODE"] = "token"  # Ray looks when it is imported

import ray

from benchmarks.record import Result, record
from benchmarks.sweep_overhead import experiment
from tests.orchestration.elastic_head import ElasticHead, node_type

UTILISATION_TARGET = 0.85
FIRST_TRIAL_SECONDS = 10.0
POLL_SECONDS = 0.25
TRIAL = "ImplicitFunc"
"""What Tune calls the class of a trial's actor."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few policies on two nodes; no recording")
    parser.add_argument("--policies", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=8, help="of the group, which starts with none")
    parser.add_argument("--steps", type=int, default=500, help="update steps of a policy")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.policies, arguments.nodes = 8, 2
    with tempfile.TemporaryDirectory() as name:
        path = sweep_file(Path(name), arguments.policies, arguments.steps)
        head = ElasticHead(node=node_type(arguments.nodes, CPU=1))
        try:
            busy, paid, waits = measure(head, path)
        finally:
            head.stop()
    where = f"{arguments.policies} policies of {arguments.steps} steps, 0 to {arguments.nodes} nodes"
    wait = statistics.median(waits)
    record(
        [
            Result(
                f"utilisation of an elastic cluster, {where}", busy, paid, "core-s", busy / paid, UTILISATION_TARGET
            ),
            Result(
                f"node joined to first trial on it, {where}",
                wait,
                FIRST_TRIAL_SECONDS,
                "s",
                FIRST_TRIAL_SECONDS / wait,
                1.0,
            ),
        ],
        write=not arguments.quick,
    )


def sweep_file(folder: Path, policies: int, steps: int) -> Path:
    """A sweep of equal policies that differ in their seed."""
    settings = experiment(folder / "store")
    settings["policy"] |= {"num_steps": steps, "device": "cpu"}
    content = {"name": "elastic", "settings": settings, "axes": {"method": ["igdf"], "seed": list(range(policies))}}
    path = folder / "elastic.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def measure(head: ElasticHead, path: Path) -> tuple[float, float, list[float]]:
    """Core-seconds busy and paid, and the seconds from each node's start to its first trial."""
    command = [sys.executable, "-m", "v2a_ray.cli.main", "sweep", str(path), "--address", head.address]
    process = subprocess.Popen(
        [*command, "--run-dir", str(path.with_suffix(""))], env=head.client, stdout=subprocess.DEVNULL
    )
    os.environ.update({name: value for name, value in head.client.items() if name.startswith("RAY_")})  # its token
    ray.init(address=head.address, log_to_driver=False, logging_level="ERROR")
    busy = paid = 0.0
    joined: dict[str, float] = {}
    first: dict[str, float] = {}
    last = time.time()
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        now = time.time()
        free = ray._private.state.available_resources_per_node()
        for node in ray.nodes():
            cores = node["Resources"].get("CPU", 0.0)
            if node["Alive"] and cores:
                joined.setdefault(node["NodeID"], now)
                paid += cores * (now - last)
                left = free.get(node["NodeID"], {"CPU": cores})  # which names no resource that is all taken
                busy += (cores - left.get("CPU", 0.0)) * (now - last)
        for actor in ray._private.state.actors().values():
            if actor["ActorClassName"] == TRIAL and actor["StartTime"]:
                node_id, started = actor["Address"]["NodeID"], actor["StartTime"] / 1000
                first[node_id] = min(started, first.get(node_id, started))
        last = now
    ray.shutdown()
    if process.returncode:
        raise SystemExit(f"the sweep ended with {process.returncode}")
    return busy, paid, [max(0.0, first[node] - joined[node]) for node in first.keys() & joined.keys()]


if __name__ == "__main__":
    main()
