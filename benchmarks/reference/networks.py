"""What the reference steps share: separate networks, plain Adam, moving averages parameter by parameter."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from v2a_ray.networks import LOG_STD_RANGE, MLP, EnsembleMLP, GRUEncoder


def plain(module: nn.Module) -> nn.Module:
    """A copy whose perceptrons are torch's own layers, one after the other."""
    if isinstance(module, MLP):
        return sequential(module)
    copied = copy.deepcopy(module)
    for name, child in module.named_children():
        setattr(copied, name, plain(child))
    return copied


class PaddedGRUEncoder(nn.Module):
    """The GRU encoder on padded trajectories: steps behind an end are computed, and the last valid state is taken."""

    def __init__(self, encoder: GRUEncoder) -> None:
        super().__init__()
        self.recurrent, self.head = copy.deepcopy(encoder.recurrent), copy.deepcopy(encoder.head)

    def forward(self, steps_BTX: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation, each (B, Z)."""
        hidden_BTH, _ = self.recurrent(steps_BTX)
        mean_BZ, log_std_BZ = self.head(hidden_BTH[torch.arange(len(lengths_B)), lengths_B - 1]).chunk(2, dim=1)
        return mean_BZ, log_std_BZ.clamp(*LOG_STD_RANGE)


def sequential(network: MLP) -> nn.Sequential:
    """The layers of a perceptron as torch's own, with copies of their weights."""
    widths, layers = list(pairwise(network.widths)), []
    for fan_in, fan_out in widths:
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    copied = nn.Sequential(*layers[:-1])
    copied.load_state_dict(network.state_dict())
    return copied


def separate(ensemble: EnsembleMLP) -> nn.ModuleList:
    """The members of an ensemble as networks of their own, with copies of their weights."""
    members = nn.ModuleList()
    for index in range(ensemble.num_members):
        member = MLP(ensemble.widths[0], ensemble.widths[1:-1], ensemble.widths[-1])
        with torch.no_grad():
            member.numbers_KS[0] = ensemble.numbers_KS[index]
        members.append(sequential(member))
    return members


def smaller(critics: nn.ModuleList, inputs: Tensor) -> Tensor:
    """(B,): the smaller of two critics' values."""
    first, second = (critic(inputs).squeeze(-1) for critic in critics)
    return torch.minimum(first, second)


def adam(modules: Iterable[nn.Module], learning_rate: float) -> torch.optim.Adam:
    """Torch's default Adam, which on a CPU goes through the parameters one by one."""
    return torch.optim.Adam([parameter for module in modules for parameter in module.parameters()], learning_rate)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of one optimiser on one loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


@torch.no_grad()
def move_target(target: nn.Module, online: nn.Module, rate: float) -> None:
    """target = rate * online + (1 - rate) * target, parameter by parameter."""
    for old, new in zip(target.parameters(), online.parameters(), strict=True):
        old.copy_(rate * new + (1 - rate) * old)
