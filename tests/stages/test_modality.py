"""The modality stage: padding, EM, separation of dynamics, inference on whole episodes and on crops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.stages.problems import linear_system, modality_learner
from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.stages.alignment.modality_alignment import modality_scores
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.fit import load_modality
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, TrajectoryBatch, encode_episodes, moments, pad

TINY = ModalityConfig(
    num_steps=10,
    batch_size=4,
    crop_steps=6,
    latent_dim=3,
    encoder="gru",
    encoder_width=8,
    decoder_width=8,
    kl_weight=0.1,
    optimization="em",
    patience_evaluations=None,
)
TABLE = linear_system([9, 6, 12, 1], 1.0, seed=0)


def batch_of(learner: ModalityLearner, lengths: list[int], extra_padding: int = 0) -> TrajectoryBatch:
    """Trajectories that begin at row 0, 1, 2, ..., followed by `extra_padding` steps of garbage."""
    begins = torch.arange(len(lengths))
    steps = pad(learner.crops.steps_NX, begins, torch.tensor(lengths))
    garbage = torch.full((len(lengths), extra_padding, steps.shape[2]), 1e3)
    noise = torch.randn(len(lengths), 3, generator=torch.Generator().manual_seed(1))
    steps = torch.cat([steps, garbage], dim=1)
    invalid = torch.arange(steps.shape[1]) >= torch.tensor(lengths)[:, None]
    return TrajectoryBatch(
        torch.where(invalid[..., None], 1e3 if extra_padding else 0.0, steps), torch.tensor(lengths), noise
    )


def parameters_of(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def changed(before: list[Tensor], module: nn.Module) -> bool:
    return any(not torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


def test_pad_takes_rows_and_fills_with_zeros() -> None:
    rows = torch.arange(1.0, 7.0)[:, None]
    padded = pad(rows, torch.tensor([0, 4]), torch.tensor([3, 2]))
    assert padded.squeeze(-1).tolist() == [[1.0, 2.0, 3.0], [5.0, 6.0, 0.0]]


@pytest.mark.parametrize("form", [{}, {"encoder": "pooled"}])
@pytest.mark.parametrize("sample", [True, False])
def test_padding_changes_neither_z_nor_loss_nor_kl(sample: bool, form: dict[str, Any]) -> None:
    learner = modality_learner(TINY.model_copy(update=form), TABLE)
    short, long = batch_of(learner, [4, 2, 5]), batch_of(learner, [4, 2, 5], extra_padding=7)
    assert long.steps_BTX.shape[1] == short.steps_BTX.shape[1] + 7
    for ours, theirs in zip(
        learner.model.encoder(short.steps_BTX, short.lengths_B),
        learner.model.encoder(long.steps_BTX, long.lengths_B),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    loss, parts = learner.loss(short, sample=sample)
    padded_loss, padded_parts = learner.loss(long, sample=sample)
    torch.testing.assert_close(loss, padded_loss, rtol=1e-6, atol=1e-6)
    assert parts.keys() == padded_parts.keys() == {"modality/reconstruction_loss", "modality/kl"}
    for name, value in parts.items():
        torch.testing.assert_close(value, padded_parts[name], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("form", [{}, {"encoder": "pooled"}])
def test_padding_gets_no_gradient(form: dict[str, Any]) -> None:
    learner = modality_learner(TINY.model_copy(update=form), TABLE)
    batch = batch_of(learner, [4, 2, 5])
    steps = batch.steps_BTX.clone().requires_grad_()
    loss, _ = learner.loss(TrajectoryBatch(steps, batch.lengths_B, batch.noise_BZ), sample=True)
    loss.backward()
    assert steps.grad is not None
    invalid = torch.arange(5) >= batch.lengths_B[:, None]
    assert steps.grad[invalid].abs().sum() == 0
    assert (steps.grad[~invalid].abs().sum(dim=1) > 0).all()


def test_loss_is_the_mean_over_valid_steps_plus_the_weighted_mean_kl() -> None:
    learner = modality_learner(TINY, TABLE)
    batch = batch_of(learner, [4, 2])
    model = learner.model
    mean, log_std = model.encoder(batch.steps_BTX, batch.lengths_B)
    errors, divergences = [], []
    for row, length in enumerate((4, 2)):
        for step in batch.steps_BTX[row, :length]:
            predicted = model.decoder(torch.cat([step[:3], mean[row]])[None])  # (K, 1, O)
            errors.append(((predicted[:, 0] - step[3:]) ** 2).mean())
        variance = (2 * log_std[row]).exp()
        divergences.append(0.5 * (mean[row] ** 2 + variance - 1 - variance.log()).sum())
    expected = torch.stack(errors).mean() + 0.1 * torch.stack(divergences).mean()
    loss, parts = learner.loss(batch, sample=False)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(parts["modality/kl"], torch.stack(divergences).mean().detach())


def step_by_hand(learner: ModalityLearner, batch: TrajectoryBatch, part: nn.Module, *, sample: bool) -> None:
    """One clipped Adam step of `part` alone on the loss."""
    optimizer = torch.optim.Adam(part.parameters(), lr=learner.config.learning_rate)
    loss, _ = learner.loss(batch, sample=sample)
    gradients = torch.autograd.grad(loss, list(part.parameters()))
    norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
    for parameter, gradient in zip(part.parameters(), gradients, strict=True):
        parameter.grad = gradient * min(1.0, learner.config.gradient_norm_clip / float(norm))
    optimizer.step()


@pytest.mark.parametrize("clip", [10.0, 0.05])
def test_em_updates_the_encoder_on_sampled_z_then_the_decoder_on_mean_z(clip: float) -> None:
    config = TINY.model_copy(update={"optimization": "em", "gradient_norm_clip": clip, "learning_rate": 1e-2})
    ours, reference = modality_learner(config, TABLE), modality_learner(config, TABLE)
    batch = batch_of(ours, [4, 2, 5])
    ours.update_on(batch)
    step_by_hand(reference, batch, reference.model.encoder, sample=True)
    step_by_hand(reference, batch, reference.model.decoder, sample=False)
    for mine, other in zip(ours.model.parameters(), reference.model.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("still", "moving"), [("decoder", "encoder"), ("encoder", "decoder")])
def test_each_em_step_updates_one_network_only(still: str, moving: str) -> None:
    learner = modality_learner(TINY.model_copy(update={"optimization": "em"}), TABLE)
    for group in learner.optimizers[still].param_groups:
        group["lr"] = 0.0  # so only the other network's step could change this one
    unmoved, moved = (parameters_of(getattr(learner.model, name)) for name in (still, moving))
    learner.update_on(batch_of(learner, [4, 2, 5]))
    assert not changed(unmoved, getattr(learner.model, still))
    assert changed(moved, getattr(learner.model, moving))
    assert all(parameter.requires_grad for parameter in learner.model.parameters())  # no parameter stays frozen


def test_joint_updates_both_networks_on_the_same_loss() -> None:
    config = TINY.model_copy(update={"optimization": "joint", "learning_rate": 1e-2})
    ours, reference = modality_learner(config, TABLE), modality_learner(config, TABLE)
    batch = batch_of(ours, [4, 2, 5])
    ours.update_on(batch)
    before = parameters_of(reference.model.encoder)
    step_by_hand(reference, batch, reference.model.encoder, sample=True)
    after = parameters_of(reference.model.encoder)
    with torch.no_grad():  # the decoder's gradient is taken before the encoder's step
        for parameter, old in zip(reference.model.encoder.parameters(), before, strict=True):
            parameter.copy_(old)
    step_by_hand(reference, batch, reference.model.decoder, sample=True)
    for mine, other in zip(ours.model.parameters(), [*after, *reference.model.decoder.parameters()], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6)


def test_statistics_add_up_over_shards() -> None:
    first, second = TABLE.select([0, 2]), TABLE.select([1, 3])
    torch.testing.assert_close(moments(first) + moments(second), moments(TABLE), rtol=1e-12, atol=1e-12)
    model = ModalityModel(2, 1, TINY)
    model.set_statistics(moments(TABLE))
    delta = TABLE.next_observation - TABLE.observation
    np.testing.assert_allclose(model.state_mean_O, TABLE.observation.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.state_std_O, TABLE.observation.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.delta_std_O, delta.std(axis=0), rtol=1e-5)


def test_crops_stay_inside_their_episodes() -> None:
    learner = modality_learner(TINY, TABLE)
    begins = {int(row) for row in TABLE.offsets[:-1]}
    whole = {int(length) for length in TABLE.lengths}
    seen = set()
    for _ in range(8):
        batch = learner.crops.draw(64, learner.generator)
        assert set(batch.lengths_B.tolist()) <= {1, 6}  # min(length, crop_steps)
        for steps, length in zip(batch.steps_BTX, batch.lengths_B.tolist(), strict=True):
            row = int((learner.crops.steps_NX == steps[0]).all(dim=1).nonzero()[0, 0])
            episode = int(TABLE.episode_of_row[row])
            assert row + length <= TABLE.offsets[episode + 1]
            torch.testing.assert_close(steps[:length], learner.crops.steps_NX[row : row + length])
            seen.add(row)
    # Every possible first row of a crop is drawn: episodes of 9, 6, 12 and 1 steps cropped to 6.
    assert begins <= seen and whole == {9, 6, 12, 1}
    assert seen == {0, 1, 2, 3, 9, 15, 16, 17, 18, 19, 20, 21, 27}


def test_whole_and_crop_inference_by_hand() -> None:
    learner = modality_learner(TINY, TABLE)
    whole = encode_episodes(learner.model, TABLE, TINY)
    crops = encode_episodes(learner.model, TABLE, TINY.model_copy(update={"inference": "crops"}))
    assert whole.shape == crops.shape == (4, 3)
    with torch.no_grad():
        for episode, length in enumerate(TABLE.lengths):
            steps = learner.crops.steps_NX[TABLE.rows(episode)]
            mean, _ = learner.model.encoder(steps[None], torch.tensor([length]))
            np.testing.assert_allclose(whole[episode], mean[0], atol=1e-6)
            pieces = [learner.model.encoder(part[None], torch.tensor([len(part)]))[0][0] for part in steps.split(6)]
            sizes = [len(part) for part in steps.split(6)]
            expected = np.average(torch.stack(pieces), axis=0, weights=sizes)
            np.testing.assert_allclose(crops[episode], expected, atol=1e-6)
    np.testing.assert_allclose(whole[1], crops[1], atol=1e-6)  # six steps are one crop
    assert np.abs(whole[0] - crops[0]).max() > 1e-4  # nine are two


def test_stored_model_without_an_encoder_name_loads_as_gru(tmp_path: Path) -> None:
    """Such models were written before the encoder was a setting."""
    model = modality_learner(TINY, TABLE).model
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(TINY.model_dump(exclude={"encoder"})))
    loaded = load_modality(tmp_path, 2, 1)
    np.testing.assert_array_equal(encode_episodes(loaded, TABLE, TINY), encode_episodes(model, TABLE, TINY))


@pytest.fixture(scope="module", params=["gru", "pooled"])
def two_systems(request: pytest.FixtureRequest) -> tuple[ModalityModel, EpisodeTable, np.ndarray, ModalityConfig]:
    """A model fitted to two linear systems with gains of opposite sign, and z of each episode."""
    table = concatenate([linear_system([20] * 12, gain, seed=3) for gain in (1.0, -1.0)])
    config = ModalityConfig(
        num_steps=200,
        encoder=request.param,
        batch_size=16,
        crop_steps=20,
        latent_dim=2,
        encoder_width=16,
        decoder_width=32,
        num_decoders=2,
        learning_rate=3e-3,
        optimization="em",
        patience_evaluations=None,
    )
    learner = modality_learner(config, table)
    TrainingLoop(config.num_steps).run(learner)
    return learner.model, table, encode_episodes(learner.model, table, config), config


def test_z_separates_two_linear_systems(two_systems: tuple[ModalityModel, EpisodeTable, np.ndarray, object]) -> None:
    _, _, latent, _ = two_systems
    truth = np.repeat([0, 1], 12)
    centroids = np.stack([latent[truth == system].mean(axis=0) for system in (0, 1)])
    nearest = ((latent[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == truth).mean() == 1.0


def test_modality_scores_prefer_the_dynamics_of_the_target(
    two_systems: tuple[ModalityModel, EpisodeTable, np.ndarray, object],
) -> None:
    model, table, latent, _ = two_systems
    target_latent = latent[:12].mean(axis=0)  # the target is the first system
    scores = modality_scores(model, table, latent, target_latent)
    own, other = scores[: 12 * 20], scores[12 * 20 :]
    assert own.mean() > 10 * other.mean() and other.mean() < -0.1
    assert abs(own.mean()) < 0.1 * abs(other.mean())
