"""Flow Q-learning (FQL, 2502.02538): a flow clones the behaviour; a one-step policy imitates the flow and maximises Q.

    flow:      |v(s, x_t, t) - (a - z)|^2,       x_t = (1 - t) z + t a,  z ~ N(0, I),  t ~ U(0, 1)
    one step:  - w Q(s, mu(s, z)) / mean|Q| + |mu(s, z) - flow(s, z)|^2
    critics:   r + gamma * min Q'(s', mu(s', z))

flow(s, z) integrates v from t = 0, x = z to t = 1 by Euler's method, without gradients.

Evaluation and export need a deterministic `TanhActor`; here it is mu(s, 0). mu is the actor with z as additional inputs
of its first layer, and the weights of z are a separate parameter.

Shape suffixes: B batch, O observation dimension, A action dimension, H width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import Batch
from v2a_ray.networks import MLP, NormalizedEnsembleMLP, TanhActor, adam, update_target
from v2a_ray.stages.policy.actor_critic import ActorCritic
from v2a_ray.stages.policy.config import FQLConfig
from v2a_ray.stages.policy.inputs import LearnerInputs
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.policy.td3_bc import td3_bc_actor_loss


class FQLLearner(ActorCritic):
    """A flow fitted to the batch's actions, the policy distilled from it, and the critics."""

    config: FQLConfig
    critic_network = NormalizedEnsembleMLP

    def __init__(self, sampler: MixedSampler, actor: TanhActor, config: FQLConfig, seed: int) -> None:
        super().__init__(sampler, actor, config, seed)
        observation, action = sampler.target.observation_dim, sampler.target.action_dim
        self.flow = MLP(observation + action + 1, [config.width] * 2, action)
        bound = 1.0 / math.sqrt(observation)
        self.noise_weight_AH = nn.Parameter(torch.empty(action, config.width).uniform_(-bound, bound))
        self.networks |= {"flow": self.flow, "noise_weight": nn.ParameterList([self.noise_weight_AH])}
        self.optimizers["flow"] = adam(self.flow.parameters(), config.learning_rate)
        self.optimizers["actor"] = adam([*actor.parameters(), self.noise_weight_AH], config.learning_rate)

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of the critics, of the flow, and of the policy."""
        batch, weight_B = self.sampler.sample(self.generator)
        with torch.no_grad():
            next_action_BA = self.one_step(batch.next_observation_BO, self.noise(batch.action_BA))
        critic_loss, metrics = self.critic_loss(batch, next_action_BA, weight_B)
        self.descend("critics", critic_loss)
        time_B1 = torch.rand(len(weight_B), 1, generator=self.generator, device=weight_B.device)
        flow_loss = self.flow_loss(batch, self.noise(batch.action_BA), time_B1)
        self.descend("flow", flow_loss)
        noise_BA = self.noise(batch.action_BA)
        policy_BA = self.one_step(batch.observation_BO, noise_BA)
        q_B = self.q(self.critics, batch.observation_BO, policy_BA).amin(dim=0)
        flow_BA = self.flow_action(batch.observation_BO, noise_BA)
        actor_loss = td3_bc_actor_loss(q_B, policy_BA, flow_BA, self.config.q_weight)
        self.descend("actor", actor_loss)
        update_target(self.target_critics, self.critics, self.config.target_rate)
        return metrics | {
            "policy/flow_loss": flow_loss.detach(),
            "policy/actor_loss": actor_loss.detach(),
            "policy/q": q_B.detach().mean(),
        }

    def one_step(self, observation_BO: Tensor, noise_BA: Tensor) -> Tensor:
        """mu(s, z), (B, A): the actor with the additional input z; equals the actor for z = 0."""
        body = self.actor.body
        (first, *weights), (first_bias, *biases) = body.weights, body.biases
        values = observation_BO @ first[0] + noise_BA @ self.noise_weight_AH + first_bias
        for weight, bias in zip(weights, biases, strict=True):
            values = values.relu() @ weight[0] + bias
        return torch.tanh(values)

    def flow_loss(self, batch: Batch, noise_BA: Tensor, time_B1: Tensor) -> Tensor:
        """Mean squared error of the velocity at time t between noise and the batch's action."""
        at_BA = torch.lerp(noise_BA, batch.action_BA, time_B1)
        error_BA = self.velocity(batch.observation_BO, at_BA, time_B1) - (batch.action_BA - noise_BA)
        return error_BA.square().mean()

    @torch.no_grad()
    def flow_action(self, observation_BO: Tensor, noise_BA: Tensor) -> Tensor:
        """(B, A): the flow's action for the noise, inside the action range."""
        count, at_BA = self.config.flow_steps, noise_BA
        for step in range(count):
            time_B1 = noise_BA.new_full((len(noise_BA), 1), step / count)
            at_BA = at_BA + self.velocity(observation_BO, at_BA, time_B1) / count
        return at_BA.clamp(-1, 1)

    def velocity(self, observation_BO: Tensor, at_BA: Tensor, time_B1: Tensor) -> Tensor:
        """v(s, x, t), (B, A)."""
        velocity_BA: Tensor = self.flow(torch.cat([observation_BO, at_BA, time_B1], dim=1))
        return velocity_BA


def make(inputs: LearnerInputs[FQLConfig]) -> FQLLearner:
    """The learner of `policy.learner=fql`."""
    return FQLLearner(inputs.sampler, inputs.actor, inputs.config, inputs.seed)
