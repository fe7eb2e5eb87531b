"""Behaviour policies: acting, loading, mixing, and choosing them among a training's snapshots."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from v2a_ray.checksums import write_sealed
from v2a_ray.domains import behavior_export, behaviors
from v2a_ray.domains.behaviors import GaussianActor, behavior_components, evaluate_policy, list_behaviors, load_behavior
from v2a_ray.errors import DomainError, StorageError
from v2a_ray.outputs import foreign_files


def actor(seed: int = 0, observation_dim: int = 11, action_dim: int = 3) -> GaussianActor:
    generator = np.random.default_rng(seed)
    widths = [observation_dim, 8, 8, action_dim]
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    return GaussianActor(
        weights=tuple(generator.normal(size=shape).astype(np.float32) for shape in shapes),
        biases=tuple(generator.normal(size=out).astype(np.float32) for out, _ in shapes),
        observation_mean=generator.normal(size=observation_dim).astype(np.float32),
        observation_std=np.full(observation_dim, 2.0, np.float32),
        log_std=np.zeros(action_dim, np.float32),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for seed, name in enumerate(["snapshot-000004", "snapshot-000080", "medium", "expert"]):
        save_file(actor(seed).to_tensors(), tmp_path / f"{name}.safetensors")
    return tmp_path


def test_actions_are_the_clipped_mean_of_the_normalised_observation() -> None:
    policy = actor()
    observation = np.random.default_rng(1).normal(size=(5, 11))
    observation[0, 0] = 1e9  # clipped at 10 standard deviations, as in training
    normalized = np.clip((observation - policy.observation_mean) / 2.0, -10, 10)
    hidden = np.tanh(normalized @ policy.weights[0].T + policy.biases[0])
    hidden = np.tanh(hidden @ policy.weights[1].T + policy.biases[1])
    expected = np.clip(hidden @ policy.weights[2].T + policy.biases[2], -1, 1)
    actions = policy.act(observation)
    assert actions.dtype == np.float32
    assert actions == pytest.approx(expected, abs=1e-5)


def test_loading_gives_back_what_was_saved(folder: Path) -> None:
    observation = np.ones((2, 11))
    loaded = load_behavior("hopper/gravity-0.5", "expert", folder)
    assert np.array_equal(loaded.act(observation), actor(3).act(observation))


def test_random_needs_no_weights_and_depends_on_the_seed() -> None:
    observation = np.zeros((4, 11))
    one, same, other = (
        load_behavior("hopper/friction-0.3", "random", seed=seed).act(observation) for seed in (0, 0, 1)
    )
    assert one.shape == (4, 3)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_mixes(folder: Path) -> None:
    assert behavior_components("hopper", "expert", folder) == [("expert", 1.0)]
    assert behavior_components("hopper", "medium-expert", folder) == [("medium", 0.5), ("expert", 0.5)]
    assert behavior_components("hopper", "medium-replay", folder) == [
        ("random", 0.25),
        ("snapshot-000004", 0.25),
        ("snapshot-000080", 0.25),
        ("medium", 0.25),
    ]


def test_unknown_behaviours_are_refused(folder: Path) -> None:
    with pytest.raises(DomainError, match=r"v2a behaviors train hopper/friction-0\.3@d4rl"):
        load_behavior("hopper/friction-0.3", "medium")
    with pytest.raises(DomainError, match="random, expert, medium, snapshot-000004"):
        load_behavior("hopper", "great", folder)
    with pytest.raises(DomainError, match="11 observations and 3 actions, walker2d has 17 and 6"):
        load_behavior("walker2d", "expert", folder)


def test_evaluation_is_deterministic() -> None:
    returns = evaluate_policy(actor(), "hopper", num_episodes=3, seed=5)
    assert returns.shape == (3,)
    assert np.array_equal(returns, evaluate_policy(actor(), "hopper", num_episodes=3, seed=5))


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished training whose snapshot `i` returns the `i`-th number below."""
    returns = [10.0, 200.0, 500.0, 900.0, 1400.0, 2700.0, 3100.0, 2000.0]
    snapshots = [
        {"name": f"snapshot-{index:06d}", "num_steps": 1000 * index, "return_mean": value}
        for index, value in enumerate(returns)
    ]
    (tmp_path / "snapshots").mkdir()
    for index, snapshot in enumerate(snapshots):
        # Acting does not use `log_std`, so it can carry the return to `measure` below.
        tensors = actor().to_tensors() | {"log_std": np.full(3, returns[index], np.float32)}
        save_file(tensors, tmp_path / "snapshots" / f"{snapshot['name']}.safetensors")
    run = {
        "domain": "hopper/stock@d4rl",
        "seed": 0,
        "num_steps": 8000,
        "settings": {},
        "command": "v2a behaviors train",
    }
    write_sealed(tmp_path / "run.json", run)
    write_sealed(tmp_path / "progress.json", {"num_steps": 8000, "seconds": 1.0, "snapshots": snapshots})

    def measure(policy: object, domain: object, num_episodes: int, seed: int) -> np.ndarray:
        value = float(policy.log_std[0]) if isinstance(policy, GaussianActor) else 15.0
        return np.full(num_episodes, value)

    monkeypatch.setattr(behavior_export, "evaluate_policy", measure)
    monkeypatch.setattr(behavior_export, "WEIGHTS_FOLDER", tmp_path / "package")
    monkeypatch.setattr(behaviors, "WEIGHTS_FOLDER", tmp_path / "package")
    return tmp_path


def test_export_takes_the_best_as_expert_and_a_third_of_it_as_medium(output: Path) -> None:
    folder = behavior_export.export_behaviors(output)
    rows = {row["behavior"]: row for row in json.loads((folder / "provenance.json").read_text())["behaviors"]}
    assert rows["expert"]["return_mean"] == 3100.0
    assert rows["medium"]["return_mean"] == 900.0
    assert rows["random"]["return_mean"] == 15.0
    assert [name for name in rows if name.startswith("snapshot-")] == [f"snapshot-{i:06d}" for i in range(3)]
    assert all(row["num_episodes"] == 20 for row in rows.values())


def test_installed_behaviors_are_found_by_domain(output: Path) -> None:
    behavior_export.export_behaviors(output)
    with pytest.raises(DomainError, match="trained in hopper/stock@d4rl"):
        behavior_export.install_behaviors(output, "hopper/gravity-0.5")
    behavior_export.install_behaviors(output, "hopper")
    assert isinstance(load_behavior("hopper", "expert"), GaussianActor)
    listed = {(row["domain"], row["behavior"]) for row in list_behaviors()}
    assert ("hopper/stock@d4rl", "medium") in listed
    # A new installation replaces only installed files: a note of the user's protects the folder.
    installed = behavior_export.install_behaviors(output, "hopper")
    (installed / "note.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"note\.txt"):
        behavior_export.install_behaviors(output, "hopper")
    assert (installed / "note.txt").read_text() == "mine" and (installed / "expert.safetensors").exists()


def test_every_packaged_folder_of_weights_may_be_replaced_by_the_next_training() -> None:
    folders = [path for path in behaviors.WEIGHTS_FOLDER.iterdir() if path.is_dir()]
    assert len(folders) >= 20
    assert {path.name: foreign_files(path) for path in folders} == {path.name: [] for path in folders}


def test_export_without_a_snapshot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DomainError, match="no snapshot yet"):
        behavior_export.export_behaviors(tmp_path)


def test_export_of_a_damaged_training_gives_one_message(output: Path) -> None:
    (output / "progress.json").write_text("{}")
    with pytest.raises(DomainError, match=r"cannot be read: it has no checksum"):
        behavior_export.export_behaviors(output)
