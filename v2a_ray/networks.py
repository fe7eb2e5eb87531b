"""Neural networks, written once and shared by every stage.

Shape suffixes: B batch, K ensemble members, O observation dimension, A action dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def mlp(input_dim: int, hidden: Sequence[int], output_dim: int) -> nn.Sequential:
    """A multilayer perceptron with ReLU between its layers: (..., input_dim) to (..., output_dim)."""
    widths = [input_dim, *hidden, output_dim]
    layers: list[nn.Module] = []
    for index, (fan_in, fan_out) in enumerate(pairwise(widths)):
        layers.append(nn.Linear(fan_in, fan_out))
        if index < len(widths) - 2:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class EnsembleMLP(nn.Module):
    """K independent MLPs evaluated in one batched matrix product per layer.

    Weights have a leading ensemble dimension (K, fan_in, fan_out); each member is initialised like `nn.Linear`.
    """

    def __init__(self, num_members: int, input_dim: int, hidden: Sequence[int], output_dim: int) -> None:
        super().__init__()
        self.num_members = num_members
        widths = [input_dim, *hidden, output_dim]
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            bound = 1.0 / math.sqrt(fan_in)
            self.weights.append(nn.Parameter(torch.empty(num_members, fan_in, fan_out).uniform_(-bound, bound)))
            self.biases.append(nn.Parameter(torch.empty(num_members, 1, fan_out).uniform_(-bound, bound)))

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, input_dim), the same for all members, or (K, B, input_dim), to (K, B, output_dim)."""
        expanded = inputs.expand(self.num_members, -1, -1) if inputs.dim() == 2 else inputs
        return batched_mlp(expanded, list(self.weights), list(self.biases))


def batched_mlp(inputs_KBX: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> Tensor:
    """K MLPs at once, (K, B, input_dim) to (K, B, output_dim); weights (K, in, out), biases (K, 1, out)."""
    hidden, last = inputs_KBX, len(weights) - 1
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        hidden = torch.baddbmm(bias, hidden, weight)
        if index < last:
            hidden = torch.relu(hidden)
    return hidden


class TanhActor(nn.Module):
    """A deterministic policy: the tanh of an MLP, so that actions stay in [-1, 1].

    It carries the statistics that standardise observations, so a deployed policy takes raw observations.
    """

    observation_mean_O: Tensor
    observation_std_O: Tensor

    def __init__(self, observation_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.body = mlp(observation_dim, hidden, action_dim)
        self.register_buffer("observation_mean_O", torch.zeros(observation_dim))
        self.register_buffer("observation_std_O", torch.ones(observation_dim))

    def forward(self, standardized_BO: Tensor) -> Tensor:
        """Mean action (B, A) for observations (B, O) that are standardised already."""
        return torch.tanh(self.body(standardized_BO))

    @torch.no_grad()
    def act(self, observation_BO: Tensor) -> Tensor:
        """Action (B, A) for raw observations (B, O)."""
        action_BA: Tensor = self((observation_BO - self.observation_mean_O) / self.observation_std_O)
        return action_BA

    def act_numpy(self, observation_BO: NDArray[Any]) -> NDArray[np.float32]:
        """`act` from and to NumPy, for roll-outs."""
        action_BA: NDArray[np.float32] = self.act(torch.from_numpy(observation_BO.astype(np.float32))).numpy()
        return action_BA


class GRUEncoder(nn.Module):
    """q(z | trajectory): a GRU whose last valid hidden state gives a diagonal Gaussian over z (V2A's encoder)."""

    LOG_STD_RANGE = (-5.0, 2.0)

    def __init__(self, input_dim: int, hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(input_dim, hidden_dim, batch_first=True)
        self.head = nn.Linear(hidden_dim, 2 * latent_dim)

    def forward(self, steps_BTX: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, each (B, Z), of z.

        The recurrence runs forward in time, so padding behind a trajectory's end cannot reach its last valid state.
        """
        hidden_BTH, _ = self.recurrent(steps_BTX)
        last_BH = hidden_BTH[torch.arange(len(lengths_B)), lengths_B - 1]
        mean_BZ, log_std_BZ = self.head(last_BH).chunk(2, dim=-1)
        return mean_BZ, log_std_BZ.clamp(*self.LOG_STD_RANGE)


@torch.no_grad()
def update_target(target: nn.Module, online: nn.Module, rate: float) -> None:
    """Exponential moving average of the parameters: target += rate * (online - target)."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), rate)


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Adam in its fused form, one kernel for all parameters: small networks are bound by the number of kernels."""
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)
