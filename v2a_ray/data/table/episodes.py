"""The episode table: the one form of data in the platform.

On disk it is Parquet with one row per episode (`SCHEMA` notes below), so that sharding never splits an episode.
In memory it is flat NumPy arrays over transitions plus episode offsets, so that sampling is one index operation.

Shape suffixes: N transitions, E episodes, O observation dimension, A action dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from v2a_ray.errors import DataError

Float = NDArray[np.float32]
LABELS = ("source", "domain", "behavior")


def episode_schema(observation_dim: int, action_dim: int) -> pa.Schema:
    """Arrow schema of one row per episode, for `observation_dim` = O and `action_dim` = A.

    `terminated` and `truncated` describe the last step; every earlier step is neither. The three label columns serve
    diagnosis only: no learner reads them.
    """
    observations = pa.list_(pa.list_(pa.float32(), observation_dim))
    return pa.schema(
        [
            ("episode_id", pa.string()),
            ("length", pa.int32()),
            ("observation", observations),
            ("action", pa.list_(pa.list_(pa.float32(), action_dim))),
            ("reward", pa.list_(pa.float32())),
            ("next_observation", observations),
            ("terminated", pa.bool_()),
            ("truncated", pa.bool_()),
            *((label, pa.string()) for label in LABELS),
        ]
    )


@dataclass(frozen=True)
class EpisodeTable:
    """Episodes laid end to end.

    Attributes:
        observation: (N, O) float32, s_t.
        action: (N, A) float32, a_t in [-1, 1].
        reward: (N,) float32, r_t, unscaled.
        next_observation: (N, O) float32, s_{t+1}; differs from the next row's observation at an episode's end.
        offsets: (E + 1,) int64; episode e is the rows offsets[e]:offsets[e + 1].
        terminated: (E,) bool, whether the episode's last step reached a terminal state.
        truncated: (E,) bool, whether the episode was cut (time limit or subsampling). Its last step bootstraps.
        episode_id: E unique names.
        source, domain, behavior: (E,) labels, for diagnosis only.
    """

    observation: Float
    action: Float
    reward: Float
    next_observation: Float
    offsets: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    episode_id: tuple[str, ...]
    source: tuple[str, ...]
    domain: tuple[str, ...]
    behavior: tuple[str, ...]

    @property
    def num_transitions(self) -> int:
        return int(self.offsets[-1])

    @property
    def num_episodes(self) -> int:
        return len(self.offsets) - 1

    @property
    def observation_dim(self) -> int:
        return int(self.observation.shape[1])

    @property
    def action_dim(self) -> int:
        return int(self.action.shape[1])

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """(E,) steps per episode."""
        return np.diff(self.offsets)

    @cached_property
    def episode_of_row(self) -> NDArray[np.int64]:
        """(N,) index of the episode that each transition belongs to."""
        return np.repeat(np.arange(self.num_episodes), self.lengths)

    @cached_property
    def returns(self) -> NDArray[np.float64]:
        """(E,) undiscounted sum of rewards per episode."""
        return np.add.reduceat(self.reward.astype(np.float64), self.offsets[:-1])

    @cached_property
    def terminal_rows(self) -> Float:
        """(N,) 1.0 at the last step of a terminated episode, else 0.0. A truncated step is not terminal."""
        rows = np.zeros(self.num_transitions, dtype=np.float32)
        rows[self.offsets[1:][self.terminated] - 1] = 1.0
        return rows

    @cached_property
    def arrival_recorded(self) -> NDArray[np.bool_]:
        """(N,) whether a step's next observation is the state it arrived in.

        A terminal step that repeats its own observation has no recorded arrival (`data.arrivals`). Its reward and its
        terminal flag are valid, but models of dynamics must not use its next observation.
        """
        ends = self.offsets[1:][self.terminated] - 1
        recorded = np.ones(self.num_transitions, dtype=bool)
        recorded[ends] = (self.next_observation[ends] != self.observation[ends]).any(axis=1)
        return recorded

    def recorded_steps(self) -> EpisodeTable:
        """The table without steps that have no recorded arrival; an episode of only such steps is removed."""
        kept = self.arrival_recorded
        if kept.all():
            return self
        lengths = np.add.reduceat(kept, self.offsets[:-1], dtype=np.int64)
        cut = lengths < self.lengths
        arrays = {name: getattr(self, name)[kept] for name in ("observation", "action", "reward", "next_observation")}
        shorter = self.replace(
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            terminated=self.terminated & ~cut,
            truncated=self.truncated | cut,
            **arrays,
        )
        return shorter.select(np.flatnonzero(lengths))

    def rows(self, episode: int) -> slice:
        """The rows of one episode."""
        return slice(int(self.offsets[episode]), int(self.offsets[episode + 1]))

    def select(self, episodes: Sequence[int] | NDArray[np.int64]) -> EpisodeTable:
        """The table holding `episodes` (indices, in this order)."""
        index = np.asarray(episodes, dtype=np.int64)
        rows = np.concatenate([np.arange(self.offsets[e], self.offsets[e + 1]) for e in index] or [np.arange(0)])
        return EpisodeTable(
            observation=self.observation[rows],
            action=self.action[rows],
            reward=self.reward[rows],
            next_observation=self.next_observation[rows],
            offsets=np.concatenate([[0], np.cumsum(self.lengths[index])]).astype(np.int64),
            terminated=self.terminated[index],
            truncated=self.truncated[index],
            **{name: tuple(getattr(self, name)[e] for e in index) for name in ("episode_id", *LABELS)},
        )

    def head(self, num_transitions: int) -> EpisodeTable:
        """The first `num_transitions` transitions; an episode that this cuts becomes truncated, not terminated."""
        if num_transitions >= self.num_transitions:
            return self
        last = int(np.searchsorted(self.offsets, num_transitions, side="left")) - 1
        kept = self.select(range(last + 1))
        cut = num_transitions < kept.num_transitions
        offsets, terminated, truncated = kept.offsets.copy(), kept.terminated.copy(), kept.truncated.copy()
        offsets[-1] = num_transitions
        if cut:
            terminated[-1], truncated[-1] = False, True
        arrays = {
            name: getattr(kept, name)[:num_transitions]
            for name in ("observation", "action", "reward", "next_observation")
        }
        return kept.replace(offsets=offsets, terminated=terminated, truncated=truncated, **arrays)

    def replace(self, **changes: Any) -> EpisodeTable:
        """A copy with some fields changed."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return EpisodeTable(**(fields | changes))

    def labelled(self, *, source: str, domain: str, behavior: str) -> EpisodeTable:
        """A copy in which every episode carries these labels and an id that starts with `source`."""
        count = self.num_episodes
        return self.replace(
            episode_id=tuple(f"{source}/{index:06d}" for index in range(count)),
            source=(source,) * count,
            domain=(domain,) * count,
            behavior=(behavior,) * count,
        )

    def to_arrow(self) -> pa.Table:
        """One Arrow row per episode (`episode_schema`)."""
        schema = episode_schema(self.observation_dim, self.action_dim)
        offsets = pa.array(self.offsets.astype(np.int32))

        def nested(values: Float, width: int) -> pa.Array:
            flat = pa.array(np.ascontiguousarray(values).reshape(-1))
            return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(flat, width))

        columns: dict[str, pa.Array] = {
            "episode_id": pa.array(self.episode_id, pa.string()),
            "length": pa.array(self.lengths.astype(np.int32)),
            "observation": nested(self.observation, self.observation_dim),
            "action": nested(self.action, self.action_dim),
            "reward": pa.ListArray.from_arrays(offsets, pa.array(self.reward)),
            "next_observation": nested(self.next_observation, self.observation_dim),
            "terminated": pa.array(self.terminated),
            "truncated": pa.array(self.truncated),
            **{label: pa.array(getattr(self, label), pa.string()) for label in LABELS},
        }
        return pa.table(columns).cast(schema)

    @staticmethod
    def from_arrow(table: pa.Table, where: str = "episode table") -> EpisodeTable:
        """Inverse of `to_arrow`. Raises DataError when a column is missing or of another type."""
        missing = [name for name in episode_schema(1, 1).names if name not in table.column_names]
        if missing:
            raise DataError(
                f"column{'s' if len(missing) > 1 else ''} {', '.join(missing)} missing",
                where=where,
                remedy="an episode table has one row per episode; make one with `v2a data convert`",
            )

        def column(name: str) -> Any:
            return table.column(name).combine_chunks()

        def matrix(name: str) -> Float:
            values = column(name).flatten()
            flat = values.flatten().to_numpy(zero_copy_only=False)
            width = values.type.list_size
            return np.asarray(flat, dtype=np.float32).reshape(-1, width)

        lengths = column("length").to_numpy(zero_copy_only=False).astype(np.int64)
        return EpisodeTable(
            observation=matrix("observation"),
            action=matrix("action"),
            reward=np.asarray(column("reward").flatten().to_numpy(zero_copy_only=False), dtype=np.float32),
            next_observation=matrix("next_observation"),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            terminated=column("terminated").to_numpy(zero_copy_only=False).astype(bool),
            truncated=column("truncated").to_numpy(zero_copy_only=False).astype(bool),
            **{name: tuple(column(name).to_pylist()) for name in ("episode_id", *LABELS)},
        )


def concatenate(tables: Sequence[EpisodeTable]) -> EpisodeTable:
    """Concatenate tables of the same dimensions. Raises DataError if a dimension differs or there is no episode."""
    if not tables:
        raise DataError("there is no episode in it", where="mix", remedy="give at least one source with transitions")
    widths = {(table.observation_dim, table.action_dim) for table in tables}
    if len(widths) > 1:
        raise DataError(
            f"tables of different (observation, action) dimensions: {sorted(widths)}",
            where="mix",
            remedy="all sources and the target must come from the same robot and observation layout",
        )
    starts = np.cumsum([0, *(table.num_transitions for table in tables)])
    offsets = [np.asarray([0]), *(table.offsets[1:] + start for table, start in zip(tables, starts, strict=False))]
    arrays = ("observation", "action", "reward", "next_observation", "terminated", "truncated")
    names = ("episode_id", *LABELS)
    columns: dict[str, Any] = {
        **{name: np.concatenate([getattr(table, name) for table in tables]) for name in arrays},
        **{name: tuple(value for table in tables for value in getattr(table, name)) for name in names},
    }
    return EpisodeTable(offsets=np.concatenate(offsets).astype(np.int64), **columns)


def episodes(table: EpisodeTable) -> Iterator[EpisodeTable]:
    """The episodes one by one, each as its own table."""
    for index in range(table.num_episodes):
        yield table.select([index])


def unlabelled(
    *,
    observation: Float,
    action: Float,
    reward: Float,
    next_observation: Float,
    lengths: Sequence[int] | NDArray[np.int64],
    terminated: Sequence[bool] | NDArray[np.bool_],
    episode_id: Sequence[str],
) -> EpisodeTable:
    """A table of episodes of unknown source, domain and behaviour; an episode that is not terminated is truncated."""
    ended = np.asarray(terminated, dtype=bool)
    unknown = ("unknown",) * len(ended)
    return EpisodeTable(
        observation=observation,
        action=action,
        reward=reward,
        next_observation=next_observation,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        terminated=ended,
        truncated=~ended,
        episode_id=tuple(episode_id),
        source=unknown,
        domain=unknown,
        behavior=unknown,
    )
