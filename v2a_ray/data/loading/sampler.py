"""Transitions as tensors, ready to be sampled.

All fields of a transition lie side by side in one row, so drawing a batch is one gather, and the fields of the batch
are views into it.

Shape suffixes: N transitions, B batch, O observation dimension, A action dimension, Z latent dimension.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions, raw_rows
from v2a_ray.data.table.episodes import EpisodeTable

STANDARD_DEVIATION_FLOOR = 1e-3


@dataclass(frozen=True)
class Preprocessing:
    """Transformation of observations and rewards before any network sees them; stored with every model.

    Attributes:
        observation_mean: (O,) float32, subtracted.
        observation_std: (O,) float32, divided by; at least `STANDARD_DEVIATION_FLOOR`.
        reward_scale: factor on every reward.
    """

    observation_mean: NDArray[np.float32]
    observation_std: NDArray[np.float32]
    reward_scale: float


def make_preprocessing(
    target: Mapping[str, Any], source: Mapping[str, Any], *, standardize: bool, reward_scale: float | None
) -> Preprocessing:
    """Preprocessing from the manifests of the target and the source, without reading either table.

    Args:
        standardize: by the target's mean and standard deviation (floored); otherwise observations are unchanged.
        reward_scale: a number, or None for `return_range_scale` of both tables.
    """
    mean = np.asarray(target["observation_mean"], dtype=np.float32)
    std = np.maximum(target["observation_std"], STANDARD_DEVIATION_FLOOR).astype(np.float32)
    if not standardize:
        mean, std = np.zeros_like(mean), np.ones_like(std)
    return Preprocessing(mean, std, return_range_scale(source, target) if reward_scale is None else reward_scale)


def return_range_scale(*manifests: Mapping[str, Any]) -> float:
    """1000 / (max - min episode return), IQL's published reward scale for locomotion (2110.06169, appendix).

    The range is pooled over the tables of `manifests`, so that every method of an experiment sees the same reward.
    """
    lowest = min(float(manifest["return"]["min"]) for manifest in manifests)
    highest = max(float(manifest["return"]["max"]) for manifest in manifests)
    # One episode, or episodes of equal return, have no spread: fall back to the size of the return.
    return 1000.0 / max(highest - lowest, max(abs(lowest), abs(highest)) * 0.1, 1e-6)


@dataclass(frozen=True)
class Batch:
    """Columns of B transitions, standardised and scaled. `extra` holds columns that stages added, (B,) or (B, Z)."""

    observation_BO: Tensor
    action_BA: Tensor
    next_observation_BO: Tensor
    reward_B: Tensor
    not_done_B: Tensor
    """1 - terminated: a truncated step continues, so it bootstraps."""
    extra: dict[str, Tensor]

    @property
    def arrival_recorded(self) -> Tensor:
        """(B,) bool; see `EpisodeTable.arrival_recorded`."""
        moved_B = (self.next_observation_BO != self.observation_BO).any(dim=-1)
        return moved_B | (self.not_done_B > 0)


class BatchMaker:
    """Turns recorded rows (`memory_mapped`) into batches: standardised, scaled, split into columns.

    A batch is a few hundred rows, so this takes microseconds, and one table's rows serve any preprocessing.
    """

    def __init__(
        self, observation_dim: int, action_dim: int, preprocessing: Preprocessing, device: torch.device | str = "cpu"
    ) -> None:
        mean, std = preprocessing.observation_mean, preprocessing.observation_std
        action, rest = np.zeros(action_dim, np.float32), np.zeros(2, np.float32)
        self._widths = [observation_dim, action_dim, observation_dim, 1, 1]
        self._shift_W = torch.from_numpy(np.concatenate([mean, action, mean, rest])).to(device)
        self._divisor_W = torch.from_numpy(np.concatenate([std, action + 1, std, rest + 1])).to(device)
        self._factor_W = torch.ones(len(self._shift_W), device=device)
        self._factor_W[-2] = preprocessing.reward_scale

    def __call__(self, rows_BW: Tensor, extra: dict[str, Tensor]) -> Batch:
        """A batch made of `rows_BW`, which is overwritten. Columns without preprocessing keep every bit."""
        rows_BW.sub_(self._shift_W).div_(self._divisor_W).mul_(self._factor_W)
        observation, action, next_observation, reward, not_done = torch.split(rows_BW, self._widths, dim=1)
        return Batch(observation, action, next_observation, reward.squeeze(1), not_done.squeeze(1), extra)


@dataclass(frozen=True)
class EpisodeValues:
    """A column with one value per episode, looked up by transition, because a copy for every step would be large.

    Attributes:
        values_EZ: (E, Z) float32.
        offsets: (E + 1,) int64; episode e is the transitions offsets[e]:offsets[e + 1].
    """

    values_EZ: NDArray[np.float32]
    offsets: NDArray[np.int64]


Column = NDArray[np.float32] | EpisodeValues


class Columns:
    """Columns that stages added to a table, by name: (N,) or (N, Z) float32, or `EpisodeValues`."""

    def __init__(self, columns: Mapping[str, Column] | None = None, device: torch.device | str = "cpu") -> None:
        self._values: dict[str, Tensor] = {}
        self._ends: dict[str, Tensor] = {}
        for name, column in (columns or {}).items():
            values = column.values_EZ if isinstance(column, EpisodeValues) else column
            # Copied, because Arrow's memory is read-only and torch's is not. A column is small compared with the rows.
            self._values[name] = torch.tensor(values, device=device)
            if isinstance(column, EpisodeValues):
                self._ends[name] = torch.from_numpy(column.offsets[1:].copy()).to(device)

    def at(self, index_B: Tensor) -> dict[str, Tensor]:
        """The values of the transitions `index_B`, each (B,) or (B, Z)."""
        return {
            name: values.index_select(0, torch.searchsorted(self._ends[name], index_B, right=True))
            if name in self._ends
            else values.index_select(0, index_B)
            for name, values in self._values.items()
        }

    def __bool__(self) -> bool:
        return bool(self._values)

    @property
    def num_bytes(self) -> int:
        """Memory that the values take."""
        return sum(values.nbytes for values in [*self._values.values(), *self._ends.values()])


class TransitionSampler(Protocol):
    """Where batches come from: a table in memory (`Transitions`) or one that is streamed (`StreamedTransitions`)."""

    observation_dim: int
    action_dim: int
    device: torch.device

    def __len__(self) -> int:
        """Transitions that may be drawn."""
        ...

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """`batch_size` transitions at random, with replacement."""
        ...

    def chunks(self, num_rows: int) -> Iterator[Batch]:
        """Every transition of the table in order, up to `num_rows` at a time."""
        ...

    def restricted(self, eligible: Tensor) -> Self:
        """The same table, but `sample` draws only the rows `eligible` (n,) int64, given in ascending order."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """The state that a checkpoint needs, beside the generator, to continue with the same batches."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state_dict`."""
        ...


class Transitions:
    """All transitions of a table in memory, on `device`; `sample` draws uniformly, with replacement.

    `MemoryMappedTransitions` are mapped: all processes of a node share one copy. An `EpisodeTable` is copied.
    """

    def __init__(
        self,
        table: EpisodeTable | MemoryMappedTransitions,
        preprocessing: Preprocessing,
        columns: Mapping[str, Column] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.observation_dim, self.action_dim, self.device = (
            table.observation_dim,
            table.action_dim,
            torch.device(device),
        )
        rows = table.map() if isinstance(table, MemoryMappedTransitions) else torch.from_numpy(raw_rows(table))
        self._rows_NW = rows.to(device)
        self._columns = Columns(columns, device)
        self._make = BatchMaker(table.observation_dim, table.action_dim, preprocessing, device)
        self._eligible: Tensor | None = None

    def __len__(self) -> int:
        return len(self._rows_NW if self._eligible is None else self._eligible)

    def at(self, index_B: Tensor) -> Batch:
        """The transitions at `index_B` (B,) int64 of the table."""
        return self._make(self._rows_NW.index_select(0, index_B), self._columns.at(index_B))

    def all(self) -> Batch:
        """Every transition, in order."""
        return next(self.chunks(len(self._rows_NW)))

    def chunks(self, num_rows: int) -> Iterator[Batch]:
        """See `TransitionSampler`."""
        for index in torch.split(torch.arange(len(self._rows_NW), device=self.device), num_rows):
            yield self.at(index)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """See `TransitionSampler`."""
        index = torch.randint(len(self), (batch_size,), generator=generator, device=self.device)
        return self.at(index if self._eligible is None else self._eligible[index])

    def restricted(self, eligible: Tensor) -> Self:
        """See `TransitionSampler`."""
        other = copy.copy(self)
        other._eligible = eligible.to(self.device)
        return other

    def state_dict(self) -> dict[str, Tensor]:
        """Empty, because batches depend on the generator alone."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing to restore."""


Sampler = TypeVar("Sampler", bound=TransitionSampler)


def of_recorded_arrivals(sampler: Sampler, table: EpisodeTable | MemoryMappedTransitions) -> Sampler:
    """The `sampler` of `table`, restricted to steps whose next state was recorded, for learning dynamics.

    `chunks` still yields every step.
    """
    recorded = table.arrival_recorded
    return sampler if recorded.all() else sampler.restricted(torch.from_numpy(np.flatnonzero(recorded)))


def join_rows(*batches: Batch) -> Batch:
    """Concatenate batches, without the columns that stages added."""
    names = ("observation_BO", "action_BA", "next_observation_BO", "reward_B", "not_done_B")
    return Batch(**{name: torch.cat([getattr(batch, name) for batch in batches]) for name in names}, extra={})


def select_rows(batch: Batch, index: Tensor) -> Batch:
    """The rows `index` (b,) int64 of a batch."""
    return Batch(
        **{
            name: getattr(batch, name)[index]
            for name in ("observation_BO", "action_BA", "next_observation_BO", "reward_B", "not_done_B")
        },
        extra={name: values[index] for name, values in batch.extra.items()},
    )
