"""State regularisation (after SRPO, 2306.03552): how much more likely is a state among states of high value?

The method assumes that optimal policies visit the same states under different dynamics. States of high value stand for
these states. A discriminator that separates them from the others has the logit log p_high(s) / p_other(s). The policy's
reward becomes r + lambda * logit (`policy.reward_correction`) on both tables, because the assumption is about states.

The values come from implicit Q-learning, trained together with the discriminator on half source and half target data.
A value is a function of the state, so a discriminator without input noise could separate the two classes perfectly and
the ratio would be infinite. The noise sets how far the influence of a high-value state reaches.

Shape suffixes: B batch of both tables, H states of high value, N transitions, O observation dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import TransitionSampler, join_rows
from v2a_ray.engine.columns import TARGET_COLUMN, write_step_column
from v2a_ray.networks import MLP, adam
from v2a_ray.stages.advantage.config import ExpectileConfig
from v2a_ray.stages.advantage.learner import AdvantageLearner
from v2a_ray.stages.alignment.alignment_tables import AlignmentTables, Fitted
from v2a_ray.stages.alignment.classifier import domain_loss
from v2a_ray.stages.alignment.config import StateRatioConfig
from v2a_ray.stages.alignment.scores import Alignment


def by_value(value_B: Tensor, fraction: float) -> tuple[Tensor, Tensor]:
    """Indices of the fraction `fraction` of rows with the highest values, and of the others; at least one of each."""
    count = min(max(1, round(fraction * len(value_B))), len(value_B) - 1)
    order_B = value_B.argsort(descending=True)
    return order_B[:count], order_B[count:]


class StateRatioLearner:
    """Trains the logit of "high value" given a state, together with the values that define high value.

    `noise_std` is in units of the inputs, which are standardised by target statistics (`preprocessing`).
    """

    def __init__(
        self, target: TransitionSampler, source: TransitionSampler, config: StateRatioConfig, seed: int
    ) -> None:
        self.target, self.source, self.config = target, source, config
        self.generator = torch.Generator(target.device).manual_seed(seed)
        iql = ExpectileConfig(width=config.width, learning_rate=config.learning_rate)
        self.values = AdvantageLearner(target, 0, iql, seed)
        self.discriminator = MLP(target.observation_dim, [config.width] * 2, 1)
        self.networks: dict[str, nn.Module] = {**self.values.networks, "discriminator": self.discriminator}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            **self.values.optimizers,
            "discriminator": adam(self.discriminator.parameters(), config.learning_rate),
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of the values, then of the discriminator, on B target and B source transitions."""
        size = self.config.batch_size
        batch = join_rows(*(table.sample(size, self.generator) for table in (self.target, self.source)))
        metrics = self.values.fit(batch, step)
        with torch.no_grad():
            value_B = self.values.value(batch.observation_BO).squeeze(-1)
        high_H, others = by_value(value_B, self.config.high_value_fraction)
        logit_B = self.logit(self._perturbed(batch.observation_BO))
        loss = domain_loss(logit_B[high_H], logit_B[others])
        self.optimizers["discriminator"].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers["discriminator"].step()
        named = {name.replace("advantage/", "alignment/"): value for name, value in metrics.items()}
        return named | {"alignment/discriminator_loss": loss.detach()}

    def logit(self, observation_BO: Tensor) -> Tensor:
        """(B,): log p_high(s) / p_other(s)."""
        logit_B: Tensor = self.discriminator(observation_BO).squeeze(-1)
        return logit_B

    @torch.no_grad()
    def score(self, transitions: TransitionSampler, chunk_rows: int = 16384) -> Tensor:
        """(N,): the logit of every transition's s, clipped to +- `log_ratio_clip`."""
        clip = self.config.log_ratio_clip
        scores = [self.logit(batch.observation_BO).clamp(-clip, clip) for batch in transitions.chunks(chunk_rows)]
        return torch.cat(scores)

    def _perturbed(self, observation_BO: Tensor) -> Tensor:
        noise_BO = torch.randn(observation_BO.shape, generator=self.generator, device=observation_BO.device)
        return observation_BO + self.config.noise_std * noise_BO


def fit(tables: AlignmentTables[StateRatioConfig]) -> Fitted:
    """Scores of the source and of held-out target states; writes a column for the whole target as well."""
    ratio, history = tables.train(
        lambda targets: StateRatioLearner(targets, tables.sources, tables.config, tables.seed)
    )
    scored = ratio.score(tables.transitions(tables.target)).cpu().numpy()
    write_step_column(tables.job.output / TARGET_COLUMN, "alignment", tables.target, scored)
    held_out = ratio.score(tables.transitions(tables.held_out)).cpu().numpy()
    return Alignment(ratio.score(tables.sources).cpu().numpy(), held_out), history
