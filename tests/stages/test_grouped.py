"""Grouped updates: the rows of each group, and the actor's sequential updates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.stages.problems import linear_system, make_actor, mixed_sampler, weights_of, whole
from v2a_ray.stages.policy.config import FILTERS, LEARNERS
from v2a_ray.stages.policy.grouped import GroupedLearner, episode_groups
from v2a_ray.stages.policy.iql import IQLLearner

SOURCE, TARGET = linear_system([4, 4], 1.0, seed=0), linear_system([6], 0.5, seed=1)
GROUP_OF_ROW = [0.0] * 4 + [1.0] * 4
FILTER = FILTERS(rule="none")


def learner(kind: type[IQLLearner], columns: dict[str, Any], data: str = "mixed") -> Any:
    torch.manual_seed(0)
    config = LEARNERS(num_steps=10, batch_size=16, width=6, data=data, filter=FILTER)
    of_target = {name: np.full(TARGET.num_transitions, -1.0) for name in columns}
    return kind(mixed_sampler(TARGET, SOURCE, config, columns, of_target), make_actor(TARGET, 6), config, seed=0)


def test_episode_groups_cluster_near_latents() -> None:
    latent = np.asarray([[0.0, 0.0], [9.0, 9.0], [0.1, 0.0], [9.0, 9.1], [-9.0, 0.0]], np.float32)
    groups = episode_groups(latent, 3, seed=0)
    assert groups[0] == groups[2] and groups[1] == groups[3]
    assert len({groups[0], groups[1], groups[4]}) == 3
    assert len(set(episode_groups(latent[[0, 0, 1]], 5, seed=0))) == 2  # no more groups than distinct latents


def test_target_is_a_separate_group() -> None:
    grouped = learner(GroupedLearner, {"group": GROUP_OF_ROW})
    batch, _ = grouped.sampler.sample(torch.Generator().manual_seed(0))
    groups = grouped.groups(batch)
    assert sorted(torch.cat(groups).tolist()) == list(range(32))
    by_name = {batch.extra["group"][rows[0]].item(): rows.tolist() for rows in groups}
    assert sorted(by_name) == [-1.0, 0.0, 1.0]
    assert sorted(by_name[-1.0]) == list(range(16, 32))
    # The rows of a group come from its part of the table.
    for name, begin in ((0.0, 0), (1.0, 4)):
        states = SOURCE.observation[begin : begin + 4]
        assert all((row == states).all(axis=1).any() for row in batch.observation_BO[by_name[name]].numpy())


def test_one_group_equals_iql() -> None:
    plain, grouped = learner(IQLLearner, {}, "target"), learner(GroupedLearner, {}, "target")
    metrics = grouped.update(0)
    plain.update(0)
    assert metrics["policy/groups"] == 1.0
    expected = weights_of(plain)
    for name, values in weights_of(grouped).items():
        torch.testing.assert_close(values, expected[name])


def test_groups_update_the_actor_sequentially() -> None:
    """The second group's gradient is taken at the parameters after the first group's step."""
    grouped = learner(GroupedLearner, {"group": GROUP_OF_ROW})
    seen: list[torch.Tensor] = []
    plain_loss = grouped.actor_loss

    def recording(batch: Any, advantage_B: torch.Tensor) -> Any:
        seen.append(grouped.actor.body.numbers_KS.detach().clone())
        return plain_loss(batch, advantage_B)

    grouped.actor_loss = recording
    assert grouped.update(0)["policy/groups"] == 3.0
    assert len(seen) == 3
    assert not torch.equal(seen[0], seen[1]) and not torch.equal(seen[1], seen[2])


def test_reward_correction_adds_the_scaled_alignment_to_source_rewards() -> None:
    alignment = np.linspace(-1, 1, 8)
    source = SOURCE.replace(reward=np.full(8, 2.0, np.float32))
    config = LEARNERS(num_steps=10, batch_size=16, width=6, reward_correction=0.5, filter=FILTER)
    sampler = mixed_sampler(TARGET, source, config, {"alignment": alignment})
    sampler.correction = 0.5 * 10  # for rewards scaled by 10, as in `fit_policy`
    batch, weight = sampler.sample(torch.Generator().manual_seed(0))
    expected = 2.0 + 5.0 * alignment
    assert set(np.round(batch.reward_B[:16].tolist(), 4)) <= set(np.round(expected, 4))
    assert len(set(batch.reward_B[:16].tolist())) > 3
    assert batch.reward_B[16:].max() <= 0 and weight.tolist() == [1.0] * 32  # target rewards are unchanged
    assert whole(sampler.source).reward_B.tolist() == pytest.approx([2.0] * 8)
