"""Joining a cluster: every problem gives one message within seconds, with exit status 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.orchestration.ray_head import RayHead, environment, free_port, v2a
from v2a_ray.errors import ClusterError
from v2a_ray.orchestration.cluster.join import PROBE_SECONDS, require_cluster
from v2a_ray.orchestration.cluster.session import ray_session

JOIN = "from v2a_ray.orchestration.cluster.session import ray_session\nwith ray_session(address={!r}): print('joined')"


def join(address: str, env: dict[str, str], before: str = "") -> subprocess.CompletedProcess[str]:
    """Join in a separate process, because Ray reads its token once."""
    script = before + JOIN.format(address)
    return subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=300)


def test_a_process_joins_the_cluster(head: RayHead) -> None:
    done = join(head.address, head.client)
    assert done.stdout == "joined\n", done.stderr


def test_nothing_listens() -> None:
    with pytest.raises(ClusterError, match="no Ray cluster answers: Connection refused"):
        require_cluster(f"127.0.0.1:{free_port()}")


def test_no_such_host() -> None:
    with pytest.raises(ClusterError, match="no Ray cluster answers"):
        require_cluster("no-such-host.invalid:6379")


def test_a_silent_address_is_abandoned_in_bounded_time() -> None:
    with socket.socket() as silent:
        silent.bind(("", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(ClusterError, match="no answer within 2 seconds"):
            require_cluster(f"127.0.0.1:{silent.getsockname()[1]}", seconds=2)
    # The limit includes starting Python on a busy machine; Ray itself would wait for 80 seconds.
    assert 2 <= time.monotonic() - start < 32 and PROBE_SECONDS == 10


@pytest.mark.parametrize("address", ["http://127.0.0.1:8265", "ray://127.0.0.1:10001"])
def test_addresses_of_something_else(address: str) -> None:
    with pytest.raises(ClusterError, match="v2a submit"), ray_session(address=address):
        pass


def test_a_wrong_token(head: RayHead, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("f" * 64)
    done = join(head.address, environment(RAY_AUTH_TOKEN_PATH=str(tmp_path / "wrong")))
    assert "ClusterError" in done.stderr and "the cluster refuses our token" in done.stderr
    assert head.token not in done.stderr and "f" * 64 not in done.stderr


def test_no_token(head: RayHead, tmp_path: Path) -> None:
    done = join(head.address, environment(HOME=str(tmp_path)))
    assert "asks for a token, and there is none here" in done.stderr
    assert not (tmp_path / ".ray").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("import ray\nray.__version__ = '2.59.0'\n", "Ray 2.60.0 there, 2.59.0 here"),
        ("import platform\nplatform.python_version = lambda: '3.12.1'\n", "there, 3.12.1 here"),
    ],
)
def test_other_versions(head: RayHead, change: str, message: str) -> None:
    done = join(head.address, head.client, before=change)
    assert "the cluster runs other versions" in done.stderr and message in done.stderr


@pytest.mark.slow
def test_a_node_with_another_version_of_this_package(head: RayHead, tmp_path: Path) -> None:
    (tmp_path / "there/v2a_ray").mkdir(parents=True)
    (tmp_path / "there/v2a_ray/__init__.py").write_text('__version__ = "0.0.9"\n')
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN))
    node = head.add_node(PYTHONPATH=f"{tmp_path}/there{os.pathsep}{head.client['PYTHONPATH']}")
    try:
        done = v2a("run", "run.yaml", "--address", head.address, cwd=tmp_path, env=head.client)
    finally:
        head.remove(node)
    assert done.returncode == 2
    assert "the node has v2a_ray 0.0.9" in done.stderr and "`v2a submit` ships the code" in done.stderr


@pytest.mark.slow
def test_a_node_that_died_a_moment_ago_is_not_waited_for(head: RayHead) -> None:
    # The cluster calls the node alive until it has missed some heartbeats.
    head.remove(head.add_node())
    done = join(head.address, head.client)
    assert done.stdout.endswith("joined\n"), done.stderr  # Ray's word that the node is dead may come before


DATA = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 200}
RUN = {"name": "tiny", "method": "bc_target", "target": DATA, "sources": [DATA | {"name": "other"}]}
