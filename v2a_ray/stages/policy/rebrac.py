"""ReBRAC (2305.09836): TD3+BC with a second penalty, of its own weight, in the critics' target.

    critics:  r + gamma * (min Q'(s', a~) - beta_2 |a~ - a'|^2),    a~ = pi'(s') + clipped noise,  a' the data's action
    actor:    - Q(s, pi(s)) / mean|Q| + beta_1 |pi(s) - a|^2

Shape suffixes: B batch, N transitions, A action dimension.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions
from v2a_ray.data.loading.sampler import Batch, Column
from v2a_ray.engine.context import Job
from v2a_ray.networks import NormalizedEnsembleMLP
from v2a_ray.stages.policy.config import ReBRACConfig
from v2a_ray.stages.policy.inputs import LearnerInputs
from v2a_ray.stages.policy.td3_bc import TD3Learner


def next_actions(action_NA: NDArray[np.float32], offsets: NDArray[np.int64]) -> NDArray[np.float32]:
    """(N, A): the data's action in s'; NaN at the last step of an episode, where it is unknown.

    Args:
        offsets: (E + 1,); episode e has the transitions offsets[e]:offsets[e + 1].
    """
    following_NA = np.roll(action_NA, -1, axis=0)
    following_NA[offsets[1:] - 1] = np.nan
    return following_NA


def next_action_column(job: Job, role: str, rows: MemoryMappedTransitions) -> dict[str, Column]:
    """The recorded `next_action` of every transition."""
    begin = rows.observation_dim
    action_NA = rows.map()[:, begin : begin + rows.action_dim].numpy()
    return {"next_action": next_actions(action_NA, rows.offsets)}


class ReBRACLearner(TD3Learner):
    """ReBRAC. A batch needs the column `next_action` (B, A), NaN where unknown."""

    config: ReBRACConfig
    critic_network = NormalizedEnsembleMLP

    def next_value(self, batch: Batch, next_action_BA: Tensor) -> Tensor:
        """See `ActorCritic`; minus a penalty where the data's next action is known."""
        distance_B = (next_action_BA - batch.extra["next_action"]).square().sum(dim=1)
        # Without a next action there is no penalty: a terminal step has no next value, a truncated one keeps it.
        return super().next_value(batch, next_action_BA) - self.config.critic_penalty * distance_B.nan_to_num(nan=0.0)

    def actor_loss(self, batch: Batch, policy_BA: Tensor, q_B: Tensor) -> Tensor:
        """- mean Q(s, pi(s)) / mean|Q| + beta_1 mean |pi(s) - a|^2; mean|Q| carries no gradient."""
        scale = q_B.detach().abs().mean().clamp(min=1e-8)
        distance_B = (policy_BA - batch.action_BA).square().sum(dim=1)
        return -q_B.mean() / scale + self.config.actor_penalty * distance_B.mean()


def make(inputs: LearnerInputs[ReBRACConfig]) -> ReBRACLearner:
    """The learner of `policy.learner=rebrac`."""
    return ReBRACLearner(inputs.sampler, inputs.actor, inputs.config, inputs.seed)
