"""Streaming a table that does not fit in memory through a shuffle buffer.

The memory-mapped file is divided into blocks of consecutive rows. The stream reads all blocks in a random order, pass
after pass without end, in a new order each pass. The buffer holds the last M rows that were read. A batch is drawn
uniformly with replacement from the buffer, and then as many new rows replace the oldest ones. A thread reads ahead.

Differences from drawing from the whole table (`data.sampler.Transitions`):

- Over a pass every transition is still drawn once on average, and the number of draws has the same distribution.
- Draws are not independent over time: a transition can be drawn during the M draws after it was read, and then not
  before the next pass. Batches that are less than M draws apart share transitions.
- A batch is as mixed as the buffer, which holds about M / (rows of a block) random pieces of the table. A part that
  is the fraction p of the table is p of the buffer with a standard deviation of about sqrt(p (1 - p) * rows of a block
  / M), less if the buffer holds much of the table. With 1 GiB that is below 0.01.

The draws depend only on the seed, the generator and the position in the stream, not on the speed of disk or thread.

Shape suffixes: N transitions of the table, M rows of the buffer, B batch, W width of a row.
"""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions
from v2a_ray.data.loading.sampler import (
    Batch,
    BatchMaker,
    Column,
    Columns,
    Preprocessing,
    Transitions,
    TransitionSampler,
)
from v2a_ray.errors import ConfigError

BLOCK_BYTES = 256 * 1024
"""Size of a block: large enough for efficient reads, small enough to mix."""
READ_AHEAD_BLOCKS = 8
MIN_BUFFER_BLOCKS = 16
"""A buffer of fewer blocks does not shuffle."""
OVERHEAD_BYTES = 12 * 2**20
"""Memory of the thread, its allocator and Python, measured at 6 to 8 MiB."""
_INDEX_BYTES = 8
_Piece = tuple[NDArray[np.float32], NDArray[np.int64]]
"""Consecutive rows of the stream, and their indices in the table."""


class StreamedTransitions:
    """Transitions that are streamed through a shuffle buffer; the module describes how batches are drawn."""

    def __init__(
        self,
        file: MemoryMappedTransitions,
        preprocessing: Preprocessing,
        columns: Mapping[str, Column] | None = None,
        *,
        memory_bytes: int,
        seed: int,
    ) -> None:
        """Nothing is read before the first batch.

        Args:
            memory_bytes: for the buffer, the blocks read ahead, and `columns`.
            seed: of the order in which blocks are read.

        Raises:
            ConfigError: the memory is too small for a buffer that shuffles.
        """
        self.observation_dim, self.action_dim, self.device = file.observation_dim, file.action_dim, torch.device("cpu")
        self._file, self._seed, self._memory_bytes = file, seed, memory_bytes
        self._columns = Columns(columns)
        self._make = BatchMaker(file.observation_dim, file.action_dim, preprocessing)
        self._block_rows = max(1, BLOCK_BYTES // file.row_bytes)
        self._eligible_N: NDArray[np.bool_] | None = None
        self._begin = 0
        self._plan()

    def _plan(self) -> None:
        """Sizes of blocks and buffer, which depend on the eligible rows."""
        edges = np.arange(0, self._file.num_transitions, self._block_rows)
        if self._eligible_N is None:
            self._counts = np.diff(edges, append=self._file.num_transitions)
            mask_bytes = 0
        else:
            self._counts = np.add.reduceat(self._eligible_N, edges, dtype=np.int64)
            mask_bytes = self._eligible_N.nbytes
        self._length = int(self._counts.sum())
        # Memory holds blocks that are read ahead, that are being read, and that are being copied into the buffer.
        held = (READ_AHEAD_BLOCKS + 3) * self._block_rows
        per_row = self._file.row_bytes + _INDEX_BYTES
        fixed = self._columns.num_bytes + mask_bytes + OVERHEAD_BYTES
        available = (self._memory_bytes - fixed) // per_row - held
        if available < min(MIN_BUFFER_BLOCKS * self._block_rows, self._length):
            least = fixed + (MIN_BUFFER_BLOCKS * self._block_rows + held) * per_row
            # The limit is this table's share of `loading.memory_gib`, which several tables of a stage have together.
            times = math.ceil(10 * least / self._memory_bytes) / 10
            raise ConfigError(
                f"{self._memory_bytes / 2**20:,.1f} MiB are too little to shuffle {self._length:,} transitions, "
                f"which takes {least / 2**20:,.1f}",
                where=str(self._file.path),
                remedy=f"raise `loading.memory_gib` to {times:,.1f} times its value",
            )
        self.buffer_rows = min(self._length, available)
        self._buffer_MW: Tensor | None = None

    def __len__(self) -> int:
        return self._length

    def restricted(self, eligible: Tensor) -> Self:
        """See `TransitionSampler`."""
        other = copy.copy(self)
        other._eligible_N = np.zeros(self._file.num_transitions, dtype=bool)
        other._eligible_N[eligible.numpy()] = True
        other._plan()
        return other

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """See `TransitionSampler`. Raises DataError when the file cannot be read any more."""
        buffer_MW = self._filled()
        slots_B = torch.randint(self.buffer_rows, (batch_size,), generator=generator)
        rows_BW = buffer_MW.index_select(0, slots_B)
        extra = self._columns.at(self._index_M.index_select(0, slots_B)) if self._columns else {}
        if self.buffer_rows < self._length:
            self._advance(batch_size)
        return self._make(rows_BW, extra)

    def chunks(self, num_rows: int) -> Iterator[Batch]:
        """See `TransitionSampler`."""
        for index in torch.split(torch.arange(self._file.num_transitions), num_rows):
            rows = self._file.read(int(index[0]), int(index[-1]) + 1)
            yield self._make(torch.from_numpy(rows), self._columns.at(index))

    def state_dict(self) -> dict[str, Tensor]:
        """The position in the stream, which together with the seed determines the buffer's content."""
        return {"begin": torch.tensor(self._begin)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from `state_dict`; the next batch reads the buffer's rows again."""
        self._begin = int(state["begin"])
        self._buffer_MW = None

    def _filled(self) -> Tensor:
        """The buffer; its row m holds the one row k of the stream with begin <= k < begin + M and k = m modulo M."""
        if self._buffer_MW is None:
            self._buffer_MW = torch.empty(self.buffer_rows, self._file.row_bytes // 4)
            self._index_M = torch.empty(self.buffer_rows, dtype=torch.int64)
            self._stream = self._pieces(self._begin)
            self._piece: _Piece = (np.empty((0, 0), np.float32), np.empty(0, np.int64))
            self._begin -= self.buffer_rows
            self._advance(self.buffer_rows)
        return self._buffer_MW

    def _advance(self, num_rows: int) -> None:
        """Replace the oldest `num_rows` rows of the buffer by the next rows of the stream."""
        assert self._buffer_MW is not None
        buffer_MW, index_M = self._buffer_MW.numpy(), self._index_M.numpy()
        while num_rows:
            rows, index = self._piece
            if not len(index):
                self._piece = next(self._stream)
                continue
            slot = self._begin % self.buffer_rows
            count = min(num_rows, len(index), self.buffer_rows - slot)
            buffer_MW[slot : slot + count], index_M[slot : slot + count] = rows[:count], index[:count]
            self._piece = rows[count:], index[count:]
            self._begin += count
            num_rows -= count

    def _pieces(self, begin: int) -> Iterator[_Piece]:
        """The endless stream from its row `begin` on; a thread reads ahead while the generator lives."""
        blocks = self._blocks(begin)
        # A `with` would wait for the reader in the thread that garbage-collects this generator. If that thread is just
        # starting, it holds a lock that the reader needs to end. Without `with`, the reader ends by itself.
        reader = ThreadPoolExecutor(1, thread_name_prefix="v2a-read-ahead")
        pending: deque[Future[_Piece]] = deque()
        while True:
            while len(pending) < READ_AHEAD_BLOCKS:
                pending.append(reader.submit(self._read, *next(blocks)))
            yield pending.popleft().result()

    def _blocks(self, begin: int) -> Iterator[tuple[int, int]]:
        """(block, number of its first rows to skip) from row `begin` of the stream on."""
        epoch, skip = divmod(begin, self._length)
        while True:
            for block in np.random.default_rng([self._seed, epoch]).permutation(len(self._counts)).tolist():
                if skip < self._counts[block]:
                    yield block, skip
                    skip = 0
                else:
                    skip -= int(self._counts[block])
            epoch += 1

    def _read(self, block: int, skip: int) -> _Piece:
        first = block * self._block_rows
        rows = self._file.read(first, first + self._block_rows)
        index = np.arange(first, first + len(rows))
        if self._eligible_N is not None:
            chosen = self._eligible_N[first : first + len(rows)]
            rows, index = rows[chosen], index[chosen]
        return rows[skip:], index[skip:]


def open_transitions(
    file: MemoryMappedTransitions,
    preprocessing: Preprocessing,
    columns: Mapping[str, Column] | None = None,
    *,
    memory_bytes: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> TransitionSampler:
    """Memory-mapped transitions as a sampler: all rows on `device` if they fit in `memory_bytes`, else streamed on the
    CPU."""
    if is_streamed(file, memory_bytes):
        return StreamedTransitions(file, preprocessing, columns, memory_bytes=memory_bytes, seed=seed)
    return Transitions(file, preprocessing, columns, device)


def is_streamed(file: MemoryMappedTransitions, memory_bytes: int) -> bool:
    """Whether `open_transitions` streams the file."""
    return file.num_bytes > memory_bytes
