"""Finds where episodes end in a flat recording of transitions, vectorised over rows.

Shape suffixes: N transitions, O observation dimension, A action dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.table.episodes import EpisodeTable, Float

Bool = NDArray[np.bool_]

# Recorders that keep observations in float64 but next observations in float32 differ by rounding, not by a step.
RELATIVE_TOLERANCE = 1e-5
ABSOLUTE_TOLERANCE = 1e-6
# float16 has 11 significant bits. Two ways of rounding can give neighbouring numbers, so a whole step is allowed.
HALF_PRECISION_STEP = np.float32(2.0**-10)
# Episodes of less than two steps on average without a stated end are randomly drawn rows, not trajectories.
UNORDERED_BREAK_SHARE = 0.5


@dataclass(frozen=True)
class Rows:
    """A flat recording, in file order.

    Attributes:
        observation, next_observation: (N, O) float32.
        action: (N, A) float32.
        reward: (N,) float32.
        terminal: (N,) bool, the step reached a terminal state.
        last: (N,) bool, the step is the last of its episode for any reason.
        number: (N,) int64, row in the file, so that messages can name it after rows were dropped.
    """

    observation: Float
    action: Float
    reward: Float
    next_observation: Float
    terminal: Bool
    last: Bool
    number: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.reward)

    def keep(self, kept: Bool) -> Rows:
        """The rows where `kept`. The row before a dropped row ends its episode, so that no episode spans a gap."""
        followed_by_gap = np.append(~kept[1:], False)
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields["last"] = self.last | followed_by_gap
        return Rows(**{name: values[kept] for name, values in fields.items()})

    def to_table(self, name: str) -> EpisodeTable:
        """A table of episodes named `name/000000`, ...; an episode that ends without a terminal state is truncated."""
        ends = np.flatnonzero(self.last) + 1
        if not len(ends) or ends[-1] != len(self):
            ends = np.append(ends, len(self))
        terminated = self.terminal[ends - 1]
        table = EpisodeTable(
            observation=self.observation,
            action=self.action,
            reward=self.reward,
            next_observation=self.next_observation,
            offsets=np.concatenate([[0], ends]).astype(np.int64),
            terminated=terminated,
            truncated=~terminated,
            episode_id=("",) * len(ends),
            source=("",) * len(ends),
            domain=("",) * len(ends),
            behavior=("",) * len(ends),
        )
        return table.labelled(source=name, domain="unknown", behavior="unknown")


def breaks(observation: Float, next_observation: Float) -> Bool:
    """(N,) bool: the next row does not begin where this row's step arrived. False for the last row.

    NaN is not a break, so that the check for finite values can report its place inside the episode.
    """
    arrived, begins = next_observation[:-1], observation[1:]
    broken = np.append((arrived != begins).any(axis=1), False)
    # Nearly all rows are bit-identical; only the others need the tolerance.
    unequal = np.flatnonzero(broken)
    broken[unequal] = differ(arrived[unequal], begins[unequal])
    return broken


def differ(first: Float, second: Float) -> Bool:
    """(N,) bool: two states (N, O) differ by more than the rounding of the less precise one. NaN never differs.

    The precision of a state is inferred from its digits, row by row, because every reader returns float32.
    """
    is_coarse = _is_half_precision(first) | _is_half_precision(second)
    tolerance = np.where(is_coarse, HALF_PRECISION_STEP, np.float32(RELATIVE_TOLERANCE))
    with np.errstate(invalid="ignore"):
        gap = np.abs(first - second) > ABSOLUTE_TOLERANCE + tolerance[:, None] * np.abs(second)
    return np.asarray(gap.any(axis=1))


def _is_half_precision(values: Float) -> Bool:
    """(N,) bool: all features of a row are float16 numbers: the last 13 bits of their float32 are zero."""
    bits = np.bitwise_or.reduce(np.ascontiguousarray(values, dtype=np.float32).view(np.uint32), axis=1)
    return np.asarray(bits & np.uint32(0x1FFF) == 0)


def is_unordered(table: EpisodeTable) -> bool:
    """Whether most rows are the truncated end of an episode, as in a random subsample of transitions."""
    return too_many_cuts(int(table.truncated.sum()), table.num_transitions)


def too_many_cuts(num_truncated: int, num_transitions: int) -> bool:
    """`is_unordered` from the counts of a table, or of all its pieces."""
    return num_transitions > 1 and num_truncated > UNORDERED_BREAK_SHARE * num_transitions


def shift_by_one(observation: Float, last: Bool, terminal: Bool) -> tuple[Float, Bool]:
    """Next observations of a recording that lacks them: the following row's observation, inside an episode.

    Returns:
        (N, O) next observations and (N,) bool rows to keep. The last row of an episode has no following row: it is kept
        only if it is terminal. Its next observation then repeats its own, because a critic does not use it.
    """
    next_observation = np.concatenate([observation[1:], observation[-1:]])
    ends = last.copy()
    ends[-1] = True
    next_observation[ends] = observation[ends]
    return next_observation, ~ends | terminal
