"""Beyond out-of-sample actions and dynamics (BOSA, 2306.12755).

Shape suffixes: B batch, K = 2 critics, A action dimension.
"""

from __future__ import annotations

from torch import Tensor

from v2a_ray.data.loading.sampler import Batch
from v2a_ray.networks import TanhActor
from v2a_ray.stages.policy.config import BOSAConfig
from v2a_ray.stages.policy.inputs import LearnerInputs
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.policy.td3_bc import TD3Learner
from v2a_ray.stages.support.conditional_vae import BehaviorDensity


class BOSALearner(TD3Learner):
    """TD3 constrained to the support of the behaviour policy and of the target dynamics.

    The TD loss only counts source transitions that are likely under the target dynamics (the filter's weight). The
    critics' loss penalises the value of source data; the actor's loss penalises actions unlikely under the behaviour.
    """

    config: BOSAConfig

    def __init__(
        self, sampler: MixedSampler, actor: TanhActor, config: BOSAConfig, seed: int, density: BehaviorDensity
    ) -> None:
        super().__init__(sampler, actor, config, seed)
        self.density = density

    def value_penalty(self, batch: Batch, q_KB: Tensor) -> Tensor:
        """The weighted mean value of the batch's source rows, summed over both critics."""
        source_KB = q_KB[:, : self.sampler.num_source_rows]
        if source_KB.shape[1] == 0:
            return q_KB.new_zeros(())
        return self.config.value_penalty * source_KB.mean(dim=1).sum()

    def actor_loss(self, batch: Batch, policy_BA: Tensor, q_B: Tensor) -> Tensor:
        """- mean Q(s, pi(s)) / mean|Q| - w mean log pi_b(pi(s) | s); mean|Q| carries no gradient."""
        log_density_B = self.density.log_density(batch.observation_BO, policy_BA, self.generator)
        scale = q_B.detach().abs().mean().clamp(min=1e-8)
        return -q_B.mean() / scale - self.config.density_weight * log_density_B.mean()


def make(inputs: LearnerInputs[BOSAConfig]) -> BOSALearner:
    """The learner of `policy.learner=bosa`."""
    assert inputs.density is not None  # the learner reads the stage, so the plan contains it
    return BOSALearner(inputs.sampler, inputs.actor, inputs.config, inputs.seed, inputs.density)
