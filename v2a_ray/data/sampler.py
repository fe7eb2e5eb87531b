"""Transitions as tensors, ready to be sampled.

All columns of a transition lie side by side in one row, so that drawing a batch is one gather; the columns of the batch
are views into it.

Shape suffixes: N transitions, B batch, O observation dimension, A action dimension, Z latent dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.data.table import EpisodeTable

STANDARD_DEVIATION_FLOOR = 1e-3


@dataclass(frozen=True)
class Preprocessing:
    """What is done to observations and rewards before any network sees them; stored with every model.

    Attributes:
        observation_mean: (O,) float32, subtracted.
        observation_std: (O,) float32, divided by; at least `STANDARD_DEVIATION_FLOOR`.
        reward_scale: factor on every reward.
    """

    observation_mean: NDArray[np.float32]
    observation_std: NDArray[np.float32]
    reward_scale: float

    def observations(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardised observations, of the same shape (N, O)."""
        return ((values - self.observation_mean) / self.observation_std).astype(np.float32)


def observation_statistics(table: EpisodeTable) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and (floored) standard deviation of every observation feature, each (O,), computed in double precision."""
    values = table.observation.astype(np.float64)
    std = np.maximum(values.std(axis=0), STANDARD_DEVIATION_FLOOR)
    return values.mean(axis=0).astype(np.float32), std.astype(np.float32)


def return_range_scale(*tables: EpisodeTable) -> float:
    """1000 / (max - min episode return), IQL's published reward scale for locomotion (2110.06169, appendix).

    It is pooled over `tables` so that every method of one experiment sees the same reward.
    """
    returns = np.concatenate([table.returns for table in tables])
    spread = float(returns.max() - returns.min())
    # One episode, or episodes of equal return, say nothing about the spread: fall back to their size.
    return 1000.0 / max(spread, float(np.abs(returns).max()) * 0.1, 1e-6)


@dataclass(frozen=True)
class Batch:
    """Columns of B transitions, standardised and scaled. `extra` holds what stages added by name, (B,) or (B, Z)."""

    observation_BO: Tensor
    action_BA: Tensor
    next_observation_BO: Tensor
    reward_B: Tensor
    continues_B: Tensor
    """1 - terminated: a truncated step continues, so it bootstraps."""
    extra: dict[str, Tensor]


class Transitions:
    """All transitions of a table in one (N, columns) float32 tensor on `device`."""

    def __init__(
        self,
        table: EpisodeTable,
        preprocessing: Preprocessing,
        columns: dict[str, NDArray[np.float32]] | None = None,
        device: str = "cpu",
    ) -> None:
        observation, action = table.observation_dim, table.action_dim
        columns = columns or {}
        parts = {
            "observation_BO": preprocessing.observations(table.observation),
            "action_BA": table.action,
            "next_observation_BO": preprocessing.observations(table.next_observation),
            "reward_B": (table.reward * np.float32(preprocessing.reward_scale))[:, None],
            "continues_B": (1.0 - table.terminal_rows)[:, None],
            **{name: values.reshape(len(values), -1) for name, values in columns.items()},
        }
        self.rows = torch.from_numpy(np.concatenate(list(parts.values()), axis=1).astype(np.float32)).to(device)
        self.observation_dim, self.action_dim = observation, action
        self._widths = [part.shape[1] for part in parts.values()]
        self._names = list(parts)
        self._vector = {name: values.ndim == 2 for name, values in columns.items()}

    def __len__(self) -> int:
        return self.rows.shape[0]

    def at(self, index: Tensor) -> Batch:
        """The transitions at `index` (B,) int64."""
        return self._batch(self.rows.index_select(0, index))

    def all(self) -> Batch:
        """Every transition, in order."""
        return self._batch(self.rows)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """`batch_size` transitions, uniformly with replacement."""
        return self.at(torch.randint(len(self), (batch_size,), generator=generator, device=self.rows.device))

    def _batch(self, rows: Tensor) -> Batch:
        parts = dict(zip(self._names, torch.split(rows, self._widths, dim=1), strict=True))
        extra = {name: parts.pop(name) if keep else parts.pop(name).squeeze(1) for name, keep in self._vector.items()}
        for name in ("reward_B", "continues_B"):
            parts[name] = parts[name].squeeze(1)
        return Batch(extra=extra, **parts)


def select_rows(batch: Batch, index: Tensor) -> Batch:
    """The rows `index` (b,) int64 of a batch."""
    return Batch(
        **{
            name: getattr(batch, name)[index]
            for name in ("observation_BO", "action_BA", "next_observation_BO", "reward_B", "continues_B")
        },
        extra={name: values[index] for name, values in batch.extra.items()},
    )
