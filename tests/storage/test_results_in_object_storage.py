"""Runs and sweeps whose store and results are addresses, as a user calls them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

import v2a_ray.leases
import v2a_ray.result_folders
from tests.cli.command import v2a_here
from tests.storage.s3_server import S3Server, answers_500, every, throttles
from v2a_ray.checksums import folder_digests
from v2a_ray.cli.main import main
from v2a_ray.errors import StorageError
from v2a_ray.leases import Lease
from v2a_ray.objects import ObjectFolder
from v2a_ray.orchestration.cluster.job_spec import make_job
from v2a_ray.orchestration.train.status import StatusFile
from v2a_ray.result_folders import readable_folder, results_folder

SETTINGS: dict[str, Any] = {
    "method": "iql_mixed",
    "target": {"domain": "hopper/stock", "behavior": "medium", "num_transitions": 300},
    "sources": [{"domain": "hopper/gravity-0.5", "behavior": "medium", "num_transitions": 300}],
    "policy": {"num_steps": 60, "width": 16, "batch_size": 16, "log_interval_steps": 10},
    "evaluation": {"num_episodes": 2, "interval_steps": 30},
}


def v2a(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "v2a_ray.cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=500)


def write(folder: Path, **more: Any) -> Path:
    """A run's file, or with `axes` a sweep's."""
    content = {"name": "tiny", **({"settings": SETTINGS, **more} if more else SETTINGS)}
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow  # commands start Ray twice
def test_a_run_is_the_same_to_the_bit_as_on_a_disk(s3: S3Server, address: str, tmp_path: Path) -> None:
    write(tmp_path)
    place = f"{address}/run"
    s3.fault = every(25, answers_500)
    remote = v2a("run", "tiny.yaml", f"store={address}/store", "--run-dir", place, "--num-cpus", "2", cwd=tmp_path)
    assert remote.returncode == 0, remote.stderr
    s3.fault = lambda request: False
    local = v2a("run", "tiny.yaml", f"store={tmp_path}/store", "--run-dir", "run", "--num-cpus", "2", cwd=tmp_path)
    assert local.returncode == 0, local.stderr
    mine, disk = folder_digests(readable_folder(place)), folder_digests(tmp_path / "run")
    for name in ("actor.safetensors", "curves.parquet"):
        assert mine[name] == disk[name], name
    assert not list(tmp_path.glob("s3:*")), "a local folder of that name"
    evaluated = v2a("evaluate", place, "--episodes", "2", cwd=tmp_path)
    assert evaluated.returncode == 0, evaluated.stderr
    report = v2a("report", place, "--format", "csv", cwd=tmp_path)
    assert report.returncode == 0 and "iql_mixed" in report.stdout
    again = v2a("run", "tiny.yaml", f"store={address}/store", "--run-dir", place, cwd=tmp_path)
    assert again.returncode == 0 and "computed" not in again.stdout


@pytest.mark.slow  # commands start Ray twice
def test_a_killed_sweep_goes_on_elsewhere(
    s3: S3Server, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, axes={"seed": [0, 1, 2, 3]}, policies_per_trial=1)
    place, store = f"{address}/sweep", f"{address}/store"
    command = [sys.executable, "-m", "v2a_ray.cli.main", "sweep", "tiny.yaml", f"store={store}", "--run-dir", place]
    s3.fault = every(25, throttles)
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen([*command, "--num-cpus", "2"], cwd=tmp_path, stdout=log, stderr=log)
    policies = ObjectFolder(f"{store}/records/policy")
    deadline = time.monotonic() + 400
    while not policies.names():
        assert driver.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    num_finished = len(policies.names())
    monkeypatch.setenv("V2A_CACHE", str(tmp_path / "another-node"))
    s3.fault = lambda request: False
    done = v2a("sweep", "--resume", place, "--num-cpus", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    reused = [line for line in done.stdout.splitlines() if "reused   policy" in line]
    assert len(reused) >= num_finished > 0
    folder = readable_folder(place)
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["finished"] * 4
    assert len(list(folder.glob("trials/*/actor.safetensors"))) == 4
    assert ObjectFolder(f"{place}/tune").names() == []
    report = v2a("report", place, "--format", "csv", cwd=tmp_path)
    assert report.returncode == 0 and report.stdout.count("finished") + report.stdout.count("iql_mixed") >= 4


def test_what_is_written_at_an_address_comes_back(address: str) -> None:
    with results_folder(f"{address}/run") as folder:
        (folder / "tensorboard").mkdir()
        (folder / "tensorboard" / "events").write_text("curves")
        (folder / "result.json").write_text("{}")
    copy = readable_folder(f"{address}/run")
    assert (copy / "tensorboard" / "events").read_text() == "curves" and (copy / "result.json").exists()
    with results_folder(f"{address}/run") as folder:
        assert (folder / "result.json").exists()
        (folder / "result.json").unlink()
    assert not (readable_folder(f"{address}/run") / "result.json").exists()


def test_the_status_of_a_run_at_an_address_is_read(address: str, tmp_path: Path) -> None:
    with results_folder(f"{address}/run") as folder, StatusFile(folder, "run", "tiny") as status:
        status.planned("stages", 3)
    told = v2a_here("status", f"{address}/run", cwd=tmp_path)
    assert told.stdout.startswith("tiny · finished\n"), told.stdout + told.stderr


def test_the_result_of_a_run_is_uploaded_last(s3: S3Server, address: str) -> None:
    with results_folder(f"{address}/run") as folder:
        for name in ("result.json", "zzz", "actor.safetensors"):
            (folder / name).write_text("1")
    puts = [path.rsplit("/", 1)[-1].split("?")[0] for method, path in s3.requests if method == "PUT"]
    assert max(puts.index("zzz"), puts.index("actor.safetensors")) < puts.index("result.json")


def test_only_one_process_writes_to_an_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2a_ray.result_folders, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(v2a_ray.result_folders, "BEAT_SECONDS", 0.5)
    with (
        results_folder(f"{address}/run"),
        pytest.raises(StorageError, match="another process"),
        results_folder(f"{address}/run"),
    ):
        pass
    with results_folder(f"{address}/run"):
        pass


def test_a_holder_that_was_overtaken_writes_no_more(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(v2a_ray.leases, "LEASE_SECONDS", 0.0)
    first, second = Lease(ObjectFolder(address)), Lease(ObjectFolder(address))
    assert first.acquire() and first.beat()
    assert second.acquire() or second.acquire()
    assert not first.beat() and second.beat()
    first.release()
    assert not Lease(ObjectFolder(address)).acquire(), "what was overtaken gives up nothing of its successor's"


def test_a_lease_that_is_given_up_is_had_at_once(address: str) -> None:
    first, second, third = (Lease(ObjectFolder(address)) for _ in range(3))
    assert first.acquire() and first.is_first and not second.acquire()
    first.release(unfinished=True)
    assert second.acquire() and not second.is_first and second.beat() and not third.acquire()
    second.release()
    assert ObjectFolder(address).names() == []
    assert third.acquire() and third.is_first


def test_files_of_others_at_an_address_are_left_alone(address: str) -> None:
    ObjectFolder(address).write("mine.txt", b"1")
    with pytest.raises(StorageError, match="no folder of results"), results_folder(address):
        pass
    assert ObjectFolder(address).names() == ["mine.txt"]


def test_a_job_takes_addresses_on_a_cluster(address: str, tmp_path: Path) -> None:
    job = make_job(write(tmp_path), [f"store={address}/store"])
    assert job.run_dir == f"{address}/tiny-iql_mixed-seed0"
    job = make_job(write(tmp_path), [], f"{address}/results")
    assert f"{address}/artifacts" in job.entrypoint


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "tiny.yaml", "--run-dir", "ftp://host/run"),
        ("run", "tiny.yaml", "store=az://container/x"),
        ("cache", "--store", "s3://bucket/x"),
        ("report", "s3://bucket/none-such", "-o", "s3://bucket/page.html"),
        ("diagnose", "s3://bucket/run"),
        ("export", "s3://bucket/run"),
        ("evaluate", "hopper/stock:medium", "-o", "s3://bucket/numbers.json"),
        ("data", "mix", "tiny.yaml", "--output", "s3://bucket/mix"),
    ],
)
def test_an_address_where_a_folder_is_needed_is_one_message(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    said = StringIO()
    monkeypatch.setattr(sys, "argv", ["v2a", *arguments])
    with chdir(tmp_path), redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]
