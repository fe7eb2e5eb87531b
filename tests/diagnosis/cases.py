"""Synthetic evidence with known truth: tables, scores and labels, without simulator and training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.diagnosis.evidence import Evidence, FinishedRun
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import resolve

EPISODE_STEPS = 20
NAMES = {"near": "hopper/gravity-0.9@d4rl", "far": "hopper/gravity-0.5@d4rl"}
SHORT = {"near": "gravity-0.9", "far": "gravity-0.5"}


def table(parts: list[tuple[str, str, int]], seed: int = 0) -> EpisodeTable:
    """Episodes of EPISODE_STEPS random steps; `parts` are domain, behaviour and number of episodes."""
    labels = [(domain, behavior) for domain, behavior, count in parts for _ in range(count)]
    count = len(labels)
    generator = np.random.default_rng(seed)
    rows = count * EPISODE_STEPS
    return EpisodeTable(
        observation=generator.normal(size=(rows, 11)).astype(np.float32),
        action=generator.uniform(-1, 1, (rows, 3)).astype(np.float32),
        reward=generator.normal(size=rows).astype(np.float32),
        next_observation=generator.normal(size=(rows, 11)).astype(np.float32),
        offsets=np.arange(count + 1) * EPISODE_STEPS,
        terminated=np.zeros(count, bool),
        truncated=np.ones(count, bool),
        episode_id=tuple(f"{index:04d}" for index in range(count)),
        source=tuple(f"{domain}-{behavior}" for domain, behavior in labels),
        domain=tuple(NAMES[domain] for domain, _ in labels),
        behavior=tuple(behavior for _, behavior in labels),
    )


def settings(**changes: Any) -> ExperimentConfig:
    raw = {
        "name": "made-up",
        "target": {"domain": "hopper/stock", "behavior": "medium", "num_transitions": 100},
        "sources": [{"domain": "hopper/gravity-0.5", "behavior": "medium", "num_transitions": 100}],
    }
    return resolve(raw | changes)


MIX = [("near", "medium", 10), ("near", "expert", 10), ("far", "medium", 10), ("far", "expert", 10)]


def evidence(*, config: ExperimentConfig | None = None, parts: Any = None, **changes: Any) -> Evidence:
    """Near transitions have mismatches around 0.01, far ones around 0.2; h is minus the mismatch."""
    source = table(parts or MIX)
    far = np.asarray([name == NAMES["far"] for name in source.domain])[source.episode_of_row]
    generator = np.random.default_rng(1)
    mismatch = np.where(far, 0.2, 0.01) * generator.uniform(0.5, 1.5, source.num_transitions)
    fields: dict[str, Any] = {
        "run": FinishedRun(Path("nowhere"), config or settings(), {}, 50.0),
        "source": source,
        "target": table([("near", "medium", 5)], seed=2),
        "alignment": -mismatch.astype(np.float32),
        "held_out": np.full(50, -1e-6, np.float32),
        "advantage": None,
        "latent": None,
        "rows": np.arange(source.num_transitions),
        "mismatch": mismatch,
        "unknown": "",
        "control": 1e-7,
    }
    return Evidence(**(fields | changes))
