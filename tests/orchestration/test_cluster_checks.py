"""Missing cores, GPUs and shared storage are reported before anything is computed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.data.builders import arrays_of, write_hdf5
from tests.data.test_mixture import hopper_table
from tests.orchestration.ray_head import RayHead, v2a
from v2a_ray.data.formats.readers import LARGE_BYTES
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.reading import resolve
from v2a_ray.experiments.sweep import load_sweep
from v2a_ray.orchestration.cluster.capacity import autoscales
from v2a_ray.orchestration.cluster.requirements import require_resources
from v2a_ray.orchestration.sweep.run_sweep import run_sweep
from v2a_ray.orchestration.train.run import run_experiment

DATA = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 200}
RUN = {"name": "tiny", "method": "bc_target", "target": DATA, "sources": [DATA | {"name": "other"}]}


def never(text: str) -> None:
    raise AssertionError(text)


@pytest.mark.parametrize(
    ("resources", "count"), [({"CPU": 2}, 1), ({"CPU": 1}, 2), ({"CPU": 0.5}, 4), ({"CPU": 1, "GPU": 0}, 1)]
)
def test_satisfiable_requirements_pass(ray_cluster: None, resources: dict[str, float], count: int) -> None:
    require_resources(resources, "policy.num_threads", never, count)


@pytest.mark.parametrize(
    ("resources", "count", "message"),
    [
        ({"CPU": 3}, 1, "one process asks for 3 CPU, and the largest node has 2 CPU"),
        (
            {"CPU": 1, "GPU": 0.25},
            1,
            "one process asks for 1 CPU and 0.25 GPU, and the largest node has 2 CPU and 0 GPU",
        ),
        ({"CPU": 1}, 3, "3 processes ask for 1 CPU each, and the cluster has room for 2"),
        ({"CPU": 2}, 2, "2 processes ask for 2 CPU each, and the cluster has room for 1"),
    ],
)
def test_unsatisfiable_requirements_are_refused(
    ray_cluster: None, resources: dict[str, float], count: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"policy.num_threads: {message}")):
        require_resources(resources, "policy.num_threads", never, count)


def test_a_cluster_without_an_autoscaler(ray_cluster: None) -> None:
    assert not autoscales()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"advantage": {"num_threads": 3}}, "advantage.num_threads: one process asks for 3 CPU"),
        ({"modality": {"num_workers": 3}}, "modality.num_threads: 3 processes ask for 1 CPU each"),
    ],
)
def test_every_stage_is_checked(ray_cluster: None, tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    config = resolve(RUN | {"method": "v2a", "store": str(tmp_path / "store")} | settings)
    with pytest.raises(ConfigError, match=message):
        run_experiment(config, make_plan(config), tmp_path / "run")
    assert list((tmp_path / "store").iterdir()) == []


def test_a_sweep_with_too_many_gpus_is_refused(ray_cluster: None, tmp_path: Path) -> None:
    settings = RUN | {"store": str(tmp_path / "store")}
    sweep = {"name": "grid", "settings": settings, "axes": {"seed": [0, 1]}, "resources": {"gpus_per_trial": 2}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(sweep))
    with pytest.raises(ConfigError, match="asks for 1 CPU and 2 GPU, and the largest node has 2 CPU and 0 GPU"):
        run_sweep(load_sweep(tmp_path / "grid.yaml"), tmp_path)
    assert not (tmp_path / "store").exists()


@pytest.fixture(scope="module")
def coreless() -> Iterator[RayHead]:
    """A cluster of a head that computes nothing."""
    head = RayHead(num_cpus=0)
    yield head
    head.stop()


SLOW = pytest.mark.slow
CONVERT = ["data", "convert", "large.hdf5", "--domain", "hopper/stock"]
COLLECT = ["data", "collect", "--domain", "hopper/stock", "--behavior", "random", "--num-transitions", "50"]


@pytest.mark.parametrize(
    ("command", "where"),
    [
        pytest.param([*COLLECT, "-o", "table"], "v2a data collect", id="collect"),
        pytest.param(["data", "mix", "run.yaml", "-o", "table"], "data", id="mix"),
        pytest.param([*COLLECT, "-o", "table", "--num-actors", "1"], "v2a data collect", id="by one", marks=SLOW),
        pytest.param([*CONVERT, "-o", "table"], "v2a data convert", id="convert", marks=SLOW),
        pytest.param(["choose", "run.yaml", "--run-dir", "choice"], "data", id="choose", marks=SLOW),
        pytest.param(["run", "run.yaml", "--run-dir", "run"], "data", id="run", marks=SLOW),
    ],
)
def test_nothing_waits_for_cores_that_never_come(
    coreless: RayHead, tmp_path: Path, command: list[str], where: str
) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN | {"store": str(tmp_path / "store")}))
    write_hdf5(tmp_path / "large.hdf5", arrays_of(hopper_table()))
    # Bytes after the end of an HDF5 file are not its content; the hole takes no disk space.
    os.truncate(tmp_path / "large.hdf5", LARGE_BYTES)
    env = coreless.client | {"RAY_ADDRESS": coreless.address}
    done = v2a(*command, cwd=tmp_path, env=env, timeout=150)
    assert done.returncode == 2, done.stdout + done.stderr
    assert f"{where}: one process asks for 1 CPU, and the largest node has 0 CPU" in done.stderr
    assert "give the cluster a node that has as much" in done.stderr and "lower it" not in done.stderr
    assert not (tmp_path / "table").exists()


def test_a_cluster_of_machines_is_not_scaled(head: RayHead) -> None:
    script = (
        "import sys\n"
        "from v2a_ray.orchestration.cluster.session import ray_session\n"
        "from v2a_ray.orchestration.cluster.capacity import autoscales\n"
        "with ray_session(address=sys.argv[1]): print(autoscales())\n"
    )
    command = [sys.executable, "-c", script, head.address]
    done = subprocess.run(command, env=head.client, capture_output=True, text=True, timeout=300)
    assert done.stdout == "False\n", done.stderr


def require_shared(head: RayHead, folder: Path, data: list[Path]) -> subprocess.CompletedProcess[str]:
    """`require_shared_storage` in a driver of the cluster."""
    script = (
        "import sys; from pathlib import Path\n"
        "from v2a_ray.orchestration.cluster.session import ray_session\n"
        "from v2a_ray.orchestration.cluster.shared_storage import require_shared_storage\n"
        "with ray_session(address=sys.argv[1]):\n"
        "    require_shared_storage([Path(sys.argv[2])], [Path(path) for path in sys.argv[3:]])\n"
        "    print('shared')"
    )
    command = [sys.executable, "-c", script, head.address, str(folder), *map(str, data)]
    return subprocess.run(command, env=head.client, capture_output=True, text=True, timeout=300)


def can_unshare() -> bool:
    """Whether a process may have its own mounts, as a machine has."""
    if shutil.which("unshare") is None:
        return False
    return (
        subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0
    )


@pytest.fixture(scope="module")
def disks(head: RayHead, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `shared`, `own` and `data`; a second node mounts its own disk over the latter two."""
    if not can_unshare():
        pytest.skip("mount namespaces are not permitted")
    folder = tmp_path_factory.mktemp("disks")
    for name in ("shared", "own", "data"):
        (folder / name).mkdir()
    (folder / "data/target.hdf5").write_bytes(b"")
    mounts = " && ".join(f"mount -t tmpfs none {folder / name}" for name in ("own", "data"))
    node = head.add_node(within=["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh"])
    yield folder
    head.remove(node)


def test_storage_that_all_nodes_share(head: RayHead, disks: Path) -> None:
    done = require_shared(head, disks / "shared", [disks / "shared", disks / "nowhere"])
    assert done.stdout == "shared\n", done.stderr
    assert list((disks / "shared").iterdir()) == []


@pytest.mark.slow
def test_storage_local_to_a_node_is_refused(head: RayHead, disks: Path) -> None:
    (disks / "run.yaml").write_text(yaml.safe_dump(RUN))
    options = [f"store={disks}/own", "--run-dir", f"{disks}/shared/run", "--address", head.address]
    done = v2a("run", "run.yaml", *options, cwd=disks, env=head.client)
    assert done.returncode == 2
    assert f"{disks}/own on node" in done.stderr and "the storage is not shared" in done.stderr
    assert "mount at the same path" in done.stderr and "computed" not in done.stdout
    assert list((disks / "own").iterdir()) == []


def test_storage_that_a_node_does_not_mount(head: RayHead, disks: Path) -> None:
    (disks / "own/store").mkdir()
    done = require_shared(head, disks / "own/store", [])
    assert f"{disks}/own/store on node" in done.stderr and "does not exist there" in done.stderr


def test_data_that_a_node_lacks(head: RayHead, disks: Path) -> None:
    done = require_shared(head, disks / "shared", [disks / "data/target.hdf5"])
    assert f"{disks}/data/target.hdf5: the data are on other nodes, and not on" in done.stderr
