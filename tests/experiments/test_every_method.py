"""Every registered method: it runs from tables to an evaluation, and the table of methods describes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.experiments import tiny_experiments
from tests.experiments.tiny_experiments import OURS, SOURCE, TARGET, experiment, run
from v2a_ray.engine.columns import read_step_column
from v2a_ray.engine.plan import make_plan
from v2a_ray.errors import ConfigError, DataError
from v2a_ray.experiments.combinations import Combination, combination, combinations, effective_settings, markdown
from v2a_ray.experiments.methods import METHODS
from v2a_ray.stages.policy.stage import filtered_columns


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
    ("method", "enough", "message"),
    [
        ("v2a_calibrated", 2, "1 usable transition, and 2 are needed"),
        ("v2a_residual", 3, "1 transition with a recorded next state to fit dynamics to, and 2 are needed"),
        ("bosa", 3, "1 transition with a recorded next state to fit dynamics to, and 2 are needed"),
        ("droco", 2, "1 transition with a recorded next state to fit dynamics to, and 2 are needed"),
        ("dmc_nearest", 7, r"5 neighbours need 6 transitions, and there are 5\n  try: at most 4, or more data"),
    ],
)
def test_a_target_that_is_too_small_is_refused_before_training(
    method: str, enough: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = experiment(method)
    monkeypatch.setattr(tiny_experiments, "TARGET", TARGET.head(enough - 1))
    with pytest.raises(DataError, match=message):
        run(config, tmp_path / "small")
    monkeypatch.setattr(tiny_experiments, "TARGET", TARGET.head(enough))
    actor = load_file(run(config, tmp_path / "enough")["policy"] / "actor.safetensors")
    assert all(torch.isfinite(values).all() for values in actor.values())


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
def test_each_ablation_key_changes_the_policy(override: str, tmp_path: Path) -> None:
    plain, ablated = experiment("v2a"), experiment("v2a", override)
    assert make_plan(plain)["policy"].key != make_plan(ablated)["policy"].key
    actors = [
        load_file(run(config, tmp_path / name)["policy"] / "actor.safetensors")
        for name, config in (("plain", plain), ("ablated", ablated))
    ]
    assert any(not torch.equal(values, actors[1][name]) for name, values in actors[0].items())


def test_only_a_learned_latent_needs_the_modality() -> None:
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
def test_contradicting_settings_are_refused(method: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(method, override)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_source_and_deviations(name: str) -> None:
    method = METHODS[name]
    assert method.summary and method.source
    if not name.startswith("rllib_"):
        assert method.deviations  # at least that rewards are scaled
    assert combination(name).origin == ("published" if method.published else "ours")


def test_combination_table_follows_the_settings() -> None:
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


def test_effective_settings_contain_what_changes_the_numbers() -> None:
    dara = dict(effective_settings("dara"))
    assert dara["policy.reward_correction"] == 0.1 and dara["alignment.noise_std"] == 1.0
    assert not [key for key in dara if key.startswith(("advantage.", "modality.", "policy.q_weight"))]
    assert dict(effective_settings("td3_bc"))["policy.q_weight"] == 2.5
