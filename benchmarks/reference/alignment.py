"""Contrastive alignment (IGDF): logits of every query with its own positive and the shared negatives.

The next states are expanded to one set of B per query, and the encoder g runs on that B x B x O tensor. The queries
f(s, a) are encoded once each: `expand_queries` runs f on a B x B tensor too.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.reference.networks import adam, descend, plain
from v2a_ray.data.loading.sampler import Batch
from v2a_ray.stages.alignment.contrastive import ContrastiveLearner


class ContrastiveReference:
    """`update` is one step of both encoders."""

    def __init__(self, learner: ContrastiveLearner, *, expand_queries: bool = False) -> None:
        self.expand_queries = expand_queries
        self.state_action = plain(learner.state_action)
        self.next_state = plain(learner.next_state)
        self.optimizer = adam([self.state_action, self.next_state], learner.config.learning_rate)

    def update(self, positive: Batch, negative: Batch) -> dict[str, Tensor]:
        """One update step on B target transitions and the next states of B - 1 source transitions."""
        logits_BB = self.logits(positive, negative)
        labels_BB = torch.zeros_like(logits_BB)
        labels_BB[:, 0] = 1
        loss = functional.binary_cross_entropy_with_logits(logits_BB, labels_BB)
        descend(self.optimizer, loss)
        return {"alignment/contrastive_loss": loss.detach()}

    def logits(self, positive: Batch, negative: Batch) -> Tensor:
        """(B, B): f(s, a) . g(s') of every query; column 0 is its own next state."""
        size = len(positive.observation_BO)
        query_input = torch.cat([positive.observation_BO, positive.action_BA], dim=1)[:, None]
        if self.expand_queries:
            query_input = query_input.expand(-1, size, -1)
        negatives = negative.next_observation_BO.expand(size, -1, -1)
        next_observation_BBO = torch.cat([positive.next_observation_BO[:, None], negatives], dim=1)
        logits_BB: Tensor = (self.state_action(query_input) * self.next_state(next_observation_BBO)).sum(dim=-1)
        return logits_BB
