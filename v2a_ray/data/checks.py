"""Checks of a table's content. Each finding names the file, episode, step, field and value, and what to do.

Shapes and types are the readers' to check, because they know what the file called things; this is about values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.findings import Finding, RobotLike, place
from v2a_ray.data.segmentation import breaks, is_unordered
from v2a_ray.data.table import EpisodeTable

ACTION_TOLERANCE = 1e-6
Locate = Callable[[int, str], str]


def check_table(
    table: EpisodeTable,
    *,
    where: str,
    robot: RobotLike | None = None,
    row_number: NDArray[np.int64] | None = None,
    name_episodes: bool = False,
) -> list[Finding]:
    """All checks of one table.

    Args:
        where: the file or folder, for messages.
        robot: what the sizes must fit, or None to accept any.
        row_number: (N,) row of each transition in the file, named in messages if given.
        name_episodes: name episodes by id, not number; for a table that is a piece of what `where` names.
    """

    def locate(row: int, field: str) -> str:
        episode = int(np.searchsorted(table.offsets, row, side="right")) - 1
        number = None if row_number is None else int(row_number[row])
        name = table.episode_id[episode] if name_episodes else episode
        return place(where, row=number, episode=name, step=row - int(table.offsets[episode]), field=field)

    return [
        *_dimensions(table, where, robot),
        *_finite(table, locate),
        *_action_bounds(table, locate),
        *_alignment(table, locate),
        *_repeated_rows(table, where),
        *_order(table, where),
    ]


def find_duplicates(tables: Mapping[str, EpisodeTable]) -> list[Finding]:
    """Warn about every pair of tables of which one holds most of the other's transitions, whatever their names."""
    hashes = {name: np.unique(_row_hashes(table)) for name, table in tables.items()}
    findings = []
    for (first, first_rows), (second, second_rows) in combinations(hashes.items(), 2):
        common = len(np.intersect1d(first_rows, second_rows, assume_unique=True))
        smaller = min(len(first_rows), len(second_rows))
        if common > 0.5 * smaller:
            findings.append(
                Finding(
                    "duplicate",
                    "warning",
                    f"{common} of {smaller} distinct transitions are also in {second}",
                    place(first),
                    "leave one of the two out of the mix",
                )
            )
    return findings


def _dimensions(table: EpisodeTable, where: str, robot: RobotLike | None) -> list[Finding]:
    if robot is None:
        return []
    expected = {"observation": robot.observation_dim, "action": robot.action_dim}
    return [
        Finding(
            "dimensions",
            "error",
            f"has {actual} features, {robot.name} has {expected[field]}",
            place(where, field=field),
            robot.remedy_for(table.observation_dim, table.action_dim),
        )
        for field, actual in (("observation", table.observation_dim), ("action", table.action_dim))
        if actual != expected[field]
    ]


def _finite(table: EpisodeTable, locate: Locate) -> list[Finding]:
    findings = []
    for field in ("observation", "action", "reward", "next_observation"):
        values = getattr(table, field).reshape(table.num_transitions, -1)
        bad = ~np.isfinite(values)
        if bad.any():
            row, column = np.unravel_index(int(bad.argmax()), bad.shape)
            findings.append(
                Finding(
                    "finite",
                    "error",
                    f"value {values[row, column]} in column {column} ({int(bad.sum())} not finite in all)",
                    locate(int(row), field),
                    "remove these rows, or record them again",
                )
            )
    return findings


def _action_bounds(table: EpisodeTable, locate: Locate) -> list[Finding]:
    outside = np.abs(table.action) > 1.0 + ACTION_TOLERANCE
    if not outside.any():
        return []
    row, column = np.unravel_index(int(outside.argmax()), outside.shape)
    return [
        Finding(
            "action_bounds",
            "error",
            f"value {table.action[row, column]:.6g} in column {column} is outside [-1, 1] "
            f"({int(outside.sum())} such values in all)",
            locate(int(row), "action"),
            "scale the actions to [-1, 1], as the environment takes them",
        )
    ]


def _alignment(table: EpisodeTable, locate: Locate) -> list[Finding]:
    broken = breaks(table.observation, table.next_observation)
    broken[table.offsets[1:] - 1] = False
    if not broken.any():
        return []
    row = int(broken.argmax())
    column = int(np.abs(table.next_observation[row] - table.observation[row + 1]).argmax())
    return [
        Finding(
            "alignment",
            "error",
            f"value {table.next_observation[row, column]:.6g} in column {column} is not the next step's observation "
            f"{table.observation[row + 1, column]:.6g} ({int(broken.sum())} such steps in all)",
            locate(row, "next_observation"),
            "end the episode there, or store the rows in the order of time",
        )
    ]


def _repeated_rows(table: EpisodeTable, where: str) -> list[Finding]:
    hashes = _row_hashes(table)
    repeated = len(hashes) - num_distinct(hashes)
    if not repeated:
        return []
    message = f"{repeated} of {len(hashes)} transitions are copies of others in it"
    return [Finding("repeated", "warning", message, place(where), "expected only of draws with replacement")]


def _order(table: EpisodeTable, where: str) -> list[Finding]:
    if not is_unordered(table):
        return []
    message = f"{table.num_episodes} episodes in {table.num_transitions} rows: transitions are not in order of time"
    return [Finding("unordered", "warning", message, place(where), "usable as a target; a source needs whole episodes")]


def _row_hashes(table: EpisodeTable) -> NDArray[np.uint64]:
    """(N,) 64-bit hashes of (observation, action, next observation)."""
    fields = (table.observation, table.action, table.next_observation)
    columns = [column for field in fields for column in np.ascontiguousarray(field).view(np.uint32).T]
    # Multiply-shift hashing by fixed random odd numbers; unsigned overflow is the point.
    weights = np.random.default_rng(0).integers(1, 2**63, len(columns), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    hashes = np.zeros(table.num_transitions, dtype=np.uint64)
    for column, weight in zip(columns, weights, strict=True):
        hashes += (column.astype(np.uint64) + np.uint64(1)) * weight
    return hashes


def num_distinct(hashes: NDArray[np.uint64]) -> int:
    """How many different values there are. Sorting beats NumPy's hash table many times over."""
    ordered = np.sort(hashes)
    return int((ordered[1:] != ordered[:-1]).sum()) + min(len(ordered), 1)
