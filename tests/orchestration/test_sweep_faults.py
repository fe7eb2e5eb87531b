"""Faults in a sweep: a dead process, Ctrl-C, a full disk, a loss that is not finite."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.harm import HARMS
from tests.orchestration.tiny_sweeps import rows_of, sweep, write_sweep
from v2a_ray.errors import DivergenceError

LONG: dict[str, Any] = {
    "policy": {"num_steps": 6000, "checkpoint_interval_steps": 100, "log_interval_steps": 100},
    "evaluation": {"interval_steps": 0},
}


def start(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "v2a_ray.cli.main", "sweep", path.name, "--run-dir", path.stem, "--num-cpus", "1"]
    return subprocess.Popen(command, cwd=path.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(path: Path) -> subprocess.CompletedProcess[str]:
    process = start(path)
    out, err = process.communicate(timeout=240)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for_a_checkpoint(folder: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not list(folder.glob("artifacts/policy/*.work/checkpoint.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def trials_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes in which the sweep's trials run."""
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "ImplicitFunc" in child.name() or "train_trial" in child.name()]


@pytest.mark.slow
def test_a_trial_that_dies_is_started_again_from_its_checkpoint(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, name="dies", axes={"seed": [0]}, settings=LONG)
    process = start(path)
    wait_for_a_checkpoint(tmp_path, process)
    (trial,) = trials_of(process)
    trial.send_signal(signal.SIGKILL)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, out + err
    assert "policy 0: goes on at step" in out
    assert [row["status"] for row in rows_of(path)] == ["finished"]


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_the_same_command_does(tmp_path: Path) -> None:
    path = write_sweep(tmp_path, name="stops", axes={"seed": [0, 1]}, settings=LONG)
    process = start(path)
    wait_for_a_checkpoint(tmp_path, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "the same command goes on where it stopped" in err
    done = run(path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "goes on at step" in done.stdout
    assert [row["status"] for row in rows_of(path)] == ["finished"] * 2


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk too small for one policy, in place of the store's folder of policies."""
    folder = tmp_path / "artifacts" / "policy"
    folder.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    yield folder
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_one_message_and_keeps_finished_work(tmp_path: Path, full_disk: Path) -> None:
    path = write_sweep(tmp_path, name="full", axes={"seed": [0, 1, 2, 3]})
    done = run(path)
    assert done.returncode == 2
    message = " ".join(done.stderr.split())
    assert "No space left on device" in message and "the same command goes on" in message
    upstream = {file: file.stat().st_mtime_ns for file in tmp_path.glob("artifacts/[!p]*/*/artifact.json")}
    # The sweep ended with the first trial that could not write, and its table says so too.
    assert "not finished" in {row["status"] for row in rows_of(path)}
    subprocess.run(["umount", str(full_disk)], check=True)
    again = run(path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert [row["status"] for row in rows_of(path)] == ["finished"] * 4
    assert all(file.stat().st_mtime_ns == made for file, made in upstream.items())


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_one_trial_and_says_why(ray_cluster: None, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, name="diverges", axes={"policy.learning_rate": [1e30, 3e-4]})
    sweep(path)
    status = {row["axis/policy.learning_rate"]: row["status"] for row in rows_of(path)}
    assert status["0.0003"] == "finished"
    assert status["1e+30"].startswith("failed: update step 10: ") and "is not finite" in status["1e+30"]
    # The trial would diverge again, so Tune made no second attempt.
    (trial,) = (path.with_suffix("") / "tune/diverges").glob("trial-0000")
    assert not list(trial.glob("error*"))


def test_a_stage_that_fails_ends_the_policies_that_need_it_and_no_others(ray_cluster: None, tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path, name="stage", settings={"alignment": {"learning_rate": 1e30}}, axes={"method": ["igdf", "iql_mixed"]}
    )
    for again in range(2):  # the failed policy is tried again, and the finished one found
        failed, finished = sweep(path)
        assert finished.status == "finished", again
        assert failed.status.startswith("failed: a stage that it needs failed: ") and "alignment" in failed.status
    assert [row["status"] for row in rows_of(path)] == [failed.status, "finished"]


@pytest.mark.slow
def test_a_roll_out_that_fails_does_not_take_along_those_it_shares_a_task_with(
    ray_cluster: None, tmp_path: Path
) -> None:
    source = {"domain": "hopper/gravity-0.5", "num_transitions": 100}
    mixes = {name: {"sources": [source | {"behavior": name}]} for name in ("random", "statistics:mean")}
    path = write_sweep(tmp_path, name="rolled", axes={"mix": mixes})
    finished, failed = sweep(path)
    assert finished.status == "finished" and "behaviour statistics:mean: gives " in failed.status


def test_a_sweep_of_which_nothing_can_be_trained_ends_with_the_reason(ray_cluster: None, tmp_path: Path) -> None:
    path = write_sweep(
        tmp_path, name="none", settings={"alignment": {"learning_rate": 1e30}, "method": "igdf"}, axes={"seed": [0, 1]}
    )
    with pytest.raises(DivergenceError, match="alignment"):
        sweep(path)


@pytest.mark.slow
def test_policies_that_were_removed_are_trained_again(ray_cluster: None, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, name="removed", axes={"seed": [0]})
    sweep(path)
    shutil.rmtree(tmp_path / "artifacts/policy")
    assert [result.status for result in sweep(path)] == ["finished"]
    assert len(list(tmp_path.glob("artifacts/policy/*/artifact.json"))) == 1


@pytest.mark.slow
def test_damaged_notes_of_a_sweep_are_written_again(ray_cluster: None, tmp_path: Path) -> None:
    path = write_sweep(tmp_path, name="rotten", axes={"policy.learning_rate": [1e30, 3e-4]})
    sweep(path)
    folder = path.with_suffix("")
    before = sorted(row["status"] for row in rows_of(path))
    for name, harm in zip(
        ("trials.json", "trial_status.jsonl", "results.parquet", "table.md"), HARMS.values(), strict=True
    ):
        harm(folder / name)
    sweep(path)
    assert sorted(row["status"] for row in rows_of(path)) == before
    assert json.loads((folder / "trials.json").read_text())["name"] == "rotten" and (folder / "table.md").exists()
