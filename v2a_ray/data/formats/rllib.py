"""RLlib's recorded episodes: Parquet with one column `item`, each a `SingleAgentEpisode`'s state in msgpack.

RLlib 2.60 writes this with `output_write_episodes=True` and reads it with `input_read_episodes=True`. An episode that
RLlib recorded in chunks (one `id_`, rising `t_started`) is put together again. `custom_data` holds our labels.

Shape suffixes: T steps of an episode, O observation dimension, A action dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from v2a_ray.data.checks import check_table
from v2a_ray.data.checks.findings import Finding, Reading, place
from v2a_ray.data.formats.folders import parquet_dataset
from v2a_ray.data.formats.location import Location
from v2a_ray.data.formats.numpy_msgpack import PickledArrayError, pack, unpack
from v2a_ray.data.formats.parquet_files import read_columns, schema_names, write_folder
from v2a_ray.data.table.episodes import LABELS, EpisodeTable, Float, concatenate, unlabelled
from v2a_ray.errors import DataError, told
from v2a_ray.robot_interface import RobotInterface

COLUMN = "item"
RECORD = "record it with RLlib's output_write_episodes=True"
ROW_GROUP_EPISODES = 64


@dataclass(frozen=True)
class _Chunk:
    """A part of an episode that RLlib recorded as one item."""

    where: str
    episode_id: str
    begin: int
    observation: Float  # (T + 1, O)
    action: Float  # (T, A)
    reward: Float  # (T,)
    terminated: bool
    truncated: bool
    labels: dict[str, str]


def holds(location: Location) -> bool:
    """Whether a Parquet file has RLlib's column of episodes."""
    return COLUMN in schema_names(location)


def read(location: Location, robot: RobotInterface | None) -> Reading:
    """Read all episodes and check. Raises DataError unless observations are vectors and actions are continuous."""
    where = str(location)
    chunks = [chunk for file in parquet_dataset(location) for chunk in _chunks(file)]
    if not chunks:
        raise DataError("holds zero rows", where=where, remedy="record at least one episode")
    _check_widths(chunks)
    by_id: dict[str, list[_Chunk]] = {}
    for chunk in chunks:
        by_id.setdefault(chunk.episode_id, []).append(chunk)
    episodes, unfinished = [], 0
    for pieces in by_id.values():
        for run in _runs(pieces):
            unfinished += not (run[-1].terminated or run[-1].truncated)
            episodes.append(_joined(run))
    findings = []
    if unfinished:
        message = f"{unfinished} episodes were still running when the recording stopped; they end as truncated"
        findings.append(Finding("episode_unfinished", "info", message, where))
    table = concatenate(episodes)
    return Reading(table, findings + check_table(table, where=where, robot=robot))


def write(table: EpisodeTable, path: Path) -> None:
    """Write a folder that RLlib reads with `input_read_episodes=True`. Raises StorageError."""

    def groups() -> Iterator[pa.Table]:
        for begin in range(0, table.num_episodes, ROW_GROUP_EPISODES):
            chosen = range(begin, min(begin + ROW_GROUP_EPISODES, table.num_episodes))
            yield pa.table({COLUMN: pa.array([pack(_state(table, episode)) for episode in chosen], pa.binary())})

    write_folder(path, groups())


def _chunks(file: Location) -> Iterator[_Chunk]:
    column = read_columns(file, [COLUMN]).column(COLUMN)
    if not (pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type)):
        raise DataError(f"holds {column.type}, not bytes", where=place(file, field=COLUMN), remedy=RECORD)
    for row, packed in enumerate(column):
        where = place(file, row=row)
        try:
            state = unpack(packed.as_py() or b"")
        except PickledArrayError as error:
            raise DataError(
                f"holds {error}; nothing is unpickled", where=where, remedy="record infos and outputs as numbers"
            ) from error
        except ValueError as error:
            raise DataError(f"not readable: {error}", where=where, remedy=RECORD) from error
        chunk = _chunk(state, where)
        if len(chunk.reward):
            yield chunk


def _chunk(state: Any, where: str) -> _Chunk:
    """The chunk in an episode's state. Raises DataError if it does not hold vectors."""
    try:
        observation = _buffer(state["observations"], 2)
        action, reward = _buffer(state["actions"], 2), _buffer(state["rewards"], 1)
        labels = state.get("custom_data") or {}
        chunk = _Chunk(
            where=where,
            episode_id=str(state["id_"]),
            begin=int(state["t_started"]),
            observation=observation,
            action=action,
            reward=reward,
            terminated=bool(state["is_terminated"]),
            truncated=bool(state["is_truncated"]),
            labels={label: str(labels[label]) for label in LABELS if label in labels},
        )
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise DataError(f"is no episode of vectors: {told(error)}", where=where, remedy=RECORD) from error
    if not len(observation) == len(action) + 1 == len(reward) + 1:
        raise DataError(
            f"has {len(observation)} observations, {len(action)} actions and {len(reward)} rewards",
            where=where,
            remedy="an episode of T steps has T + 1 observations",
        )
    return chunk


def _buffer(state: dict[str, Any], rank: int) -> Float:
    """The values of one of RLlib's lookback buffers, without the lookback, which the previous chunk holds too."""
    values = np.asarray(state["data"], dtype=np.float32)[int(state["lookback"]) :]
    if values.ndim != rank:
        # An episode without steps has empty lists for actions.
        if not values.size:
            return np.zeros((0,) * rank, dtype=np.float32)
        raise ValueError(f"rank {values.ndim} where {rank} is expected")
    return values


def _check_widths(chunks: list[_Chunk]) -> None:
    first = (chunks[0].observation.shape[1], chunks[0].action.shape[1])
    for chunk in chunks:
        width = (chunk.observation.shape[1], chunk.action.shape[1])
        if width != first:
            raise DataError(
                f"has (observation, action) dimensions {width} where the first episode has {first}",
                where=chunk.where,
                remedy="one dataset holds the data of one robot",
            )


def _runs(pieces: list[_Chunk]) -> Iterator[list[_Chunk]]:
    """Chunks of one id, in runs in which each chunk begins where the previous one ended."""
    run: list[_Chunk] = []
    for piece in sorted(pieces, key=lambda piece: piece.begin):
        if run and (piece.begin != run[-1].begin + len(run[-1].reward) or run[-1].terminated or run[-1].truncated):
            yield run
            run = []
        run.append(piece)
    yield run


def _joined(run: list[_Chunk]) -> EpisodeTable:
    first, last = run[0], run[-1]
    reward = np.concatenate([chunk.reward for chunk in run])
    return unlabelled(
        observation=np.concatenate([chunk.observation[:-1] for chunk in run]),
        action=np.concatenate([chunk.action for chunk in run]),
        reward=reward,
        next_observation=np.concatenate([chunk.observation[1:] for chunk in run]),
        lengths=[len(reward)],
        terminated=[last.terminated],
        episode_id=[first.episode_id if first.begin == 0 else f"{first.episode_id}@{first.begin}"],
    ).replace(**{label: (value,) for label, value in first.labels.items()})


def _state(table: EpisodeTable, episode: int) -> dict[str, Any]:
    """The argument of `SingleAgentEpisode.from_state`: arrays instead of lists, and no lookback."""
    rows, steps = table.rows(episode), int(table.lengths[episode])

    def buffer(data: Any, finalized: bool = True) -> dict[str, Any]:
        return {"data": data, "lookback": 0, "finalized": finalized, "space": None}

    return {
        "id_": table.episode_id[episode],
        "agent_id": None,
        "module_id": None,
        "multi_agent_episode_id": None,
        "observations": buffer(np.concatenate([table.observation[rows], table.next_observation[rows][-1:]])),
        "actions": buffer(table.action[rows]),
        "rewards": buffer(table.reward[rows]),
        "infos": buffer([{}] * (steps + 1), finalized=False),
        "extra_model_outputs": None,
        "is_terminated": bool(table.terminated[episode]),
        "is_truncated": bool(table.truncated[episode]),
        "t_started": 0,
        "t": steps,
        "_observation_space": None,
        "_action_space": None,
        "_start_time": None,
        "_last_step_time": None,
        "custom_data": {label: getattr(table, label)[episode] for label in LABELS},
    }
