"""Data-parallel workers that fit one model together, as a learner sees them. No Ray here.

Every worker draws its part of the batch, gradients are summed over all, and all take the same step, so their parameters
stay equal. A batch depends only on (seed, rank, step), so the checkpoint of any worker resumes all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

Reduce = Callable[[Tensor], Tensor]
"""Sum of a tensor over all workers, in place; the identity for one worker."""


def alone(tensor: Tensor) -> Tensor:
    """`Reduce` of a single worker."""
    return tensor


@dataclass(frozen=True)
class Workers:
    """The workers of one model, from the view of one worker.

    Attributes:
        rank: number of this worker, from 0. Rank 0 writes checkpoints and results.
        count: number of workers.
        reduce: sums a tensor over all workers.
    """

    rank: int = 0
    count: int = 1
    reduce: Reduce = alone

    def share(self, number: int) -> int:
        """This worker's share of `number` items; if they do not divide evenly, the first workers have one more."""
        return number // self.count + (self.rank < number % self.count)

    def seed(self, seed: int, step: int) -> int:
        """The seed of this worker's draws in an update step."""
        return int(np.random.SeedSequence([seed, self.rank, step]).generate_state(1)[0])

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum the gradients over all workers, as one flat tensor: one message instead of one per parameter."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = self.reduce(torch.cat([gradient.reshape(-1) for gradient in gradients]))
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, torch.split(flat, sizes), strict=True):
            gradient.copy_(part.view_as(gradient))

    def mean_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients over all workers."""
        self.sum_gradients(parameters)
        torch._foreach_div_([parameter.grad for parameter in parameters if parameter.grad is not None], self.count)

    def mean(self, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean of every metric (a scalar) over all workers."""
        if self.count == 1:
            return metrics
        means = self.reduce(torch.stack([value.detach().float() for value in metrics.values()])) / self.count
        return dict(zip(metrics, means, strict=True))


ONE_WORKER = Workers()
