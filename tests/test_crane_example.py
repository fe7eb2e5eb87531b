"""The crane of examples/crane: a class and a function in one file, found by PYTHONPATH, as a user's own would be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "crane"


def in_folder(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(EXAMPLE.parents[1])])}
    return subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )


@pytest.mark.slow
def test_the_crane_is_recorded_checked_and_trained_on(tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLE, tmp_path / "crane")
    assert in_folder(folder, "crane.py").returncode == 0
    v2a = ("-m", "v2a_ray.cli.main")
    seen = in_folder(folder, *v2a, "data", "inspect", "crane.hdf5", "--domain", "gym:crane:Crane?max_episode_steps=150")
    assert seen.returncode == 0 and "all checks passed" in seen.stdout, seen.stdout + seen.stderr
    few = ["method=iql_target", "policy.num_steps=20", "policy.width=8", "evaluation.num_episodes=2"]
    done = in_folder(folder, *v2a, "run", "crane.yaml", *few, "--num-cpus", "1")
    assert done.returncode == 0 and "over 2 episodes in gym:crane:Crane" in done.stdout, done.stdout + done.stderr
