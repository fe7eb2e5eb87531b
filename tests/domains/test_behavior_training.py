"""Training behaviours with RLlib: interrupted, resumed, exported. Tens of seconds, hence slow."""

from __future__ import annotations

import json
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from v2a_ray.domains import make_environment
from v2a_ray.domains.behaviors import load_behavior
from v2a_ray.errors import ConfigError
from v2a_ray.orchestration.rllib.behavior_training import TrainingProgress, damaged, train_behavior
from v2a_ray.orchestration.rllib.ppo import PPOSettings

SMALL = PPOSettings(train_batch_steps=512, minibatch_steps=256, num_epochs=2, num_environments=4)


class InterruptedTrainingError(Exception):
    """Simulates a kill: no code after an iteration's progress call runs."""


@pytest.mark.slow
def test_an_interrupted_training_goes_on_and_ends_with_behaviors(tmp_path: Path) -> None:
    seen: list[int] = []

    def interrupt(progress: TrainingProgress) -> None:
        seen.append(progress.num_steps)
        if len(seen) == 2:
            raise InterruptedTrainingError

    arguments = {"settings": SMALL, "num_snapshots": 4, "checkpoint_seconds": 0.0}
    with pytest.raises(InterruptedTrainingError):
        train_behavior("hopper", tmp_path, 2048, progress=interrupt, **arguments)  # type: ignore[arg-type]
    saved = json.loads((tmp_path / "progress.json").read_text())["num_steps"]
    assert saved == seen[-1]

    folder = train_behavior("hopper", tmp_path, 2048, progress=lambda p: seen.append(p.num_steps), **arguments)  # type: ignore[arg-type]
    assert seen == sorted(set(seen))
    assert seen[2] <= saved + 512 + SMALL.num_environments
    assert seen[-1] >= 2048
    provenance = json.loads((folder / "provenance.json").read_text())
    assert {"random", "medium", "expert"} <= {row["behavior"] for row in provenance["behaviors"]}
    action = load_behavior("hopper", "expert", folder).act(np.zeros((2, 11)))
    assert action.shape == (2, 3)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1
    assert list((tmp_path / "tensorboard").iterdir())
    with pytest.raises(ConfigError, match="another domain"):
        train_behavior("hopper/gravity-0.5", tmp_path, 2048, **arguments)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_shifted_environment_steps_as_fast_as_gymnasiums_own() -> None:
    def seconds(environment: gymnasium.Env) -> float:
        environment.reset(seed=0)
        generator = np.random.default_rng(0)
        actions = generator.uniform(-1, 1, (1500, 3)).astype(np.float32)
        started = time.process_time()
        for action in actions:
            _, _, terminated, truncated, _ = environment.step(action)
            if terminated or truncated:
                environment.reset()
        return time.process_time() - started

    # Interleaved and the best of several runs, because other processes slow both down.
    # Both are stock: a shift changes how often the robot touches the ground, and so the cost of the simulation.
    pairs = [(seconds(make_environment("hopper@modern")), seconds(gymnasium.make("Hopper-v4"))) for _ in range(10)]
    ours, theirs = (min(column) for column in zip(*pairs, strict=True))
    assert theirs / ours >= 0.95


@pytest.mark.slow
def test_a_damaged_training_starts_over_and_keeps_the_users_files(tmp_path: Path) -> None:
    arguments = {"settings": SMALL, "num_snapshots": 2, "checkpoint_seconds": 0.0}
    train_behavior("hopper", tmp_path, 1024, **arguments)  # type: ignore[arg-type]
    notes = [tmp_path / name / "note.txt" for name in ("snapshots", "checkpoints", "tensorboard")]
    for note in notes:
        note.write_text("mine")
    assert damaged(tmp_path) is None
    whole = {name: (tmp_path / "snapshots" / name).read_bytes() for name in _snapshots(tmp_path)}
    for pattern in ("run.json", "progress.json", "snapshots/*.safetensors", "checkpoints/step-*/**/*.pkl"):
        file = next(tmp_path.glob(pattern))
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        assert damaged(tmp_path), pattern
        train_behavior("hopper", tmp_path, 1024, **arguments)  # type: ignore[arg-type]
        assert damaged(tmp_path) is None
        assert {name: (tmp_path / "snapshots" / name).read_bytes() for name in _snapshots(tmp_path)} == whole
    train_behavior("hopper/gravity-0.5", tmp_path, 1024, resume=False, **arguments)  # type: ignore[arg-type]
    assert [note.read_text() for note in notes] == ["mine"] * 3


def _snapshots(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "snapshots").glob("*.safetensors"))
