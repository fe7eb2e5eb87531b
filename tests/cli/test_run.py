"""The main job through the command line: real Ray, real MuJoCo, real files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.harm import flip
from tests.cli.command import CONFIG, v2a, v2a_here, yaml_folder
from v2a_ray.diagnosis.evidence import open_run
from v2a_ray.errors import DataError
from v2a_ray.export.policies import open_trained


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return yaml_folder(tmp_path_factory.mktemp("workspace"), tiny=CONFIG)


@pytest.fixture(scope="module")
def first_run(workspace: Path, ray_cluster: None) -> dict[str, Any]:
    done = v2a_here("run", "tiny.yaml", "--run-dir", "first", cwd=workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((workspace / "first/result.json").read_text())


def test_the_result_holds_every_documented_key(workspace: Path, first_run: dict[str, Any]) -> None:
    assert first_run["method"] == "v2a" and first_run["seed"] == 0
    assert first_run["config"]["policy"]["filter"]["rule"] == "top_fraction"
    names = [stage["name"] for stage in first_run["stages"]]
    expected = ["source", "rows/source", "rows/target", "modality", "advantage", "alignment", "policy"]
    assert names[-len(expected) :] == expected
    for stage in first_run["stages"]:
        assert not stage["cached"] and stage["seconds"] > 0 and Path(stage["artifact"]).is_dir()
    assert first_run["target"]["num_episodes"] == 3
    assert first_run["versions"]["mujoco"].startswith("3.")
    curves = pq.read_table(workspace / "first/curves.parquet")
    scores = curves.column("evaluation/normalized_score_mean").drop_null().to_pylist()
    assert len(scores) == 2 and scores[-1] == first_run["target"]["normalized_score_mean"]
    assert list((workspace / "first/tensorboard").glob("events*"))
    assert (workspace / "first/curves.png").stat().st_size > 1000


def test_second_run_reuses_everything_and_says_so(workspace: Path, first_run: dict[str, Any]) -> None:
    done = v2a_here("run", "tiny.yaml", "--run-dir", "second", cwd=workspace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("reused") == len(first_run["stages"])
    assert "starting Ray" not in done.stdout
    second = json.loads((workspace / "second/result.json").read_text())
    assert all(stage["cached"] for stage in second["stages"])
    assert second["target"] == first_run["target"]


@pytest.mark.slow
def test_equal_seeds_give_equal_bits_without_the_cache(workspace: Path, first_run: dict[str, Any]) -> None:
    done = v2a("run", "tiny.yaml", "store=fresh", "--run-dir", "third", cwd=workspace)
    assert done.returncode == 0, done.stderr
    third = json.loads((workspace / "third/result.json").read_text())
    assert not any(stage["cached"] for stage in third["stages"])
    assert third["target"] == first_run["target"]


def test_a_policy_changed_on_disk_is_not_used(workspace: Path, first_run: dict[str, Any]) -> None:
    shutil.copytree(workspace / "first", workspace / "rotten")
    assert open_trained(workspace / "rotten").return_mean == first_run["target"]["return_mean"]
    flip(workspace / "rotten/actor.safetensors", 0.9)
    with pytest.raises(DataError, match="not the policy that the run wrote"):
        open_trained(workspace / "rotten")


@pytest.mark.parametrize("damage", [flip, shutil.rmtree])
def test_diagnose_refuses_damaged_or_missing_artifacts(
    damage: Any, workspace: Path, first_run: dict[str, Any], tmp_path: Path
) -> None:
    folder, store = tmp_path / "run", tmp_path / "store"
    shutil.copytree(workspace / "runs/artifacts", store)
    folder.mkdir()
    content = json.dumps(first_run).replace(str(workspace / "runs/artifacts"), str(store))
    (folder / "result.json").write_text(content)
    (alignment,) = [Path(path) for path in open_run(folder).artifacts.values() if path.parent.name == "alignment"]
    damage(alignment / "column.parquet" if damage is flip else alignment)
    with pytest.raises(DataError, match="the run's alignment is gone or was damaged"):
        open_run(folder)


def test_another_method_reuses_shared_artifacts(ray_cluster: None, workspace: Path, first_run: dict[str, Any]) -> None:
    done = v2a_here("run", "tiny.yaml", "method=igdf", "--run-dir", "igdf", cwd=workspace)
    assert done.returncode == 0, done.stderr
    stages = {
        stage["name"]: stage["cached"] for stage in json.loads((workspace / "igdf/result.json").read_text())["stages"]
    }
    assert stages["source"] and stages["alignment"] and not stages["policy"]
    assert "modality" not in stages and "advantage" not in stages


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_checkpoint(workspace: Path, first_run: dict[str, Any]) -> None:
    overrides = ["policy.num_steps=2000", "policy.checkpoint_interval_steps=100", "evaluation.interval_steps=0"]
    command = [sys.executable, "-m", "v2a_ray.cli.main", "run", "tiny.yaml", *overrides, "--run-dir", "killed"]
    driver = subprocess.Popen(command, cwd=workspace, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (checkpoints := list(workspace.glob("runs/artifacts/policy/*.work/checkpoint.safetensors"))):
            assert time.monotonic() < deadline and driver.poll() is None
            time.sleep(0.1)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert checkpoints and not (workspace / "killed/result.json").exists()
    # Fewer steps would make another policy. A user types the same command again, so it must end by itself.
    done = v2a("run", "tiny.yaml", *overrides, "--run-dir", "killed", cwd=workspace)
    assert done.returncode == 0, done.stderr
    assert "goes on at step" in done.stdout
    result = json.loads((workspace / "killed/result.json").read_text())
    assert result["target"]["num_episodes"] == 3
    assert pq.read_table(workspace / "killed/curves.parquet").column("step").to_pylist()[-1] == 2000


def write_hdf5(path: Path, *, shuffled: bool = False, bad_value: bool = False) -> None:
    """Two episodes of Hopper's dimensions, in D4RL's layout."""
    generator = np.random.default_rng(0)
    states = generator.normal(size=(202, 11)).astype(np.float32)
    rows = np.concatenate([np.arange(100), np.arange(101, 201)])
    if shuffled:
        generator.shuffle(rows)
    observations = states[rows].copy()
    if bad_value:
        observations[117, 4] = np.nan
    with h5py.File(path, "w") as file:
        file["observations"], file["next_observations"] = observations, states[rows + 1]
        file["actions"] = generator.uniform(-1, 1, (200, 3)).astype(np.float32)
        file["rewards"], file["terminals"] = np.ones(200, np.float32), np.zeros(200, bool)


def test_ctrl_c_says_how_to_go_on(workspace: Path, first_run: dict[str, Any]) -> None:
    command = [
        sys.executable,
        "-m",
        "v2a_ray.cli.main",
        "run",
        "tiny.yaml",
        "policy.num_steps=1000000",
        "--run-dir",
        "c",
    ]
    driver = subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert driver.stdout
    try:
        assert any("policy: started" in line for line in driver.stdout)
        driver.send_signal(signal.SIGINT)
        _, errors = driver.communicate(timeout=60)
    finally:
        driver.kill()
    assert driver.returncode == 130
    assert "interrupted; the same command goes on where it stopped" in errors and "Traceback" not in errors


BAD_FILES = {
    "nan": ({"bad_value": True}, ["episode 1", "step 17", "observation"]),
    "unordered source": ({"shuffled": True}, ["not in order of time"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_data_is_named_by_place_and_leaves_nothing(ray_cluster: None, case: str, workspace: Path) -> None:
    content, expected = BAD_FILES[case]
    write_hdf5(workspace / "bad.hdf5", **content)
    done = v2a_here(
        "run", "tiny.yaml", f"sources.0.path={workspace}/bad.hdf5", "store=bad-store", "--run-dir", "bad", cwd=workspace
    )
    assert done.returncode == 2, done.stdout + done.stderr
    message = " ".join(done.stderr.split())
    assert all(part in message for part in ["error:", "bad.hdf5", *expected]), message
    assert "Traceback" not in done.stderr
    assert not (workspace / "bad/result.json").exists()
    assert not list(workspace.glob("bad-store/*/*.tmp-*"))


def test_a_missing_gpu_is_reported_before_any_computation(ray_cluster: None, workspace: Path) -> None:
    done = v2a_here("run", "tiny.yaml", "policy.device=cuda", "store=gpu-store", "--run-dir", "gpu", cwd=workspace)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: policy.device: cuda is asked for, and the cluster has no GPU")
    assert "Traceback" not in done.stderr and not (workspace / "gpu/result.json").exists()
    assert not list(workspace.glob("gpu-store/*/*"))


def test_a_run_that_would_wait_for_ever_is_refused_at_once(ray_cluster: None, workspace: Path) -> None:
    done = v2a_here("run", "tiny.yaml", "policy.num_threads=64", "store=many", "--run-dir", "many", cwd=workspace)
    assert done.returncode == 2 and "computed" not in done.stdout
    message = " ".join(done.stderr.split())
    assert "policy.num_threads: one process asks for 64 CPU, and the largest node has 2 CPU" in message


def test_a_run_directory_that_cannot_be_written(workspace: Path) -> None:
    (workspace / "a-file").write_text("in the way")
    done = v2a_here("run", "tiny.yaml", "--run-dir", "a-file/run", cwd=workspace)
    assert done.returncode == 2 and "cannot be written" in " ".join(done.stderr.split())


BAD_RUNS = {
    "unknown key": (["policy.num_stesp=3"], "unknown key; did you mean 'num_steps'"),
    "wrong type": (["policy.num_steps=many"], "policy.num_steps"),
    "unknown method": (["method=magic"], "unknown method 'magic'"),
    "unknown domain": (["target.domain=hopper/gravitas-2"], "target"),
    "domain of a label does not exist": (["sources.0.domain=hopper/moon"], "sources.0"),
    "unknown behaviour": (["sources.0.behavior=genius"], "genius"),
    "missing file": (["sources.0.path=nowhere.hdf5"], "nowhere.hdf5"),
    "empty mix": (["sources=[]"], "sources"),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_bad_input_is_one_message_and_status_2(case: str, workspace: Path) -> None:
    overrides, expected = BAD_RUNS[case]
    done = v2a_here("run", "tiny.yaml", *overrides, "--run-dir", "never", cwd=workspace)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and expected in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
    assert not (workspace / "never").exists()


def test_a_full_run_folder_is_one_message_and_nothing_is_cut_off(
    ray_cluster: None, workspace: Path, first_run: dict[str, Any]
) -> None:
    folder = workspace / "full"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        done = v2a_here("run", "tiny.yaml", "--run-dir", "full", cwd=workspace)
        left = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    message = " ".join(done.stderr.split())
    assert message.count("error:") == 1 and "full: cannot be written: No space left on device" in message
    for name in left.keys() & {"curves.parquet", "actor.safetensors", "config.yaml"}:
        assert name == "config.yaml" or left[name] == (workspace / "first" / name).read_bytes()
    assert not {"curves.png", "result.json"} & left.keys()
    assert v2a_here("run", "tiny.yaml", "--run-dir", "full", cwd=workspace).returncode == 0
