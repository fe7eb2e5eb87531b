"""RLlib's learners as baselines: the transitions that they read, the files that they write, and reproducibility."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from v2a_ray.data.loading.sampler import Preprocessing
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.context import Job
from v2a_ray.engine.trainer import load_checkpoint, save_checkpoint
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import resolve
from v2a_ray.orchestration.rllib.baselines import BaselineLearner, fit_rllib_policy, prepare, seed_everything
from v2a_ray.stages.policy.config import LEARNERS, PolicyConfig

PEERS = ["rllib_bc", "rllib_marwil", "rllib_cql", "rllib_iql"]


def two_episodes(observation_dim: int = 1, action_dim: int = 1) -> EpisodeTable:
    """A terminated episode of three steps and a truncated one of two; the states count up from 1 and from 11."""
    states = np.array([1, 2, 3, 11, 12], np.float32)[:, None].repeat(observation_dim, 1)
    return EpisodeTable(
        observation=states,
        action=np.linspace(-0.4, 0.4, 5, dtype=np.float32)[:, None].repeat(action_dim, 1),
        reward=np.array([1, 2, 3, 4, 5], np.float32),
        next_observation=states + 1,
        offsets=np.array([0, 3, 5]),
        terminated=np.array([True, False]),
        truncated=np.array([False, True]),
        episode_id=("falls", "is cut off"),
        source=("made",) * 2,
        domain=("unknown",) * 2,
        behavior=("unknown",) * 2,
    )


def small(learner: str, **more: Any) -> PolicyConfig:
    return LEARNERS(
        **{"learner": learner, "data": "target", "num_steps": 6, "batch_size": 4, "width": 8, "discount": 0.5} | more
    )


def peer(learner: str, folder: Path, table: EpisodeTable, **more: Any) -> BaselineLearner:
    seed_everything(0)
    made = BaselineLearner(small(learner, **more), table.observation_dim, table.action_dim, seed=0)
    made.add_table(table, folder / "episodes")
    seed_everything(0)
    return made


@pytest.mark.parametrize("learner", PEERS)
def test_rllib_reads_the_transitions_of_the_table(learner: str, tmp_path: Path) -> None:
    prepared = Preprocessing(np.array([1.0], np.float32), np.array([2.0], np.float32), reward_scale=10.0)
    (seen,) = peer(learner, tmp_path, prepare(two_episodes(), prepared)).tables
    np.testing.assert_allclose(seen["obs"][:, 0], [0, 0.5, 1, 5, 5.5])
    np.testing.assert_allclose(seen["new_obs"][:, 0], [0.5, 1, 1.5, 5.5, 6])
    np.testing.assert_allclose(seen["actions"][:, 0], [-0.4, -0.2, 0, 0.2, 0.4], atol=1e-7)
    np.testing.assert_allclose(seen["rewards"], [10, 20, 30, 40, 50])
    # The losses bootstrap where this is False, so also at the truncated step.
    assert seen["terminateds"].tolist() == [False, False, True, False, False]
    assert seen["truncateds"].tolist() == [False, False, False, False, True]


def test_marwil_reads_discounted_returns(tmp_path: Path) -> None:
    (seen,) = peer("rllib_marwil", tmp_path, two_episodes()).tables
    # gamma 0.5: 1 + 0.5 (2 + 0.5 * 3), 2 + 0.5 * 3, 3; the third step is terminal.
    np.testing.assert_allclose(seen["value_targets"][:3], [2.75, 3.5, 3.0], rtol=1e-5)


@pytest.mark.parametrize("learner", PEERS)
def test_resumed_baseline_equals_an_uninterrupted_one(learner: str, tmp_path: Path) -> None:
    whole = peer(learner, tmp_path / "whole", two_episodes())
    for step in range(3):
        whole.update(step)
    save_checkpoint(tmp_path / "checkpoint.safetensors", whole, 3, [], {"rllib": whole})
    for step in range(3, 6):
        whole.update(step)
    resumed = peer(learner, tmp_path / "resumed", two_episodes())
    before = {name: tensor.clone() for name, tensor in resumed.module.state_dict().items()}
    assert load_checkpoint(tmp_path / "checkpoint.safetensors", resumed, {"rllib": resumed}) == (3, [])
    for step in range(3, 6):
        resumed.update(step)
    expected, got = whole.module.state_dict(), resumed.module.state_dict()
    assert all(torch.equal(got[name], expected[name]) for name in expected)
    assert any(not torch.equal(got[name], before[name]) for name in before)


def experiment(method: str, **policy: Any) -> ExperimentConfig:
    rolled_out = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 5}
    settings = small(method, log_interval_steps=2, **policy).model_dump(exclude={"learner"}, exclude_unset=True)
    raw = {"name": "test", "method": method, "target": rolled_out, "sources": [rolled_out], "policy": settings}
    # Returns of 6 and 9 would be scaled by 333, and MARWIL does not clamp its exponent.
    raw["preprocessing"] = {"reward_scale": 1.0}
    return resolve(raw | {"evaluation": {"num_episodes": 2, "interval_steps": 3}})


@pytest.mark.parametrize(("method", "data"), [(peer, "target") for peer in PEERS] + [("rllib_iql", "mixed")])
def test_baseline_writes_the_files_of_the_policy_stage(method: str, data: str, tmp_path: Path) -> None:
    for role in ("source", "target"):
        write_table(two_episodes(11, 3), tmp_path / role / "table", robot="hopper")
    config = experiment(method, data=data)
    weights = []
    for run in ("first", "again"):
        output = tmp_path / run
        output.mkdir()
        inputs = {role: tmp_path / role for role in ("source", "target")}
        fit_rllib_policy(Job(config, inputs, output, tmp_path / f"work-{run}"))
        weights.append(load_file(output / "module.safetensors"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    np.testing.assert_allclose(weights[0]["observation_mean_O"], [5.8] * 11, rtol=1e-6)
    curves = pq.read_table(tmp_path / "first" / "curves.parquet").to_pydict()
    assert curves["step"] == [2, 3, 4, 6]
    assert [score is not None for score in curves["evaluation/normalized_score_mean"]] == [False, True, False, True]
    assert curves["policy/actor_loss"][0] is not None
    evaluation = json.loads((tmp_path / "first" / "evaluation.json").read_text())
    assert len(evaluation["returns"]) == 2
    assert evaluation["return_mean"] == pytest.approx(np.mean(evaluation["returns"]))


@pytest.mark.parametrize("learner", PEERS)
def test_baseline_refuses_a_filter(learner: str) -> None:
    section = {"filter": {"rule": "top_fraction"}}
    with pytest.raises(ConfigError, match=f"policy.learner={learner} reads no columns"):
        raw = experiment(learner).model_dump(mode="json", exclude_unset=True)
        resolve(raw | {"alignment": {"kind": "contrastive"}, "policy": raw["policy"] | section})
