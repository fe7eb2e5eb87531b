"""Policy learners beside IQL that query the policy's own actions: TD3+BC (2106.06860), AWAC (2006.09359) and BOSA
(2306.12755).

All take the filter's weight on the TD loss only, as IQL does; their actor losses are unweighted.

Shape suffixes: B batch, K = 2 critics, O observation dimension, A action dimension.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import Batch
from v2a_ray.networks import EnsembleMLP, TanhActor, adam, gaussian_log_density, update_target
from v2a_ray.stages.policy.config import PolicyConfig
from v2a_ray.stages.policy.filtering import MAX_WEIGHT
from v2a_ray.stages.policy.iql import Loss, MixedSampler
from v2a_ray.stages.support.conditional_vae import BehaviorDensity

LOG_STD_RANGE = (-6.0, 0.0)


def td3_bc_actor_loss(q_B: Tensor, policy_BA: Tensor, action_BA: Tensor, q_weight: float) -> Tensor:
    """- w / mean|Q| * mean Q(s, pi(s)) + mean (pi(s) - a)^2; mean|Q| carries no gradient.

    The square is averaged over action dimensions, as in the published code; the formula has the norm.
    """
    scale = q_weight / q_B.detach().abs().mean().clamp(min=1e-8)
    return -scale * q_B.mean() + (policy_BA - action_BA).square().mean()


class _ActorCritic:
    """Two critics with moving averages, and the TD loss that all share."""

    def __init__(self, sampler: MixedSampler, actor: TanhActor, config: PolicyConfig, seed: int) -> None:
        self.sampler, self.actor, self.config = sampler, actor, config
        self.generator = torch.Generator(sampler.target.device).manual_seed(seed)
        inputs = sampler.target.observation_dim + sampler.target.action_dim
        self.critics = EnsembleMLP(2, inputs, [config.width] * 2, 1)
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)
        self.networks: dict[str, nn.Module] = {
            "actor": actor,
            "critics": self.critics,
            "target_critics": self.target_critics,
        }
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: adam(self.networks[name].parameters(), config.learning_rate) for name in ("critics", "actor")
        }

    def critic_loss(self, batch: Batch, next_action_BA: Tensor, weight_B: Tensor) -> Loss:
        """Weighted TD loss of both critics on r + gamma * (1 - terminated) * min Q'(s', a')."""
        with torch.no_grad():
            next_q_B = self.q(self.target_critics, batch.next_observation_BO, next_action_BA).amin(dim=0)
            return_B = batch.reward_B + self.config.discount * batch.continues_B * next_q_B
        q_KB = self.q(self.critics, batch.observation_BO, batch.action_BA)
        loss = (weight_B * (q_KB - return_B).square()).mean(dim=1).sum() + self.value_penalty(q_KB)
        return loss, {"policy/critic_loss": loss.detach()}

    def value_penalty(self, q_KB: Tensor) -> Tensor:
        """What a learner adds to the TD loss: here nothing."""
        return q_KB.new_zeros(())

    def q(self, critics: EnsembleMLP, observation: Tensor, action: Tensor) -> Tensor:
        """(K, B) values of actions."""
        value_KB: Tensor = critics(torch.cat([observation, action], dim=1)).squeeze(-1)
        return value_KB

    def noise(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the learner's generator."""
        return torch.randn(like.shape, generator=self.generator, device=like.device)

    def descend(self, name: str, loss: Tensor) -> None:
        """One step of an optimiser."""
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers[name].step()


class TD3BCLearner(_ActorCritic):
    """TD3 whose actor is held to the data by a squared error.

    Beside the published code: states are standardised by the target's statistics and rewards are scaled, as for every
    method here (`preprocessing`).
    """

    def __init__(self, sampler: MixedSampler, actor: TanhActor, config: PolicyConfig, seed: int) -> None:
        super().__init__(sampler, actor, config, seed)
        self.target_actor = copy.deepcopy(actor).requires_grad_(False)
        self.networks["target_actor"] = self.target_actor

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of the critics; every `delay_steps` also of the actor and all moving averages."""
        batch, weight_B = self.sampler.sample(self.generator)
        critic_loss, metrics = self.critic_loss(batch, self.smoothed_action(batch), weight_B)
        self.descend("critics", critic_loss)
        due = (step + 1) % self.config.td3_bc.delay_steps == 0
        # The loss is a metric of every step, so that a record is the same whatever step it falls on.
        with torch.set_grad_enabled(due):
            policy_BA = self.actor(batch.observation_BO)
            q_B = self.q(self.critics, batch.observation_BO, policy_BA)[0]
            actor_loss = self.actor_loss(batch, policy_BA, q_B)
        if due:
            self.descend("actor", actor_loss)
            update_target(self.target_critics, self.critics, self.config.target_rate)
            update_target(self.target_actor, self.actor, self.config.target_rate)
        return metrics | {"policy/actor_loss": actor_loss.detach(), "policy/q": q_B.detach().mean()}

    def actor_loss(self, batch: Batch, policy_BA: Tensor, q_B: Tensor) -> Tensor:
        """The loss of the policy's actions, whose value by the first critic is `q_B`."""
        return td3_bc_actor_loss(q_B, policy_BA, batch.action_BA, self.config.td3_bc.q_weight)

    @torch.no_grad()
    def smoothed_action(self, batch: Batch) -> Tensor:
        """(B, A): the target actor's next action with clipped noise, inside the action range."""
        config = self.config.td3_bc
        action_BA: Tensor = self.target_actor(batch.next_observation_BO)
        noise_BA = (config.noise_std * self.noise(action_BA)).clamp(-config.noise_clip, config.noise_clip)
        return (action_BA + noise_BA).clamp(-1, 1)


class BOSALearner(TD3BCLearner):
    """Beyond out-of-sample actions and dynamics (BOSA): TD3 in the support of a behaviour and of the target dynamics.

    The critics' TD loss counts source transitions that the target dynamics make likely (the filter's weight), and pays
    for the value of source data; the actor pays for actions that the behaviour makes unlikely.
    """

    def __init__(
        self, sampler: MixedSampler, actor: TanhActor, config: PolicyConfig, seed: int, density: BehaviorDensity
    ) -> None:
        super().__init__(sampler, actor, config, seed)
        self.density = density

    def value_penalty(self, q_KB: Tensor) -> Tensor:
        """The mean value of the batch's source rows, of both critics."""
        source_KB = q_KB[:, : self.sampler.num_source_rows]
        if source_KB.shape[1] == 0:
            return q_KB.new_zeros(())
        return self.config.bosa.value_penalty * source_KB.mean(dim=1).sum()

    def actor_loss(self, batch: Batch, policy_BA: Tensor, q_B: Tensor) -> Tensor:
        """- mean Q(s, pi(s)) / mean|Q| - w mean log pi_b(pi(s) | s); mean|Q| carries no gradient."""
        log_density_B = self.density.log_density(batch.observation_BO, policy_BA, self.generator)
        scale = q_B.detach().abs().mean().clamp(min=1e-8)
        return -q_B.mean() / scale - self.config.density_weight * log_density_B.mean()


class AWACLearner(_ActorCritic):
    """Advantage-weighted actor-critic: likelihood of the data's actions, weighed by exp(A / lambda), A from Q alone.

    The policy is a Gaussian about the actor's tanh mean with one learned standard deviation per action dimension; the
    mean is what is evaluated. Weights are clamped at 100 as IQL's are, where published code normalises them over the
    batch; the formula does neither.
    """

    def __init__(self, sampler: MixedSampler, actor: TanhActor, config: PolicyConfig, seed: int) -> None:
        super().__init__(sampler, actor, config, seed)
        self.log_std_A = nn.Parameter(torch.full((sampler.target.action_dim,), -1.0))
        self.networks["log_std"] = nn.ParameterList([self.log_std_A])
        self.optimizers["actor"] = adam([*actor.parameters(), self.log_std_A], config.learning_rate)

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of the critics, then of the policy."""
        batch, weight_B = self.sampler.sample(self.generator)
        critic_loss, metrics = self.critic_loss(batch, self.sampled_action(batch.next_observation_BO), weight_B)
        self.descend("critics", critic_loss)
        actor_loss, actor_metrics = self.actor_loss(batch, self.advantage(batch))
        self.descend("actor", actor_loss)
        update_target(self.target_critics, self.critics, self.config.target_rate)
        return metrics | actor_metrics

    @torch.no_grad()
    def sampled_action(self, observation_BO: Tensor) -> Tensor:
        """(B, A): an action of the policy, inside the action range."""
        mean_BA: Tensor = self.actor(observation_BO)
        std_A = self.log_std_A.clamp(*LOG_STD_RANGE).exp()
        return (mean_BA + std_A * self.noise(mean_BA)).clamp(-1, 1)

    @torch.no_grad()
    def advantage(self, batch: Batch) -> Tensor:
        """(B,): min Q(s, a) minus its mean over `num_samples` actions of the policy."""
        q_B = self.q(self.critics, batch.observation_BO, batch.action_BA).amin(dim=0)
        repeated = batch.observation_BO.repeat(self.config.awac.num_samples, 1)
        q_of_policy = self.q(self.critics, repeated, self.sampled_action(repeated)).amin(dim=0)
        return q_B - q_of_policy.view(self.config.awac.num_samples, -1).mean(dim=0)

    def actor_loss(self, batch: Batch, advantage_B: Tensor) -> Loss:
        """Negative log-likelihood of the data's actions, weighed by exp(A / lambda)."""
        weight_B = (advantage_B / self.config.awac.temperature).exp().clamp(max=MAX_WEIGHT)
        log_std_A = self.log_std_A.clamp(*LOG_STD_RANGE)
        log_density_B = gaussian_log_density(self.actor(batch.observation_BO), log_std_A, batch.action_BA)
        loss = -(weight_B * log_density_B).mean()
        return loss, {"policy/actor_loss": loss.detach(), "policy/advantage_weight": weight_B.mean()}
