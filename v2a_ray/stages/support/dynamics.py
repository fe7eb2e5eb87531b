"""Models of the target's dynamics: an ensemble that predicts the next state in the target.

Shape suffixes: B batch, K ensemble members, O observation dimension, A action dimension.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import Batch, TransitionSampler
from v2a_ray.errors import DataError
from v2a_ray.networks import EnsembleMLP, adam

MIN_SCALE = 1e-3


class EnsembleSettings(Protocol):
    """Settings of a section that fits an ensemble (`AlignmentConfig`, `DynamicsConfig`)."""

    @property
    def num_members(self) -> int:
        """K."""
        ...

    @property
    def width(self) -> int:
        """Width of the hidden layers."""
        ...

    @property
    def batch_size(self) -> int:
        """Transitions per member and update step."""
        ...

    @property
    def learning_rate(self) -> float:
        """Adam's learning rate."""
        ...


def delta_std(transitions: TransitionSampler) -> Tensor:
    """(O,): the standard deviation of every feature of s' - s, at least `MIN_SCALE`.

    Raises DataError for a single step, which has none.
    """
    steps = ((batch.next_observation_BO - batch.observation_BO, batch) for batch in transitions.chunks(8192))
    moved = torch.cat([moved_BO[batch.arrival_recorded] for moved_BO, batch in steps])
    if len(moved) < 2:
        found = "1 transition" if len(moved) else "no transition"
        raise DataError(
            f"{found} with a recorded next state to fit dynamics to, and 2 are needed",
            where="target",
            remedy="give more target data; an alignment holds out a part of it (alignment.held_out_fraction)",
        )
    return moved.std(dim=0).clamp(min=MIN_SCALE)


class DynamicsModel(nn.Module):
    """K deterministic models (s, a) -> s' - s, each feature in units of its standard deviation in the target."""

    delta_std_O: Tensor

    def __init__(self, num_members: int, observation_dim: int, action_dim: int, width: int) -> None:
        super().__init__()
        self.ensemble = EnsembleMLP(num_members, observation_dim + action_dim, [width] * 2, observation_dim)
        self.register_buffer("delta_std_O", torch.ones(observation_dim))

    def set_scale(self, target: TransitionSampler) -> None:
        """Set the standard deviations of s' - s from the target."""
        self.delta_std_O = delta_std(target)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """(K, B, O): predicted (s' - s) / std, from (B, O) and (B, A), shared by all members, or with a leading K."""
        predicted_KBO: Tensor = self.ensemble(torch.cat([observation, action], dim=-1))
        return predicted_KBO

    def delta(self, batch: Batch) -> Tensor:
        """(B, O): the recorded (s' - s) / std."""
        return (batch.next_observation_BO - batch.observation_BO) / self.delta_std_O

    def next_observation(self, observation_BO: Tensor, action_BA: Tensor) -> Tensor:
        """(K, B, O): the next state in the target that each member predicts."""
        next_KBO: Tensor = observation_BO + self.delta_std_O * self(observation_BO, action_BA)
        return next_KBO

    def error(self, batch: Batch, action_BA: Tensor) -> Tensor:
        """(B,): distance of s' from the members' mean prediction for `action_BA`, over standardised features."""
        expected_BO = self(batch.observation_BO, action_BA).mean(dim=0)
        error_B: Tensor = (expected_BO - self.delta(batch)).norm(dim=1)
        return error_B


class DynamicsLearner:
    """Fits a `DynamicsModel` by squared error. Every member gets its own random batches of target data."""

    group = "dynamics"

    def __init__(self, target: TransitionSampler, config: EnsembleSettings, seed: int) -> None:
        self.target, self.batch_size = target, config.batch_size
        self.generator = torch.Generator(target.device).manual_seed(seed)
        self.model = DynamicsModel(config.num_members, target.observation_dim, target.action_dim, config.width)
        self.model.set_scale(target)
        ensemble = self.model.ensemble
        self.networks: dict[str, nn.Module] = {"ensemble": ensemble}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "ensemble": adam(ensemble.parameters(), config.learning_rate)
        }

    def update(self, step: int) -> dict[str, Tensor]:
        """One update step."""
        shape = self.model.ensemble.num_members, self.batch_size, -1
        batch = self.target.sample(shape[0] * shape[1], self.generator)
        predicted_KBO = self.model(batch.observation_BO.view(shape), batch.action_BA.view(shape))
        loss = (predicted_KBO - self.model.delta(batch).view(shape)).square().mean()
        self.optimizers["ensemble"].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers["ensemble"].step()
        return {f"{self.group}/dynamics_loss": loss.detach()}
