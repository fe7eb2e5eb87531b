"""Tiny experiments on synthetic Hopper-like tables, and their plans run in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.context import Job
from v2a_ray.engine.plan import make_plan
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.methods import METHODS
from v2a_ray.experiments.reading import resolve
from v2a_ray.settings.yaml_files import merge, parse_overrides
from v2a_ray.stages.registered import fit_of

OURS = [name for name in METHODS if not name.startswith("rllib_")]
"""All methods except RLlib's, which train in Ray instead of one process."""
STEPS = 4
EPISODE_STEPS = 12


def hopper_like(domains: list[str], seed: int) -> EpisodeTable:
    """One random episode per domain, with Hopper's dimensions and a step length that depends on the domain."""
    generator = np.random.default_rng(seed)
    count, rows = len(domains), len(domains) * EPISODE_STEPS
    length = np.repeat([1.0 + 2.0 * (domain != "hopper/stock") for domain in domains], EPISODE_STEPS)[:, None]
    states = generator.normal(size=(rows, 11))
    return EpisodeTable(
        observation=states.astype(np.float32),
        action=generator.uniform(-1, 1, (rows, 3)).astype(np.float32),
        reward=generator.uniform(size=rows).astype(np.float32),
        next_observation=(states + length * generator.normal(size=(rows, 11))).astype(np.float32),
        offsets=np.arange(count + 1) * EPISODE_STEPS,
        terminated=np.ones(count, bool),
        truncated=np.zeros(count, bool),
        episode_id=tuple(f"{seed}/{index}" for index in range(count)),
        source=tuple(domains),
        domain=tuple(domains),
        behavior=("random",) * count,
    )


SOURCE = hopper_like(["hopper/gravity-0.5", "hopper/otdf-morph"] * 3, seed=0)
TARGET = hopper_like(["hopper/stock"] * 6, seed=1)


def experiment(method: str, *overrides: str) -> ExperimentConfig:
    training = {"num_steps": STEPS, "batch_size": 32, "learning_rate": 0.03}
    raw = {
        "name": "tiny",
        "method": method,
        "target": {"domain": "hopper/stock", "behavior": "random", "num_transitions": 72},
        "sources": [{"domain": "hopper/gravity-0.5", "behavior": "random", "num_transitions": 72}],
        "modality": training
        | {"crop_steps": 6, "latent_dim": 3, "encoder_width": 8, "decoder_width": 8, "batch_size": 4},
        "advantage": training | {"width": 8},
        "alignment": training | {"width": 8},
        "density": training | {"width": 8},
        "dynamics": training | {"width": 8},
        "correction": training | {"width": 8},
        "policy": training | {"width": 8},
        "evaluation": {"num_episodes": 1, "interval_steps": 0},
    }
    return resolve(merge(raw, parse_overrides(overrides)))


def run(config: ExperimentConfig, folder: Path, source: EpisodeTable = SOURCE) -> dict[str, Path]:
    """Compute every node of the plan in this process; returns the folder of each node by name."""
    torch.set_num_threads(1)
    done: dict[str, Path] = {}
    for name, node in make_plan(config).items():
        output = done[name] = folder / name.replace("/", "-")
        output.mkdir(parents=True)
        if node.stage in ("data", "source"):
            write_table(TARGET if name == "data/target" else source, output / "table", robot="hopper")
        else:
            inputs = {role: done[other] for role, other in node.inputs.items()}
            fit_of(node.stage, config)(Job(config, inputs, output, folder / "work" / name, part=node.part))
    return done
