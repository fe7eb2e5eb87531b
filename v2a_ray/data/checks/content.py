"""Checks of the values of one table that need no simulation.

The readers check shapes and types, because they know the names used in the file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.catalogue import found
from v2a_ray.data.checks.findings import Finding, place
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.segmentation import breaks, is_unordered
from v2a_ray.robot_interface import RobotInterface

ACTION_TOLERANCE = 1e-6
LEAST_STEPS = 50
"""Of which an ordinary step is known."""
CONTINUED_QUANTILE = 0.99
"""Of the lengths of ordinary steps: a shorter way from a terminal step to the next row is no reset."""
Locate = Callable[[int, str], str]
"""Row of the table and field to the place that a message names."""


def check_dimensions(table: EpisodeTable, where: str, robot: RobotInterface) -> list[Finding]:
    """Widths must be the robot's; the remedy names the robot that they fit."""
    expected = {"observation": robot.observation_dim, "action": robot.action_dim}
    remedy = robot.remedy_for(table.observation_dim, table.action_dim)
    return [
        found(
            "dimensions",
            f"has {actual} features, {robot.name} has {expected[field]}",
            place(where, field=field),
            remedy,
        )
        for field, actual in (("observation", table.observation_dim), ("action", table.action_dim))
        if actual != expected[field]
    ]


def check_finite(table: EpisodeTable, locate: Locate) -> list[Finding]:
    """No field may hold NaN or infinity."""
    findings = []
    for field in ("observation", "action", "reward", "next_observation"):
        values = getattr(table, field).reshape(table.num_transitions, -1)
        bad = ~np.isfinite(values)
        if bad.any():
            row, column = np.unravel_index(int(bad.argmax()), bad.shape)
            message = f"value {values[row, column]} in column {column} ({int(bad.sum())} not finite in all)"
            findings.append(found("finite", message, locate(int(row), field)))
    return findings


def check_action_bounds(table: EpisodeTable, locate: Locate) -> list[Finding]:
    """Actions must be in [-1, 1]."""
    outside = np.abs(table.action) > 1.0 + ACTION_TOLERANCE
    if not outside.any():
        return []
    row, column = np.unravel_index(int(outside.argmax()), outside.shape)
    message = (
        f"value {table.action[row, column]:.6g} in column {column} is outside [-1, 1] "
        f"({int(outside.sum())} such values in all)"
    )
    return [found("action_bounds", message, locate(int(row), "action"))]


def check_alignment(table: EpisodeTable, locate: Locate) -> list[Finding]:
    """`next_observation[t] == observation[t + 1]` must hold inside every episode."""
    broken = breaks(table.observation, table.next_observation)
    broken[table.offsets[1:] - 1] = False
    if not broken.any():
        return []
    row = int(broken.argmax())
    column = int(np.abs(table.next_observation[row] - table.observation[row + 1]).argmax())
    message = (
        f"value {table.next_observation[row, column]:.6g} in column {column} is not the next step's observation "
        f"{table.observation[row + 1, column]:.6g} ({int(broken.sum())} such steps in all)"
    )
    return [found("alignment", message, locate(row, "next_observation"))]


def check_lengths(table: EpisodeTable, locate: Locate, robot: RobotInterface) -> list[Finding]:
    """No episode may be longer than the robot's time limit."""
    long = np.flatnonzero(table.lengths > robot.max_episode_steps)
    if not len(long):
        return []
    first = int(long[0])
    message = (
        f"the episode has {table.lengths[first]:,} steps, {robot.name}'s time limit is {robot.max_episode_steps:,} "
        f"({len(long)} such episodes in all)"
    )
    row = int(table.offsets[first]) + robot.max_episode_steps
    return [found("episode_too_long", message, locate(row, "truncated"), "right only if it was recorded without limit")]


def check_unwritten(table: EpisodeTable, locate: Locate) -> list[Finding]:
    """No row may be all zeros: such a row was never written, or pads an episode."""
    zero = ~(table.observation.any(axis=1) | table.action.any(axis=1) | (table.reward != 0))
    if not zero.any():
        return []
    first = int(zero.argmax())
    count = len(zero) - first if zero[first:].all() else int((~zero[first:]).argmax())
    message = (
        f"this step and the {count - 1} after it are zero in every field ({int(zero.sum())} such steps in all): "
        "never written, or padding"
    )
    return [found("unwritten", message, locate(first, "observation"))]


def check_repeated(table: EpisodeTable, where: str) -> list[Finding]:
    """No transition may occur twice."""
    hashes = row_hashes(table)
    repeated = len(hashes) - num_distinct(hashes)
    if not repeated:
        return []
    return [found("repeated", f"{repeated} of {len(hashes)} transitions are copies of others in it", place(where))]


def check_order(table: EpisodeTable, where: str) -> list[Finding]:
    """The table must hold episodes, not single transitions."""
    if not is_unordered(table):
        return []
    message = f"{table.num_episodes} episodes in {table.num_transitions} rows: transitions are not in order of time"
    return [found("unordered", message, place(where))]


def check_terminals_continue(table: EpisodeTable, locate: Locate) -> list[Finding]:
    """A recording may not go on after a terminal step, as D4RL's of AntMaze do while the ant is at its goal.

    Read row by row these are episodes of one terminal step that begin where a terminal episode ended. A reset leads
    farther away than the steps of a recording, so that a robot which falls at once after its reset is not meant.
    """
    starts = table.offsets[1:-1]
    again = table.terminal_rows[starts] * table.terminal_rows[starts - 1] * (table.lengths[1:] == 1) > 0
    inside = np.ones(table.num_transitions, dtype=bool)
    inside[table.offsets[1:] - 1] = False
    if not again.any() or inside.sum() < LEAST_STEPS:
        return []
    steps = np.linalg.norm(table.next_observation[inside] - table.observation[inside], axis=1)
    gaps = np.linalg.norm(table.observation[starts] - table.observation[starts - 1], axis=1)
    again &= gaps <= np.quantile(steps, CONTINUED_QUANTILE)
    if not again.any():
        return []
    message = f"the recording goes on after a terminal step ({int(again.sum())} terminal steps that follow one in all)"
    return [found("terminal_continues", message, locate(int(starts[again.argmax()]), "terminated"))]


def row_hashes(table: EpisodeTable) -> NDArray[np.uint64]:
    """(N,) 64-bit hashes of (observation, action, next observation)."""
    fields = (table.observation, table.action, table.next_observation)
    columns = [column for field in fields for column in np.ascontiguousarray(field).view(np.uint32).T]
    # Multiply-shift hashing by fixed random odd numbers; unsigned overflow is intended.
    weights = np.random.default_rng(0).integers(1, 2**63, len(columns), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.zeros(table.num_transitions, dtype=np.uint64)
    for column, weight in zip(columns, weights, strict=True):
        hashes += (column.astype(np.uint64) + np.uint64(1)) * weight
    return hashes


def num_distinct(hashes: NDArray[np.uint64]) -> int:
    """Number of distinct values. Sorting is many times faster than NumPy's hash table."""
    ordered = np.sort(hashes)
    return int((ordered[1:] != ordered[:-1]).sum()) + min(len(ordered), 1)
