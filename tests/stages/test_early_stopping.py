"""Early stopping: the rule by hand, and the modality's held-out episodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from tests.stages.problems import linear_system, modality_learner
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.columns import read_episode_column
from v2a_ray.engine.context import Job
from v2a_ray.engine.data_parallel import Workers
from v2a_ray.engine.early_stopping import EarlyStopping
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.fit import fit_modality, load_modality
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, encode_episodes, moments

TABLE = linear_system([9, 6, 12, 1, 7, 8, 3, 20, 5, 6], 1.0, seed=0)
CONFIG = ModalityConfig(
    num_steps=40,
    batch_size=4,
    crop_steps=30,
    latent_dim=3,
    encoder="gru",
    encoder_width=8,
    decoder_width=8,
    learning_rate=1e-2,
    optimization="em",
    patience_evaluations=2,
    validation_fraction=0.3,
    validation_interval_steps=5,
)


@pytest.mark.parametrize(
    ("losses", "min_improvement", "stops"),
    [
        ([], 0.0, False),
        ([5.0], 0.0, False),
        ([5.0, 5.0], 0.0, False),  # one evaluation without improvement, of two allowed
        ([5.0, 5.0, 5.0], 0.0, True),
        ([5.0, 6.0, 4.0, 4.5], 0.0, False),  # 4.0 restarts the count
        ([5.0, 6.0, 4.0, 4.5, 4.0], 0.0, True),
        ([10.0, 9.5, 9.2], 0.1, True),  # neither is below 9
        ([10.0, 9.5, 8.9], 0.1, False),
        ([10.0, 9.5, 8.9, 8.02, 8.3], 0.1, True),  # neither is below 8.01
        ([-10.0, -10.5, -10.9], 0.1, True),  # neither is below -11
        ([-10.0, -10.5, -11.5], 0.1, False),
        ([0.0, 0.0, -1e-9], 0.1, False),
    ],
)
def test_early_stopping_after_two_evaluations_without_improvement(
    losses: list[float], min_improvement: float, stops: bool
) -> None:
    rule = EarlyStopping("loss", patience=2, min_improvement=min_improvement)
    history = [{"step": step, "loss": loss} for step, loss in enumerate(losses)]
    assert rule(history) == stops
    others = [{"step": 0, "other": 1.0}]
    assert rule([*others * 5, *history, *others * 5]) == stops  # rows without the metric are no evaluations


def test_held_out_episodes_are_validated_and_never_trained_on() -> None:
    learner = modality_learner(CONFIG, TABLE)
    first_states = {tuple(steps[0].tolist()) for batch in learner.validation for steps in batch.steps_BTX}
    assert len(first_states) == 3  # out of ten episodes, all shorter than a crop
    drawn = {
        tuple(steps[0].tolist())
        for seed in range(40)
        for steps in learner.crops.draw(8, torch.Generator().manual_seed(seed)).steps_BTX
    }
    everything = learner.model.steps(TABLE)[TABLE.offsets[:-1]]
    assert drawn.isdisjoint(first_states) and len(drawn) == 7
    assert drawn | first_states == {tuple(row.tolist()) for row in everything}
    other = modality_learner(CONFIG, TABLE, seed=1)
    assert first_states != {tuple(steps[0].tolist()) for batch in other.validation for steps in batch.steps_BTX}


def test_validation_loss_is_the_mean_over_held_out_steps_with_mean_z() -> None:
    learner = modality_learner(CONFIG, TABLE)
    model, errors = learner.model.requires_grad_(False), []
    for batch in learner.validation:
        mean, _ = model.encoder(batch.steps_BTX, batch.lengths_B)
        for row, length in enumerate(batch.lengths_B.tolist()):
            for step in batch.steps_BTX[row, :length]:
                predicted = model.decoder(torch.cat([step[:3], mean[row]])[None])
                errors.append(float(((predicted[:, 0] - step[3:]) ** 2).mean()))
    found = learner.validate()
    assert found.keys() == {"modality/validation_loss"}
    np.testing.assert_allclose(found["modality/validation_loss"], np.mean(errors), rtol=1e-5)
    assert learner.validate() == found  # the crops are fixed


def test_validation_does_not_change_training() -> None:
    evaluated, silent = modality_learner(CONFIG, TABLE), modality_learner(CONFIG, TABLE)
    for step in range(5):
        evaluated.validate()
        evaluated.update(step)
        silent.update(step)
    for ours, theirs in zip(evaluated.model.parameters(), silent.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_validation_crops_long_episodes_like_training() -> None:
    learner = modality_learner(CONFIG.model_copy(update={"crop_steps": 4, "validation_fraction": 0.9}), TABLE)
    lengths = torch.cat([batch.lengths_B for batch in learner.validation]).tolist()
    assert len(lengths) == 9 and max(lengths) == 4
    whole = modality_learner(CONFIG.model_copy(update={"crop_steps": None, "validation_fraction": 0.9}), TABLE)
    assert sorted(torch.cat([batch.lengths_B for batch in whole.validation]).tolist())[-1] > 4


def test_training_stops_only_when_the_validation_loss_stops_falling() -> None:
    falling = modality_learner(CONFIG.model_copy(update={"min_improvement": 0.0}), TABLE)
    history = TrainingLoop(40, **falling.stopping()).run(falling)
    losses = [row["modality/validation_loss"] for row in history if "modality/validation_loss" in row]
    assert history[-1]["step"] == 40 and len(losses) == 8 and losses[-1] < losses[0]
    stuck = modality_learner(CONFIG.model_copy(update={"learning_rate": 1e-9}), TABLE)
    history = TrainingLoop(40, **stuck.stopping()).run(stuck)
    assert [row["step"] for row in history] == [5, 10, 15]  # the first evaluation, and two without improvement


def test_no_patience_means_no_held_out_episodes_and_no_stop() -> None:
    learner = modality_learner(CONFIG.model_copy(update={"patience_evaluations": None}), TABLE)
    assert learner.stopping() == {} and learner.validation == []
    torch.testing.assert_close(learner.crops.steps_NX, learner.model.steps(TABLE), rtol=0, atol=0)


def test_early_stopping_refuses_a_single_episode() -> None:
    learner = modality_learner(CONFIG, linear_system([9], 1.0, seed=0))
    with pytest.raises(ConfigError, match=r"modality.patience_evaluations: .*no episode to hold out"):
        learner.stopping()


def test_workers_share_one_validation_loss() -> None:
    """Both workers get the loss over both shards, weighted by their steps."""
    torch.manual_seed(0)
    model = ModalityModel(2, 1, CONFIG)
    model.set_statistics(moments(TABLE))
    learners = [
        ModalityLearner(TABLE.select(episodes), model, CONFIG, 0, Workers(rank, 2))
        for rank, episodes in enumerate((range(5), range(5, 10)))
    ]
    errors, contributions = [], []
    with torch.no_grad():
        for batch in learners[0].validation + learners[1].validation:
            mean, _ = model.encoder(batch.steps_BTX, batch.lengths_B)
            errors.append(model.reconstruction_error(batch, mean))

    def reduce(total: torch.Tensor) -> torch.Tensor:
        contributions.append(total.clone())
        return total

    for learner in learners:
        learner.workers = replace(learner.workers, reduce=reduce)
        learner.validate()
    for learner in learners:
        both = Workers(learner.workers.rank, 2, lambda total: total.copy_(contributions[0] + contributions[1]))
        learner.workers = both
    losses = [learner.validate()["modality/validation_loss"] for learner in learners]
    assert len(errors) == 2 and len(errors[0]) != len(errors[1])
    assert losses[0] == losses[1] == pytest.approx(float(torch.cat(errors).mean()), rel=1e-5)


def test_stopped_stage_writes_a_latent_for_every_episode(tmp_path: Path) -> None:
    """No evaluation is 99 % below the first, so training stops at the second one."""
    part = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 10}
    chosen = {"encoder": "pooled", "patience_evaluations": 1, "min_improvement": 0.99}
    data = {"target": part, "sources": [part]}
    settings = {"name": "test", "method": "v2a", **data, "modality": CONFIG.model_dump() | chosen}
    write_table(TABLE, tmp_path / "source" / "table", num_files=1)
    output = tmp_path / "output"
    output.mkdir()
    config = ExperimentConfig.model_validate(settings)
    fit_modality(Job(config, {"source": tmp_path / "source"}, output, tmp_path / "work"))
    assert pq.read_table(output / "curves.parquet").column("step").to_pylist() == [5, 10]
    latent = read_episode_column(output / "column.parquet", "z", TABLE)
    assert latent.shape == (10, 3) and len(np.unique(latent, axis=0)) == 10
    np.testing.assert_allclose(latent, encode_episodes(load_modality(output, 2, 1), TABLE, config.modality), atol=1e-6)
