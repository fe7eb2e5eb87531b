"""Learning rates as a function of the update step, so that they need no state to resume."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine(learning_rate: float, step: int, num_steps: int) -> float:
    """Cosine decay to zero over the run."""
    return 0.5 * learning_rate * (1 + math.cos(math.pi * step / num_steps))


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of all parameter groups; in place if it is a tensor (`cuda_graph`)."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(learning_rate)
        else:
            group["lr"] = learning_rate
