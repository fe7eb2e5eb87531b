"""Grouped updates (after 2602.18025): IQL with one actor update per group of episodes.

Different dynamics need different actions, so the actor's gradients on mixed dynamics can conflict. Critics are fitted
to the whole batch; the actor takes one optimiser step per group, one after the other.

The paper leaves some choices open; ours are:

- The paper clusters robots by the distance of their known morphologies. Here dynamics are unknown, so groups are
  clusters of the episodes' z (k-means), plus one group for the target.
- The order of the groups is drawn again in every update step, so that no group is always the last.
- A group's loss is the mean over its own rows, so all groups have equal weight; a group without rows in a batch is left
  out. All groups share one Adam, with the learning rate of ungrouped IQL.

Shape suffixes: E episodes, Z latent dimension, B batch, b rows of one group.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions
from v2a_ray.data.loading.sampler import Batch, Column, EpisodeValues, select_rows
from v2a_ray.engine.columns import read_episode_column
from v2a_ray.engine.context import Job
from v2a_ray.networks import update_target
from v2a_ray.stages.policy.config import GroupedConfig
from v2a_ray.stages.policy.inputs import LearnerInputs
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.schedule import cosine, set_learning_rate


def episode_groups(latent_EZ: NDArray[np.float32], num_groups: int, seed: int) -> NDArray[np.float32]:
    """(E,): the cluster 0, 1, ... of every episode; at most as many clusters as there are distinct z."""
    from sklearn.cluster import KMeans  # takes a second, so other learners do not import it

    num_groups = min(num_groups, len(np.unique(latent_EZ, axis=0)))
    labels = KMeans(num_groups, n_init=10, random_state=seed).fit_predict(latent_EZ)
    return np.asarray(labels, dtype=np.float32)


def group_columns(job: Job, role: str, rows: MemoryMappedTransitions) -> dict[str, Column]:
    """`group` of every episode: its cluster in the source, -1 in the target. No column without a modality."""
    if "modality" not in job.inputs:
        return {}
    groups = np.full(len(rows.episode_id), -1.0, dtype=np.float32)
    if role == "source":
        config = cast(GroupedConfig, job.config.policy)
        latent = read_episode_column(job.inputs["modality"] / "column.parquet", "z", rows)
        groups = episode_groups(latent, config.num_groups, job.config.upstream_seed)
    return {"group": EpisodeValues(groups, rows.offsets)}


class GroupedLearner(IQLLearner):
    """IQL with one actor update per group. A batch has the column `group` (B,), -1 for the target, or is one group."""

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of value function and critics on all rows, then one of the actor per group."""
        batch, weight_B = self.sampler.sample(self.generator)
        loss, metrics, advantage_B = self.critic_losses(batch, weight_B)
        self._descend(loss, "critics")
        update_target(self.target_critics, self.critics, self.config.target_rate)
        set_learning_rate(self.optimizers["actor"], cosine(self.config.learning_rate, step, self.config.num_steps))
        losses = []
        for rows_b in self.groups(batch):
            actor_loss, _ = self.actor_loss(select_rows(batch, rows_b), advantage_B[rows_b])
            self._descend(actor_loss, "actor")
            losses.append(actor_loss.detach())
        count = torch.tensor(float(len(losses)))
        return metrics | {"policy/actor_loss": torch.stack(losses).mean(), "policy/groups": count}

    def groups(self, batch: Batch) -> list[Tensor]:
        """The rows (b,) int64 of every group in the batch, in random order of the groups."""
        if "group" not in batch.extra:
            return [torch.arange(len(batch.reward_B), device=batch.reward_B.device)]
        group_B = batch.extra["group"]
        present = torch.unique(group_B)
        order = torch.randperm(len(present), generator=self.generator, device=present.device)
        return [torch.nonzero(group_B == group).squeeze(1) for group in present[order]]

    def _descend(self, loss: Tensor, *names: str) -> None:
        for name in names:
            self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name in names:
            self.optimizers[name].step()


def make(inputs: LearnerInputs[GroupedConfig]) -> GroupedLearner:
    """The learner of `policy.learner=grouped`."""
    return GroupedLearner(inputs.sampler, inputs.actor, inputs.config, inputs.seed)
