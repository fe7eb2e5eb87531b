"""Classifiers and contrastive encoders learn the known density ratios of pairs of linear-Gaussian systems.

s' = 0.5 s + gain * a + 0.4 * noise,  s and noise standard normal, a uniform on [-1, 1]
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tests.stages.problems import raw, table_of
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.stages.alignment.classifier import ClassifierLearner, domain_loss
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.alignment.contrastive import ContrastiveLearner

NOISE_STD = 0.4
TARGET_GAIN, SOURCE_GAIN = 1.0, 0.0
Float = NDArray[np.float64]


def system(gain: float, seed: int, state_mean: float = 0.0, count: int = 20000) -> EpisodeTable:
    """Single steps from states around `state_mean`."""
    generator = np.random.default_rng(seed)
    state, action = generator.normal(state_mean, 1.0, (count, 1)), generator.uniform(-1, 1, (count, 1))
    following = 0.5 * state + gain * action + NOISE_STD * generator.normal(size=(count, 1))
    return table_of(state, action, np.zeros(count), following, [count], [False])


def both(tables: tuple[EpisodeTable, EpisodeTable]) -> tuple[Transitions, Transitions]:
    return Transitions(tables[0], raw(1)), Transitions(tables[1], raw(1))


def log_density(table: EpisodeTable, gain: float) -> Float:
    """log p(s' | s, a) under `gain`, up to a constant."""
    error = table.next_observation - 0.5 * table.observation - gain * table.action
    return -0.5 * (error[:, 0].astype(np.float64) / NOISE_STD) ** 2


def fitted_classifier(num_steps: int = 1200, **settings: float) -> ClassifierLearner:
    """A classifier fitted to a source with other dynamics and other states; the score must only show the dynamics."""
    torch.manual_seed(0)
    config = ALIGNMENTS(
        kind="classifier", num_steps=num_steps, batch_size=256, width=32, learning_rate=3e-3, **settings
    )
    tables = system(TARGET_GAIN, 0), system(SOURCE_GAIN, 1, state_mean=0.7)
    learner = ClassifierLearner(*both(tables), config, seed=0)
    TrainingLoop(config.num_steps).run(learner)
    return learner


def test_delta_r_is_the_log_ratio_of_the_dynamics() -> None:
    learner = fitted_classifier(noise_std=0.0)
    for gain, state_mean in ((TARGET_GAIN, 0.0), (SOURCE_GAIN, 0.7)):
        table = system(gain, 2, state_mean, count=2000)
        truth = log_density(table, TARGET_GAIN) - log_density(table, SOURCE_GAIN)
        score = learner.score(Transitions(table, raw(1))).numpy()
        assert spearmanr(score, truth).statistic >= 0.9
        slope, intercept = np.polyfit(truth, score, 1)
        assert slope == pytest.approx(1.0, abs=0.2) and intercept == pytest.approx(0.0, abs=0.3)


def test_delta_r_is_clipped() -> None:
    learner = fitted_classifier(num_steps=200, noise_std=0.0, log_ratio_clip=0.5)
    score = learner.score(Transitions(system(SOURCE_GAIN, 2, count=500), raw(1)))
    assert score.abs().max() == 0.5 and (score.abs() < 0.5).any()


@pytest.mark.slow
def test_contrastive_logits_order_transitions_by_the_true_density_ratio() -> None:
    """Negatives are next states of the source for any (s, a), so the ratio is p_target(s' | s, a) / p_source(s'). The
    published cosine score ignores the lengths of the embeddings and so loses much of that order."""
    table = system(SOURCE_GAIN, 2, count=2000)
    # The source's s' is normal with variance 0.5^2 + 0.4^2.
    truth = log_density(table, TARGET_GAIN) + 0.5 * table.next_observation[:, 0].astype(np.float64) ** 2 / 0.41
    found = {}
    for score in ("logit", "cosine"):
        torch.manual_seed(0)
        config = ALIGNMENTS(
            num_steps=1200,
            batch_size=64,
            width=32,
            embedding_dim=16,
            learning_rate=3e-3,
            contrastive_score=score,
        )
        tables = system(TARGET_GAIN, 0), system(SOURCE_GAIN, 1)
        learner = ContrastiveLearner(*both(tables), config, seed=0)
        TrainingLoop(config.num_steps).run(learner)
        found[score] = spearmanr(learner.score(Transitions(table, raw(1))).numpy(), truth).statistic
    assert found["logit"] >= 0.9
    assert 0.2 < found["cosine"] < 0.8


def test_domain_loss_by_hand() -> None:
    # Logits 0 and 1 of target rows, 0 of source rows: half of (log 2 + log(1 + 1/e)) / 2, plus half of log 2.
    loss = domain_loss(torch.tensor([0.0, 1.0]), torch.zeros(3))
    assert loss.item() == pytest.approx(0.5 * (np.log(2) + np.log(1 + np.exp(-1))) / 2 + 0.5 * np.log(2))
    assert domain_loss(torch.zeros(2), torch.zeros(5)).item() == pytest.approx(np.log(2))
