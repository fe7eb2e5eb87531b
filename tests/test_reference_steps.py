"""The reference steps of the benchmarks compute the same losses as our learners, step after step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.learners import PUBLISHED_MODALITY
from benchmarks.reference import AdvantageReference, ContrastiveReference, ModalityReference, PolicyReference
from v2a_ray.data.loading.sampler import EpisodeValues, Preprocessing, Transitions
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.stages.advantage.config import ADVANTAGES
from v2a_ray.stages.advantage.learner import AdvantageLearner
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.alignment.contrastive import ContrastiveLearner
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, moments
from v2a_ray.stages.policy.config import FILTERS, LEARNERS
from v2a_ray.stages.policy.filtering import SourceFilter
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.policy.training import make_actor

OBSERVATION_DIM, ACTION_DIM, LATENT_DIM = 5, 2, 4
WIDTH, BATCH_SIZE, NUM_STEPS = 16, 12, 6
PREPROCESSING = Preprocessing(np.full(5, 0.1, np.float32), np.full(5, 2.0, np.float32), 0.5)


def random_table(lengths: list[int], seed: int) -> EpisodeTable:
    """Episodes of random numbers; every second one terminates."""
    generator = np.random.default_rng(seed)
    count, num_episodes = sum(lengths), len(lengths)
    terminated = np.arange(num_episodes) % 2 == 0
    return EpisodeTable(
        observation=generator.standard_normal((count, OBSERVATION_DIM), dtype=np.float32),
        action=generator.uniform(-1, 1, (count, ACTION_DIM)).astype(np.float32),
        reward=generator.standard_normal(count, dtype=np.float32),
        next_observation=generator.standard_normal((count, OBSERVATION_DIM), dtype=np.float32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        terminated=terminated,
        truncated=~terminated,
        episode_id=tuple(str(index) for index in range(num_episodes)),
        source=("random",) * num_episodes,
        domain=("unknown",) * num_episodes,
        behavior=("unknown",) * num_episodes,
    )


def same_draws(generator: torch.Generator) -> torch.Generator:
    """A copy of `generator` in the same state."""
    return torch.Generator().set_state(generator.get_state())


def assert_equal_losses(reference: dict[str, Tensor], ours: dict[str, Tensor]) -> None:
    for name, loss in reference.items():
        assert float(loss) == pytest.approx(float(ours[name]), rel=1e-5, abs=1e-5), name


@pytest.fixture
def source_table() -> EpisodeTable:
    return random_table([3, 9, 5, 14, 7], seed=0)


@pytest.fixture
def target_transitions() -> Transitions:
    return Transitions(random_table([20, 10], seed=1), PREPROCESSING)


def advantage_learner(table: EpisodeTable) -> AdvantageLearner:
    torch.manual_seed(0)
    latent = np.random.default_rng(2).standard_normal((table.num_episodes, LATENT_DIM), dtype=np.float32)
    config = ADVANTAGES(kind="sparse_q", conditioning="modality", batch_size=BATCH_SIZE, width=WIDTH)
    transitions = Transitions(table, PREPROCESSING, {"z": EpisodeValues(latent, table.offsets)})
    return AdvantageLearner(transitions, LATENT_DIM, config, seed=0)


def contrastive_learner(target: Transitions, table: EpisodeTable) -> ContrastiveLearner:
    torch.manual_seed(0)
    config = ALIGNMENTS(kind="contrastive", batch_size=BATCH_SIZE, width=WIDTH, embedding_dim=8)
    return ContrastiveLearner(target, Transitions(table, PREPROCESSING), config, seed=0)


def test_reference_modality_em_step_equals_ours(source_table: EpisodeTable) -> None:
    sizes = {"batch_size": 4, "crop_steps": 8, "encoder_width": WIDTH, "decoder_width": WIDTH, "kl_weight": 0.1}
    config = PUBLISHED_MODALITY.model_copy(update=sizes | {"latent_dim": LATENT_DIM})
    torch.manual_seed(0)
    model = ModalityModel(OBSERVATION_DIM, ACTION_DIM, config)
    model.set_statistics(moments(source_table))
    learner = ModalityLearner(source_table, model, config, seed=0)
    reference = ModalityReference(learner)
    padded = False
    for _ in range(NUM_STEPS):
        batch = learner.crops.draw(learner.num_trajectories, learner.generator)
        padded |= bool(batch.lengths_B.min() < batch.steps_BTX.shape[1])
        assert_equal_losses(reference.update(batch), learner.update_on(batch))
    assert padded


def test_reference_advantage_step_equals_ours(source_table: EpisodeTable) -> None:
    learner = advantage_learner(source_table)
    reference = AdvantageReference(learner)
    for step in range(NUM_STEPS):
        batch = learner.transitions.sample(BATCH_SIZE, same_draws(learner.generator))
        assert_equal_losses(reference.update(batch, step), learner.update(step))


@pytest.mark.parametrize("expand_queries", [False, True])
def test_reference_contrastive_step_equals_ours(
    source_table: EpisodeTable, target_transitions: Transitions, expand_queries: bool
) -> None:
    learner = contrastive_learner(target_transitions, source_table)
    reference = ContrastiveReference(learner, expand_queries=expand_queries)
    for step in range(NUM_STEPS):
        generator = same_draws(learner.generator)
        positive = learner.target.sample(BATCH_SIZE, generator)
        negative = learner.source.sample(BATCH_SIZE - 1, generator)
        query_BD = learner.state_action(torch.cat([positive.observation_BO, positive.action_BA], dim=1))
        positive_BD, negative_ND = map(learner.next_state, (positive.next_observation_BO, negative.next_observation_BO))
        logits_BB = torch.cat([(query_BD * positive_BD).sum(dim=1, keepdim=True), query_BD @ negative_ND.T], dim=1)
        torch.testing.assert_close(reference.logits(positive, negative), logits_BB, rtol=1e-5, atol=1e-5)
        assert_equal_losses(reference.update(positive, negative), learner.update(step))


def test_reference_policy_step_equals_ours(source_table: EpisodeTable, target_transitions: Transitions) -> None:
    advantage = advantage_learner(source_table)
    contrastive = contrastive_learner(target_transitions, source_table)
    columns = {
        "advantage": advantage.score(advantage.transitions),
        "alignment": contrastive.score(contrastive.source).numpy(),
    }
    config = LEARNERS(
        batch_size=BATCH_SIZE,
        width=WIDTH,
        num_steps=2 * NUM_STEPS,
        filter=FILTERS(rule="top_fraction", weight="exp_alignment"),
    )
    source = Transitions(source_table, PREPROCESSING, columns)
    sampler = MixedSampler(target_transitions, source, SourceFilter.prepare(config.filter), config)
    actor = make_actor(OBSERVATION_DIM, ACTION_DIM, WIDTH, PREPROCESSING)
    learner = IQLLearner(sampler, actor, config, seed=0)
    reference = PolicyReference(learner, contrastive, advantage)
    for step in range(NUM_STEPS):
        drawn = same_draws(learner.generator)
        kept, weight_b = learner.sampler.filter(source.sample(BATCH_SIZE, same_draws(drawn)).extra, BATCH_SIZE)
        with_latent = advantage.transitions.sample(BATCH_SIZE, drawn)
        keep, weight = reference.choose(with_latent)
        assert set(keep.tolist()) == set(kept.tolist())
        torch.testing.assert_close(weight.sort().values, weight_b.sort().values, rtol=1e-5, atol=1e-5)
        target = target_transitions.sample(BATCH_SIZE, drawn)
        assert_equal_losses(reference.update(with_latent, target), learner.update(step))
