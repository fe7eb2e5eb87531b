"""Runs the Slurm script with a `srun` that runs its command on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm_stubs import SCRIPT, Slurm

# Stands in for `v2a`: runs a task on the cluster that RAY_ADDRESS names and reports what it found.
_USES_RAY = """
import json, os, pathlib, socket, stat, sys
import ray

token_path = pathlib.Path(os.environ["RAY_AUTH_TOKEN_PATH"])
token = token_path.read_text()
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")

@ray.remote
def square(x):
    return x * x

answer = ray.get(square.remote(7))
command_lines = [path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")]
probe = '''
import os
from ray._raylet import GcsClient
try:
    GcsClient(address=os.environ["RAY_ADDRESS"]).get_all_node_info(timeout=5)
    print("admitted")
except Exception as error:
    print(type(error).__name__)
'''
import subprocess
wrong = subprocess.run(
    [sys.executable, "-c", probe], env=os.environ | {"RAY_AUTH_TOKEN": "0" * 64}, capture_output=True, text=True
).stdout
json.dump({
    "arguments": sys.argv[1:], "answer": answer, "mode": os.environ["RAY_AUTH_MODE"], "store": os.environ["V2A_STORE"],
    "token_length": len(token), "token_permissions": stat.S_IMODE(token_path.stat().st_mode),
    "processes": len(command_lines), "raylets": sum(b"raylet/raylet" in line for line in command_lines),
    "exposed": sum(token.encode() in line for line in command_lines),
    "environment_in_command": [line.decode() for line in command_lines if b"RAY_AUTH" in line],
    "with_a_wrong_token": wrong.split(),
}, open(sys.argv[-1], "w"))
"""


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path is short enough for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="v2a-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_starts_ray_with_a_token_and_runs_the_command_on_it(tmp_path: Path, short_folder: Path) -> None:
    slurm = Slurm(tmp_path / "stubs", tmp_path, v2a=_USES_RAY)
    slurm.environment |= {
        "V2A_RAY_TMPDIR": str(short_folder / "ray"),
        "V2A_RAY_START_OPTIONS": "--num-cpus=1 --object-store-memory=80000000 --include-dashboard=false",
    }
    report = tmp_path / "report of the job.json"

    result = slurm.run("sweep", "--run-dir", str(report), isolated=True)

    assert result.returncode == 0, result.stdout + result.stderr
    found = json.loads(report.read_text())
    assert found["arguments"] == ["sweep", "--run-dir", str(report)]
    assert found["answer"] == 49
    assert found["raylets"] == 1
    assert found["mode"] == "token"
    assert found["store"] == str(tmp_path / "artifacts")
    assert found["token_length"] == 64
    assert found["token_permissions"] == stat.S_IRUSR | stat.S_IWUSR
    assert found["processes"] > 5
    assert found["exposed"] == 0
    assert found["environment_in_command"] == []
    assert found["with_a_wrong_token"] == ["AuthenticationError"]
    assert not list(tmp_path.glob(".v2a-slurm-*")), "the token outlives its job"
    assert not (short_folder / "ray").exists(), "the session folder outlives its job"


# Two nodes with separate networks, joined by a cable, and separate processes. Both see the same files.
_TWO_NODES = """
mkdir -p /run/netns && mount -t tmpfs none /run/netns
ip netns add node1; ip netns add node2
ip link add cable1 netns node1 type veth peer name cable2 netns node2
for node in 1 2; do
    ip -n node$node addr add 10.9.8.$node/24 dev cable$node
    ip -n node$node link set cable$node up; ip -n node$node link set lo up
done
"""
_SRUN_ON_TWO_NODES = """
# A shell is each node's first process, because it reaps: `ray stop` waits for zombies too.
on() { ip netns exec "node$1" unshare --pid --fork --mount-proc --kill-child bash -c '"$@"; exit "$?"' node "${@:2}"; }
if [[ $(tail -n 1 "$STUB_LOG") == *--nodes=1* ]]; then on 1 "$@"; exit; fi
on 2 "$@" & on 1 "$@"; status=$?; wait; exit "$status"
"""
_WHERE = """
import os, sys, time
import ray
ray.init(address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def where():
    time.sleep(1)
    return ray.util.get_node_ip_address()

open(sys.argv[-1], "w").write(" ".join(sorted(set(ray.get([where.remote() for _ in range(4)])))))
"""


@pytest.mark.slow
def test_two_nodes_become_one_cluster(tmp_path: Path, short_folder: Path) -> None:
    slurm = Slurm(tmp_path / "stubs", tmp_path, v2a=_WHERE, srun=_SRUN_ON_TWO_NODES)
    del slurm.environment["V2A_HEAD_ADDRESS"]
    slurm.environment |= {
        "SLURM_JOB_NUM_NODES": "2",
        "V2A_RAY_TMPDIR": str(short_folder / "ray"),
        "V2A_RAY_START_OPTIONS": "--num-cpus=2 --object-store-memory=80000000 --disable-usage-stats",
    }
    report = tmp_path / "report"

    result = slurm.run("sweep", str(report), isolated=True, before=_TWO_NODES)

    assert result.returncode == 0, result.stdout + result.stderr
    assert report.read_text() == "10.9.8.1 10.9.8.2"


def test_the_commands_exit_status_is_the_jobs(tmp_path: Path) -> None:
    # The command alone, without Ray: what follows `--`.
    slurm = Slurm(
        tmp_path / "stubs",
        tmp_path,
        v2a="raise SystemExit(3)",
        srun='while [ "$1" != -- ]; do shift; done; shift; "$@"',
    )

    assert slurm.run("sweep", "broken.yaml").returncode == 3


def test_a_failed_start_of_ray_is_reported(tmp_path: Path) -> None:
    # `ray symmetric-run` ends with 0 if Ray does not start.
    result = Slurm(tmp_path / "stubs", tmp_path, srun="exit 0").run("sweep", "smoke.yaml")

    assert result.returncode == 1
    assert "Ray did not start on 1 node(s) at 127.0.0.1:" in result.stderr


def test_all_nodes_get_one_address_with_a_port_of_the_job(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path / "stubs", tmp_path, srun="exit 0")
    slurm.environment |= {"SLURM_JOB_ID": "4567890", "SLURM_JOB_NUM_NODES": "4"}
    slurm.run("sweep", "smoke.yaml")
    (call,) = [line for line in slurm.calls() if "symmetric-run" in line]
    assert "symmetric-run --address 127.0.0.1:27890 --min-nodes 4 --disable-usage-stats -- " in call

    slurm.environment["V2A_RAY_PORT"] = "6400"
    slurm.run("sweep", "smoke.yaml")
    assert "symmetric-run --address 127.0.0.1:6400 " in slurm.calls()[-1]


def test_goes_back_to_the_queue_when_its_time_is_over(tmp_path: Path) -> None:
    slurm = Slurm(tmp_path / "stubs", tmp_path, srun='touch "$STUB_LOG.started"; exec sleep 2')
    job = subprocess.Popen(["bash", str(SCRIPT), "sweep", "smoke.yaml"], env=slurm.environment)
    deadline = time.monotonic() + 30
    while not Path(f"{slurm.log}.started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)

    assert job.wait(timeout=30) == 0
    assert slurm.calls()[-1] == f"scontrol requeue {os.getpid()}"


@pytest.mark.parametrize(
    ("variable", "value", "arguments", "message"),
    [
        (
            "V2A_SHARED",
            "/no/such/folder",
            ["sweep"],
            "set V2A_SHARED to a folder on a file system that all nodes share",
        ),
        ("V2A_SHARED", "", ["sweep"], "set V2A_SHARED to a folder on a file system that all nodes share"),
        ("SLURM_JOB_ID", "", ["sweep"], "run this with sbatch"),
        ("V2A_RAY_PORT", "6400", [], "usage: sbatch"),
    ],
)
def test_bad_use_is_refused(tmp_path: Path, variable: str, value: str, arguments: list[str], message: str) -> None:
    slurm = Slurm(tmp_path / "stubs", tmp_path, srun="exit 0")
    slurm.environment[variable] = value

    result = slurm.run(*arguments)

    assert result.returncode != 0
    assert message in result.stderr
    assert not slurm.log.exists(), "nothing is started"
