"""Contrastive alignment (IGDF, 2405.06192): does s' belong to (s, a) under the target dynamics?

Shape suffixes: B batch, N transitions, D embedding dimension, O observation dimension, A action dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from v2a_ray.data.loading.sampler import TransitionSampler
from v2a_ray.networks import MLP, adam
from v2a_ray.stages.alignment.alignment_tables import AlignmentTables, Fitted
from v2a_ray.stages.alignment.config import ContrastiveConfig


def contrastive_loss(query_BD: Tensor, positive_BD: Tensor, negative_ND: Tensor) -> Tensor:
    """Binary cross-entropy of the B x (1 + N) logits query . key, in which column 0 is the positive.

    All queries share the same N negatives, so each next state is encoded once and the logits are one matrix product.
    """
    positive_B = (query_BD * positive_BD).sum(dim=1)
    negative_BN = query_BD @ negative_ND.T
    total = functional.softplus(-positive_B).sum() + functional.softplus(negative_BN).sum()
    return total / (len(query_BD) * (1 + len(negative_ND)))


class ContrastiveLearner:
    """Encoders f(s, a) and g(s'): positives are target transitions, negatives are next states of source transitions."""

    def __init__(
        self, target: TransitionSampler, source: TransitionSampler, config: ContrastiveConfig, seed: int
    ) -> None:
        self.target, self.source, self.config = target, source, config
        self.generator = torch.Generator(target.device).manual_seed(seed)
        hidden = [config.width] * 2
        self.state_action = MLP(target.observation_dim + target.action_dim, hidden, config.embedding_dim)
        self.next_state = MLP(target.observation_dim, hidden, config.embedding_dim)
        self.networks: dict[str, nn.Module] = {"state_action": self.state_action, "next_state": self.next_state}
        parameters = [*self.state_action.parameters(), *self.next_state.parameters()]
        self.optimizers: dict[str, torch.optim.Optimizer] = {"encoders": adam(parameters, config.learning_rate)}

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step on B target and B - 1 source transitions."""
        size = self.config.batch_size
        positive = self.target.sample(size, self.generator)
        negative = self.source.sample(size - 1, self.generator)
        query_BD = self.state_action(torch.cat([positive.observation_BO, positive.action_BA], dim=1))
        keys = self.next_state(torch.cat([positive.next_observation_BO, negative.next_observation_BO]))
        loss = contrastive_loss(query_BD, keys[:size], keys[size:])
        self.optimizers["encoders"].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizers["encoders"].step()
        return {"alignment/contrastive_loss": loss.detach()}

    @torch.no_grad()
    def score(self, transitions: TransitionSampler, chunk_rows: int = 16384) -> Tensor:
        """(N,): h = cosine(f(s, a), g(s')) in [-1, 1], or the logit f(s, a) . g(s') itself."""
        scores = []
        for batch in transitions.chunks(chunk_rows):
            query = self.state_action(torch.cat([batch.observation_BO, batch.action_BA], dim=1))
            key = self.next_state(batch.next_observation_BO)
            if self.config.contrastive_score == "logit":
                scores.append((query * key).sum(dim=1))
            else:
                scores.append(functional.cosine_similarity(query, key))
        return torch.cat(scores)


def fit(tables: AlignmentTables[ContrastiveConfig]) -> Fitted:
    """Contrastive scores of both tables."""
    return tables.learned(ContrastiveLearner)
