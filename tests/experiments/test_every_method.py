"""What every method of the registry promises: its table says what it is, and it runs from tables to an evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.columns import read_step_column
from v2a_ray.engine.context import Job
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.combinations import Combination, combination, combinations, effective_settings, markdown
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.methods import METHODS
from v2a_ray.experiments.reading import resolve
from v2a_ray.settings.yaml_files import merge, parse_overrides
from v2a_ray.stages.policy.stage import filtered_columns
from v2a_ray.stages.registered import fit_of

OURS = [name for name in METHODS if not name.startswith("rllib_")]
"""RLlib's learners train in Ray, not in one process."""
STEPS = 4
EPISODE_STEPS = 12


def hopper_like(domains: list[str], seed: int) -> EpisodeTable:
    """One episode per name: a random walk with Hopper's dimensions, whose step length the domain sets."""
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
    """Every node of the plan, computed in this process: its name to its folder."""
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


@pytest.mark.parametrize("method", OURS)
def test_every_method_runs_from_tables_to_an_evaluation(method: str, tmp_path: Path) -> None:
    config = experiment(method)
    done = run(config, tmp_path)
    for column in ("advantage", "alignment"):
        assert (column in done) == (column in filtered_columns(config))
        if column in done:
            values = read_step_column(done[column] / "column.parquet", column, SOURCE)
            assert values.shape == (SOURCE.num_transitions,) and np.isfinite(values).all()
    actor = load_file(done["policy"] / "actor.safetensors")
    assert all(torch.isfinite(values).all() for values in actor.values())
    np.testing.assert_allclose(actor["observation_mean_O"], TARGET.observation.mean(axis=0), atol=1e-4)
    evaluation = json.loads((done["policy"] / "evaluation.json").read_text())
    assert len(evaluation["returns"]) == 1 and np.isfinite(evaluation["normalized_score_mean"])


@pytest.mark.parametrize(
    "override",
    [
        "advantage.conditioning=none",
        "advantage.latent=shuffled",
        "advantage.latent=oracle",
        "advantage.kind=iql",
        "policy.filter.normalization=table",
        "policy.filter.normalization=ranks",
        "policy.filter.normalize_alignment=true",
        "policy.filter.alignment_weight=0",
        "policy.filter.keep_fraction=1",
        "modality.crop_steps=null",
        "modality.optimization=em",
    ],
)
def test_an_ablation_is_one_key_that_moves_the_policy(override: str, tmp_path: Path) -> None:
    plain, ablated = experiment("v2a"), experiment("v2a", override)
    assert make_plan(plain)["policy"].key != make_plan(ablated)["policy"].key
    actors = [
        load_file(run(config, tmp_path / name)["policy"] / "actor.safetensors")
        for name, config in (("plain", plain), ("ablated", ablated))
    ]
    assert any(not torch.equal(values, actors[1][name]) for name, values in actors[0].items())


def test_only_the_learned_latent_needs_the_modality() -> None:
    assert "modality" in make_plan(experiment("v2a", "advantage.latent=shuffled"))
    assert "modality" not in make_plan(experiment("v2a", "advantage.latent=oracle"))
    assert "modality" in make_plan(experiment("grouped"))
    assert "modality" not in make_plan(experiment("grouped", "policy.data=target"))


@pytest.mark.parametrize(
    ("method", "override", "message"),
    [
        ("iql", "policy.reward_correction=0.1", "policy.reward_correction needs alignment.kind"),
        ("dara", "policy.learner=bc", "reads no reward"),
        ("dara", "policy.reward_correction_data=mixed", "needs alignment.kind=state_ratio"),
        ("rllib_bc", "policy.correct_transitions=true", "reads no columns"),
        ("v2a", "modality={inference: crops, crop_steps: null}", "inference=crops needs crop_steps"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(method: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(method, override)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_where_it_is_from_and_how_it_differs(name: str) -> None:
    method = METHODS[name]
    assert method.summary and method.source
    if not name.startswith("rllib_"):
        assert method.deviations  # at the least that rewards are scaled
    assert combination(name).origin == ("published" if method.published else "ours")


def test_the_table_is_read_off_the_settings() -> None:
    assert combination("v2a") == Combination(
        "v2a",
        "published",
        "iql",
        "mixed",
        "contrastive",
        "sparse_q A(s, a, z)",
        "top fraction, ξ 0.5, λ 0.6",
        "exp alignment",
        "none",
    )
    dara = combination("dara")
    assert (dara.alignment, dara.value, dara.filter, dara.weight) == ("classifier", "none", "none", "none")
    assert dara.extra == "policy.reward_correction=0.1"
    assert combination("igdf").filter == "top fraction, ξ 0.75"
    assert combination("dvdf").value == "sparse_q A(s, a)"
    lines: list[Any] = markdown().splitlines()
    assert len(lines) == 2 + len(METHODS) == 2 + len(combinations())


def test_effective_settings_are_those_that_move_the_numbers() -> None:
    dara = dict(effective_settings("dara"))
    assert dara["policy.reward_correction"] == 0.1 and dara["alignment.noise_std"] == 1.0
    assert not [key for key in dara if key.startswith(("advantage.", "modality.", "policy.q_weight"))]
    assert dict(effective_settings("td3_bc"))["policy.q_weight"] == 2.5
