"""The actor and the trajectory encoders.

Shape suffixes: B batch, O observation dimension, A action dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from v2a_ray.networks.kernels import written_out
from v2a_ray.networks.perceptrons import MLP
from v2a_ray.networks.recurrence import last_states

LOG_STD_RANGE = (-5.0, 2.0)
"""Range of the log standard deviation of a trajectory encoder's Gaussian."""


class TanhActor(nn.Module):
    """A deterministic policy: the tanh of an MLP, so that actions stay in [-1, 1].

    It stores the statistics that standardise observations, so a deployed policy takes raw observations.
    """

    observation_mean_O: Tensor
    observation_std_O: Tensor

    def __init__(self, observation_dim: int, action_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.body = MLP(observation_dim, hidden, action_dim)
        self.register_buffer("observation_mean_O", torch.zeros(observation_dim))
        self.register_buffer("observation_std_O", torch.ones(observation_dim))

    def forward(self, standardized_BO: Tensor) -> Tensor:
        """Mean action (B, A) for standardised observations (B, O)."""
        return torch.tanh(self.body(standardized_BO))

    @torch.no_grad()
    def act(self, observation_BO: Tensor) -> Tensor:
        """Action (B, A) for raw observations (B, O)."""
        action_BA: Tensor = self((observation_BO - self.observation_mean_O) / self.observation_std_O)
        return action_BA

    def act_numpy(self, observation_BO: NDArray[Any]) -> NDArray[np.float32]:
        """`act` with NumPy arrays, for rollouts."""
        observation = torch.from_numpy(observation_BO.astype(np.float32)).to(self.observation_mean_O.device)
        action_BA: NDArray[np.float32] = self.act(observation).cpu().numpy()
        return action_BA


def _gaussian(output_BY: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and clamped log standard deviation, each (B, Z), from the output of an encoder's head, (B, 2 Z)."""
    mean_BZ, log_std_BZ = output_BY.chunk(2, dim=-1)
    return mean_BZ, log_std_BZ.clamp(*LOG_STD_RANGE)


class GRUEncoder(nn.Module):
    """q(z | trajectory): a GRU; its last valid hidden state gives a diagonal Gaussian over z (V2A's encoder)."""

    def __init__(self, input_dim: int, hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.recurrent = nn.GRU(input_dim, hidden_dim, batch_first=True)
        self.head = nn.Linear(hidden_dim, 2 * latent_dim)

    def forward(self, steps_BTX: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of z, each (B, Z). Padding is not computed."""
        packed = pack_padded_sequence(steps_BTX, lengths_B.cpu(), batch_first=True, enforce_sorted=False)
        if written_out(steps_BTX):
            sorted_BH = last_states(packed.data, packed.batch_sizes.tolist(), list(self.recurrent.parameters()))
            return _gaussian(self.head(sorted_BH[packed.unsorted_indices]))
        _, last_1BH = self.recurrent(packed)
        return _gaussian(self.head(last_1BH[0]))


class PooledEncoder(nn.Module):
    """q(z | trajectory): an MLP over each transition, averaged over time, gives a diagonal Gaussian over z.

    All transitions are encoded in parallel. Their order does not matter, because each one shows the dynamics.
    """

    def __init__(self, input_dim: int, hidden_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.body = MLP(input_dim, [hidden_dim], hidden_dim)
        self.head = nn.Linear(hidden_dim, 2 * latent_dim)

    def forward(self, steps_BTX: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation of z, each (B, Z). Padding is not computed."""
        valid_BT = torch.arange(steps_BTX.shape[1], device=lengths_B.device) < lengths_B[:, None]
        features_MH = torch.relu(self.body(steps_BTX[valid_BT]))
        mean_BH = torch.segment_reduce(features_MH, "mean", lengths=lengths_B)
        return _gaussian(self.head(mean_BH))


def gaussian_log_density(mean: Tensor, log_std: Tensor, values: Tensor) -> Tensor:
    """(...,): log N(values; mean, exp(log_std)^2) of (..., D), summed over the D features."""
    standardized = (values - mean) / log_std.exp()
    return (-0.5 * standardized.square() - log_std - 0.5 * math.log(2 * math.pi)).sum(dim=-1)


@torch.no_grad()
def update_target(target: nn.Module, online: nn.Module, rate: float) -> None:
    """Exponential moving average of the parameters: target += rate * (online - target)."""
    torch._foreach_lerp_(list(target.parameters()), list(online.parameters()), rate)


def adam(parameters: Iterable[nn.Parameter], learning_rate: float) -> torch.optim.Adam:
    """Fused Adam, one kernel for all parameters, because the number of kernels limits the speed of small networks."""
    return torch.optim.Adam(parameters, lr=learning_rate, fused=True)
