"""Rows whose next observation is not the state that the step arrived in, and their treatment.

Recorders with automatic reset write the next episode's first observation there; others repeat the row's own
observation; a recording without time limits joins two episodes by a step that never happened. The state, action, reward
and terminal flag of such a row are still valid:

- a terminal row is kept, because only it records that the robot fell, and a critic does not use its next observation.
  The next observation is set to the row's own observation, which means "not recorded"
  (`EpisodeTable.arrival_recorded`);
- any other row is dropped, because there is no state to bootstrap from, and the step before it ends its episode.

Shape suffixes: N transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.catalogue import found
from v2a_ray.data.checks.findings import Finding, place
from v2a_ray.data.checks.reset_rows import ResetDetector
from v2a_ray.data.config import CheckName
from v2a_ray.data.table.segmentation import Rows, differ

MAX_ROWS_NAMED = 20
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class BadArrivals:
    """Rows of a recording, by their numbers in the file, whose next observation is not where the step arrived.

    Attributes:
        resets: not terminal, hold another episode's reset: dropped.
        terminal_resets: terminal, hold another episode's reset: kept without a next observation.
        repeated: not terminal, the last of their episode, repeat their own observation: dropped.
        joins: at the robot's time limit inside an episode that continues after it: dropped.
    """

    resets: Numbers
    terminal_resets: Numbers
    repeated: Numbers
    joins: Numbers

    @staticmethod
    def merge(parts: Sequence[BadArrivals]) -> BadArrivals:
        """The bad rows of a whole file from its slices, in file order."""
        fields = BadArrivals.__dataclass_fields__
        return BadArrivals(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields})

    def findings(self, where: str) -> list[Finding]:
        """One warning for each kind that occurs; `where` is the file."""
        kinds: tuple[tuple[CheckName, Numbers, str], ...] = (
            ("reset_as_next", self.resets, "hold another episode's reset as their next observation"),
            ("terminal_reset_as_next", self.terminal_resets, "are terminal and hold another episode's reset"),
            ("next_observation_repeated", self.repeated, "repeat their own observation as their next observation"),
            ("episode_too_long", self.joins, "are at the robot's time limit, yet their episode goes on"),
        )
        place_of_all = place(where, field="next_observation")
        return [
            found(check, f"{len(rows)} rows {what}: row {_named(rows)}", place_of_all)
            for check, rows, what in kinds
            if len(rows)
        ]


def mend(rows: Rows, detector: ResetDetector | None, max_episode_steps: int | None) -> tuple[Rows, BadArrivals]:
    """Repair a recording: mark terminal rows without a recorded arrival, drop the others, and return the bad rows.

    Args:
        rows: a recording, or a slice that begins and ends with an episode.
        detector: knows the whole recording; None if rows are not in order of time.
        max_episode_steps: the robot's time limit; None if the robot is unknown.
    """
    is_reset = np.zeros(len(rows), dtype=bool)
    if detector is not None:
        is_reset[detector.find(rows)] = True
    is_reset |= _arrives_where_the_next_row_begins(rows)
    stands = (rows.next_observation == rows.observation).all(axis=1)
    ends = rows.last | np.append(np.zeros(max(0, len(rows) - 1), dtype=bool), True)[: len(rows)]
    repeated = stands & ends & ~rows.terminal
    if (stands & ~ends).any():
        repeated[:] = False  # this robot really stands still at times
    numbers = rows.number
    resets, terminal_resets = is_reset & ~rows.terminal, is_reset & rows.terminal
    repeated &= ~resets
    mended = rows
    if terminal_resets.any():
        following = np.where(terminal_resets[:, None], rows.observation, rows.next_observation)
        mended = replace(mended, next_observation=following)
    dropped = resets | repeated
    mended = mended.keep(~dropped) if dropped.any() else mended
    joins = _joins(mended, max_episode_steps)
    bad = BadArrivals(numbers[resets], numbers[terminal_resets], numbers[repeated], mended.number[joins])
    return (mended.keep(~joins) if joins.any() else mended), bad


def _arrives_where_the_next_row_begins(rows: Rows) -> NDArray[np.bool_]:
    """(N,) bool: terminal rows whose next observation equals, to its precision, the following row's observation.

    An episode does not continue from a terminal state, so that observation is the reset of the next episode.
    """
    same = np.zeros(len(rows), dtype=bool)
    candidates = np.flatnonzero(rows.terminal[:-1])
    arrives, begins = rows.next_observation[candidates], rows.observation[candidates + 1]
    stands = (arrives == rows.observation[candidates]).all(axis=1)
    same[candidates] = ~differ(arrives, begins) & ~stands
    return same


def _joins(rows: Rows, max_episode_steps: int | None) -> NDArray[np.bool_]:
    """(N,) bool: the steps at a multiple of the time limit after which their episode continues."""
    joins = np.zeros(len(rows), dtype=bool)
    if max_episode_steps is None or not len(rows):
        return joins
    starts = np.flatnonzero(np.append(True, rows.last[:-1]))
    step = np.arange(len(rows)) - np.repeat(starts, np.diff(np.append(starts, len(rows))))
    at_limit = (step + 1) % max_episode_steps == 0
    joins[:] = at_limit & ~rows.last
    joins[-1] = False
    return joins


def _named(numbers: Numbers) -> str:
    named = ", ".join(str(number) for number in numbers[:MAX_ROWS_NAMED])
    more = len(numbers) - MAX_ROWS_NAMED
    return named + (f" and {more} more" if more > 0 else "")
