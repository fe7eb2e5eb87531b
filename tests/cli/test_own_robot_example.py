"""`examples/own_robot/` from MJCF to a trained policy, with few steps: the commands of docs/own_robot.md."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.command import v2a
from v2a_ray.data.table.folder import read_table_folder

EXAMPLE = Path(__file__).parents[2] / "examples/own_robot"


@pytest.mark.slow
def test_an_arm_from_mjcf_to_a_policy(tmp_path: Path) -> None:
    folder = tmp_path / "arm"
    shutil.copytree(EXAMPLE, folder)
    ppo = ("reward_scale=0.3", "train_batch_steps=256", "minibatch_steps=64", "num_epochs=1", "num_environments=2")
    actor = "behaviors/behaviors/medium.safetensors"
    collected = ("--behavior", actor, "--num-transitions", "200", "--num-actors", "1", "-o", "heavy")
    size = "num_transitions=300"
    settings = ("policy.num_steps=20", "alignment.num_steps=10", "evaluation.num_episodes=2", f"target.{size}")
    for words in (
        ("behaviors", "train", "mjcf:arm.yaml", *ppo, "--num-steps", "512", "--output", "behaviors"),
        ("data", "collect", "--domain", "mjcf:arm.yaml/mass:fore-3", *collected),
        ("run", "experiment.yaml", *settings, f"sources.0.{size}", f"sources.1.{size}", "--run-dir", "result"),
    ):
        done = v2a(*words, cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
    table = read_table_folder(folder / "heavy")
    assert (table.observation_dim, table.action_dim, table.num_transitions) == (12, 3, 200)
    target = json.loads((folder / "result/result.json").read_text())["target"]
    assert target["num_episodes"] == 2 and -200.0 < target["return_mean"] < 0.0
    assert target["normalized_score_mean"] == pytest.approx(100 * (target["return_mean"] + 35.1) / (35.1 - 14.7))
