"""Classifier alignment (DARA, 2203.06662): the log ratio of target to source dynamics, from two domain classifiers.

    delta_r = log q(target | s, a, s') - log q(target | s, a) - log q(source | s, a, s') + log q(source | s, a)

The classifier of (s, a, s') sees behaviour and dynamics, the classifier of (s, a) only behaviour. By Bayes' rule the
difference is log p_target(s' | s, a) / p_source(s' | s, a). It is computed as a difference of two logits for "target",
which cannot underflow as a softmax can.

The published DARA adds eta * delta_r to source rewards (`policy.reward_correction`); using it as a filter is ours.

Shape suffixes: B batch, N transitions, O observation dimension, A action dimension, X input width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from v2a_ray.data.loading.sampler import Batch, TransitionSampler
from v2a_ray.networks import MLP, adam
from v2a_ray.stages.alignment.alignment_tables import AlignmentTables, Fitted
from v2a_ray.stages.alignment.config import ClassifierConfig, DiscriminatorConfig


def domain_loss(target_logit_B: Tensor, source_logit_B: Tensor) -> Tensor:
    """Binary cross-entropy of logits for "target", over equal numbers of target and source rows."""
    return 0.5 * (functional.softplus(-target_logit_B).mean() + functional.softplus(source_logit_B).mean())


class ClassifierLearner:
    """Fits the logits of q(target | s, a, s') and q(target | s, a) to equally many rows of both tables.

    Gaussian noise on the inputs keeps the classifiers from memorising a small target. Its standard deviation is in
    units of the inputs: states are standardised by target statistics (`preprocessing`), actions are in [-1, 1]. Noise
    smooths both densities, so strong noise shrinks the ratio; the default is the published 1.0.
    """

    def __init__(
        self, target: TransitionSampler, source: TransitionSampler, config: DiscriminatorConfig, seed: int
    ) -> None:
        self.target, self.source, self.config = target, source, config
        self.generator = torch.Generator(target.device).manual_seed(seed)
        condition_dim, hidden = target.observation_dim + target.action_dim, [config.width] * 2
        self.with_next = MLP(condition_dim + target.observation_dim, hidden, 1)
        self.without_next = MLP(condition_dim, hidden, 1)
        self.networks: dict[str, nn.Module] = {"with_next": self.with_next, "without_next": self.without_next}
        parameters = [*self.with_next.parameters(), *self.without_next.parameters()]
        self.optimizers: dict[str, torch.optim.Optimizer] = {"classifiers": adam(parameters, config.learning_rate)}

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step of both classifiers on B target and B source transitions."""
        size = self.config.batch_size
        target, source = (table.sample(size, self.generator) for table in (self.target, self.source))
        target_logits, source_logits = self._logits(target, noisy=True), self._logits(source, noisy=True)
        losses = [domain_loss(*logits) for logits in zip(target_logits, source_logits, strict=True)]
        self.optimizers["classifiers"].zero_grad(set_to_none=True)
        (losses[0] + losses[1]).backward()  # type: ignore[no-untyped-call]
        self.optimizers["classifiers"].step()
        return {"alignment/loss_with_next": losses[0].detach(), "alignment/loss_without_next": losses[1].detach()}

    @torch.no_grad()
    def score(self, transitions: TransitionSampler, chunk_rows: int = 16384) -> Tensor:
        """(N,): delta_r, clipped to +- `log_ratio_clip`; higher is better aligned."""
        clip, scores = self.config.log_ratio_clip, []
        for batch in transitions.chunks(chunk_rows):
            with_next_B, without_next_B = self._logits(batch, noisy=False)
            scores.append((with_next_B - without_next_B).clamp(-clip, clip))
        return torch.cat(scores)

    def _logits(self, batch: Batch, *, noisy: bool) -> tuple[Tensor, Tensor]:
        """(B,) logits with and without the next state."""
        condition_BX = torch.cat([batch.observation_BO, batch.action_BA], dim=1)
        everything_BX = torch.cat([condition_BX, batch.next_observation_BO], dim=1)
        if noisy:
            condition_BX, everything_BX = self._perturbed(condition_BX), self._perturbed(everything_BX)
        return self.with_next(everything_BX).squeeze(-1), self.without_next(condition_BX).squeeze(-1)

    def _perturbed(self, inputs_BX: Tensor) -> Tensor:
        noise_BX = torch.randn(inputs_BX.shape, generator=self.generator, device=inputs_BX.device)
        return inputs_BX + self.config.noise_std * noise_BX


def fit(tables: AlignmentTables[ClassifierConfig]) -> Fitted:
    """Classifier scores of both tables."""
    return tables.learned(ClassifierLearner)
