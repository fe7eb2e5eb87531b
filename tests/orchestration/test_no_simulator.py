"""A target without a simulator: every stage runs, held-out episodes stand for returns, and everything ranks by them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cli.command import v2a_here
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import read_table_folder, write_table
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import ConfigError, DataError
from v2a_ray.experiments.reading import load_experiment
from v2a_ray.experiments.sweep import load_sweep
from v2a_ray.orchestration.sweep.run_sweep import run_sweep
from v2a_ray.orchestration.train.run import run_experiment

SIZES = {"domain": "real", "observation_dim": 3, "action_dim": 2}
SETTINGS: dict[str, Any] = {
    "name": "arm",
    "method": "igdf",
    "target": {**SIZES, "path": "target"},
    "sources": [{**SIZES, "path": "source", "name": "other-arm"}],
    "alignment": {"num_steps": 5, "width": 16, "batch_size": 16},
    "policy": {"num_steps": 40, "width": 16, "batch_size": 16, "log_interval_steps": 10},
    "evaluation": {"interval_steps": 20},
    "offline": {"num_steps": 30, "num_critics": 2, "held_out_fraction": 0.25},
}
ALONE = {"method": "iql_target", "sources": []}


def recording(num_episodes: int, seed: int) -> EpisodeTable:
    """A robot that nobody simulates: its state moves by what it does, and it is paid for being near zero."""
    generator = np.random.default_rng(seed)
    states = np.empty((num_episodes, 11, 3), np.float32)
    states[:, 0] = generator.normal(size=(num_episodes, 3))
    action = np.empty((num_episodes, 10, 2), np.float32)
    for step in range(10):
        action[:, step] = np.tanh(generator.normal(size=(num_episodes, 2)) - states[:, step, :2])
        states[:, step + 1] = 0.9 * states[:, step] + np.pad(action[:, step], ((0, 0), (0, 1)))
    following = states[:, 1:].reshape(-1, 3)
    return EpisodeTable(
        observation=states[:, :-1].reshape(-1, 3),
        action=action.reshape(-1, 2),
        reward=-np.abs(following).sum(axis=1),
        next_observation=following,
        offsets=np.arange(num_episodes + 1) * 10,
        terminated=np.zeros(num_episodes, bool),
        truncated=np.ones(num_episodes, bool),
        episode_id=tuple(f"{seed}/{index}" for index in range(num_episodes)),
        source=("arm",) * num_episodes,
        domain=("real",) * num_episodes,
        behavior=("teleoperated",) * num_episodes,
    )


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("arms")
    write_table(recording(12, seed=0), folder / "target", robot="real")
    write_table(recording(8, seed=1), folder / "source", robot="real")
    return folder


def written(folder: Path, name: str, **changes: Any) -> Path:
    content = {**SETTINGS, "data_root": str(folder), "store": str(folder / "store"), **changes}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def run(folder: Path, name: str, **changes: Any) -> dict[str, Any]:
    config = load_experiment(written(folder, name, **changes))
    return run_experiment(config, make_plan(config), folder / "runs" / name)


@pytest.fixture(scope="module")
def finished(workspace: Path, ray_cluster: None) -> dict[str, dict[str, Any]]:
    return {"filtered": run(workspace, "filtered"), "alone": run(workspace, "alone", **ALONE)}


def test_held_out_numbers_stand_for_returns(finished: dict[str, dict[str, Any]]) -> None:
    for result in finished.values():
        target = result["target"]
        assert result["evaluation"] == "offline" and "return_mean" not in target
        assert target["rank_by"] == "td_error" and target["rank_score"] == -target["td_error"]
        assert target["fitted_q_lower"] == pytest.approx(target["fitted_q_mean"] - target["fitted_q_std"])
        low, high = target["fitted_q_interval"]
        assert low < target["fitted_q_mean"] < high < 0.0 < target["td_error"]
        assert (target["num_held_out_episodes"], target["num_held_out_transitions"]) == (3, 30)
    assert finished["filtered"]["target"]["data_kept"] == pytest.approx(0.75, abs=0.05)
    assert 0.0 <= finished["filtered"]["target"]["source_as_aligned"] <= 1.0


def test_no_stage_sees_the_held_out_episodes(workspace: Path, finished: dict[str, dict[str, Any]]) -> None:
    stages = {stage["name"]: Path(stage["artifact"]) for stage in finished["alone"]["stages"]}
    assert set(stages) == {"data/target", "rows/target", "policy"}
    trained, unseen = (read_table_folder(stages["data/target"] / name) for name in ("table", "held_out"))
    assert (trained.num_episodes, unseen.num_episodes) == (9, 3)
    every = {tuple(row) for row in read_table_folder(workspace / "target").observation.tolist()}
    seen, held = ({tuple(row) for row in table.observation.tolist()} for table in (trained, unseen))
    assert not seen & held and seen | held == every


def test_runs_are_compared_selected_and_reported(workspace: Path, finished: dict[str, dict[str, Any]]) -> None:
    names = [str(workspace / "runs" / name) for name in finished]
    printed = " ".join(v2a_here("report", *names, "--format", "markdown", cwd=workspace).stdout.split())
    for result in finished.values():
        assert f"{result['target']['rank_score']:.1f}" in printed
    assert v2a_here("report", *names, "-o", "page.html", cwd=workspace).returncode == 0
    page = (workspace / "page.html").read_text()
    assert "The target has no simulator, so a score is no return" in page and "Not known: the return" in page
    command = ("select", *names, "--by", "td_error", "--steps", "30", "-o", "selection.json")
    chosen = v2a_here(*command, cwd=workspace)
    assert chosen.returncode == 0, chosen.stderr
    policies = json.loads((workspace / "selection.json").read_text())["policies"]
    assert policies[0]["td_error"] <= policies[1]["td_error"] and policies[0]["score"] == -policies[0]["td_error"]
    assert all(each["num_held_out_episodes"] == 3 for each in policies)


def test_with_the_source_the_value_ranks(workspace: Path, finished: dict[str, dict[str, Any]]) -> None:
    names = ("runs/alone", "runs/filtered")  # the first has no source
    options = ("--with-source", "--steps", "30", "--critics", "2")
    chosen = v2a_here("select", *names, *options, "-o", "with.json", cwd=workspace)
    assert chosen.returncode == 0, chosen.stderr
    assert v2a_here("select", *names, *options[1:], "-o", "without.json", cwd=workspace).returncode == 0
    found, without = (json.loads((workspace / name).read_text()) for name in ("with.json", "without.json"))
    scores = [each["score"] for each in found["policies"]]
    assert scores == [each["lower_value"] for each in found["policies"]] == sorted(scores, reverse=True)
    assert found["settings"]["by"] == "fitted_q_lower" and without["settings"]["by"] == "td_error"
    fitted, alone = ({each["policy"]: each["value"] for each in content["policies"]} for content in (found, without))
    assert fitted.keys() == alone.keys() and fitted != alone  # more was fitted to
    refused = v2a_here("select", "runs/alone", "--with-source", cwd=workspace)
    assert refused.returncode == 2 and "no policy is a run with sources" in refused.stderr


def test_a_policy_of_no_simulator_is_not_rolled_out(workspace: Path, finished: dict[str, dict[str, Any]]) -> None:
    done = v2a_here("evaluate", str(workspace / "runs/alone"), cwd=workspace)
    assert done.returncode == 2 and "has no simulator" in done.stderr


@pytest.mark.slow
def test_searches_and_schedulers_rank_by_held_out_numbers(workspace: Path, ray_cluster: None) -> None:
    settings = {**SETTINGS, **ALONE, "data_root": str(workspace), "store": str(workspace / "store")}
    content = {
        "name": "search",
        "settings": {key: value for key, value in settings.items() if key != "name"},
        "search": {
            "algorithm": "optuna",
            "num_trials": 3,
            "space": {"policy.learning_rate": {"log_uniform": [1e-4, 1e-2]}},
        },
        "scheduler": {"kind": "median", "grace_steps": 20},
    }
    path = workspace / "search_sweep.yaml"
    path.write_text(yaml.safe_dump(content))
    sweep = load_sweep(path)
    assert sweep.objective == ("rank_score", "max")
    folder = workspace / "search"
    folder.mkdir()
    results = run_sweep(sweep, folder)
    scores = [result.score for result in results if result.status == "finished"]
    assert len(results) == 3 and scores and all(score is not None and score < 0.0 for score in scores)
    table = (folder / "table.md").read_text()
    assert "rank_score" in table and f"{max(score for score in scores if score is not None):.3g}" in table
    content["search"]["objectives"] = {"return_mean": "max"}  # type: ignore[index]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"return_mean is asked for, and the target real.* has no simulator"):
        load_sweep(path)


def test_without_rewards_the_likelihood_of_actions_ranks(workspace: Path, ray_cluster: None) -> None:
    rows = recording(6, seed=3)
    lines = ["s0,s1,s2,a0,a1,run"]
    for row, (state, action) in enumerate(zip(rows.observation, rows.action, strict=True)):
        lines.append(",".join(str(each) for each in (*state, *action, row // 10)))
    (workspace / "arm.csv").write_text("\n".join(lines) + "\n")
    columns = {"observation": "s*", "action": "a*", "episode": "run"}
    target = {**SIZES, "path": "arm.csv", "columns": columns}
    result = run(workspace, "no_rewards", method="bc_target", sources=[], target=target)["target"]
    assert result["rank_by"] == "action_log_likelihood" and result["fitted_q_mean"] is None
    assert result["rank_score"] == result["action_log_likelihood"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sources": []}, r"method igdf trains on sources and there are none.*iql_target"),
        ({"target": {"domain": "real", "path": "target"}}, r"observation_dim is not given"),
        ({"target": {**SIZES, "num_transitions": 10, "behavior": "random"}}, r"has no simulator to roll out in"),
        ({"target": {**SIZES, "observation_dim": 0, "path": "target"}}, r"observation_dim is 0"),
        ({"sources": [{**SIZES, "action_dim": 5, "path": "source"}]}, r"5 actions"),
        ({"target": {"domain": "hopper/stock", "observation_dim": 3, "path": "target"}}, r"for domain real alone"),
    ],
)
def test_what_does_not_fit_is_refused(workspace: Path, changes: dict[str, Any], said: str) -> None:
    done = v2a_here("run", str(written(workspace, "refused", **changes)), cwd=workspace)
    assert done.returncode == 2
    assert re.search(said, " ".join(done.stderr.split())), done.stderr


def test_too_few_episodes_cannot_be_held_out(workspace: Path, ray_cluster: None) -> None:
    write_table(recording(4, seed=5), workspace / "few", robot="real")
    with pytest.raises(DataError, match="4 episodes, of which none can be held out"):
        run(workspace, "few", **ALONE, target={**SIZES, "path": "few"})
