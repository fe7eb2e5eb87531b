"""A finished run of an untrained policy, made without training: the files of `v2a run` that other commands read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.cli.command import CONFIG
from v2a_ray.data.table.episodes import unlabelled
from v2a_ray.data.table.folder import write_table
from v2a_ray.experiments.reading import resolve
from v2a_ray.networks import TanhActor


def finished_run(folder: Path, seed: int = 0, return_mean: float = 100.0, data_seed: int = 0) -> TanhActor:
    """Write a run on Hopper into `folder` and its data into `store/` beside it; returns the actor."""
    torch.manual_seed(seed)
    actor = TanhActor(11, 3, [16, 16])
    actor.observation_mean_O.copy_(torch.linspace(-1.0, 1.0, 11))
    actor.observation_std_O.copy_(torch.linspace(0.5, 2.0, 11))
    store = folder.parent / "store"
    stages = []
    for stage, name in (("data", "data/target"), ("source", "source")):
        path = store / stage / f"{name.replace('/', '-')}-{data_seed}"
        if not path.exists():
            write_table(_episodes(data_seed), path / "table", robot="hopper")
        stages.append({"name": name, "artifact": str(path)})
    config = resolve(CONFIG).model_dump(mode="json")
    result: dict[str, Any] = {"config": config, "stages": stages, "target": {"return_mean": return_mean}}
    folder.mkdir(parents=True)
    save_file(actor.state_dict(), folder / "actor.safetensors")
    (folder / "result.json").write_text(json.dumps(result))
    return actor


def _episodes(seed: int) -> Any:
    """Eight episodes of ten steps."""
    generator = np.random.default_rng(seed)
    states = generator.normal(size=(8, 11, 11)).astype(np.float32)
    return unlabelled(
        observation=states[:, :-1].reshape(80, 11),
        action=generator.uniform(-1, 1, (80, 3)).astype(np.float32),
        reward=np.ones(80, np.float32),
        next_observation=states[:, 1:].reshape(80, 11),
        lengths=[10] * 8,
        terminated=[False] * 8,
        episode_id=[f"episode/{index}" for index in range(8)],
    )
