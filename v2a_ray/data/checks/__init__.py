"""Checks of data. Each finding names the file, episode, step, field and value, and what to do.

`check_table` looks at one table, `check_sources` at several that are to be used together; `CHECKS` lists all checks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.catalogue import CHECKS, Check, Severities, found, parse_severities, regrade
from v2a_ray.data.checks.content import (
    check_action_bounds,
    check_alignment,
    check_dimensions,
    check_finite,
    check_lengths,
    check_order,
    check_repeated,
    check_terminals_continue,
    check_unwritten,
)
from v2a_ray.data.checks.findings import Finding, place
from v2a_ray.data.checks.health import check_terminals
from v2a_ray.data.checks.sources import SourceFacts, check_facts, check_sources
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.robot_interface import RobotInterface

__all__ = [
    "CHECKS",
    "Check",
    "Severities",
    "SourceFacts",
    "check_facts",
    "check_sources",
    "check_table",
    "found",
    "parse_severities",
    "regrade",
]


def check_table(
    table: EpisodeTable,
    *,
    where: str,
    robot: RobotInterface | None = None,
    row_number: NDArray[np.int64] | None = None,
    name_episodes: bool = False,
) -> list[Finding]:
    """All checks of one table.

    Args:
        where: the file or folder, for messages.
        robot: the robot that sizes and terminal flags must fit, or None to accept any.
        row_number: (N,) row of each transition in the file, named in messages if given.
        name_episodes: name episodes by id, not number; for a table that is only a part of the file `where`.
    """

    def locate(row: int, field: str) -> str:
        episode = int(np.searchsorted(table.offsets, row, side="right")) - 1
        number = None if row_number is None else int(row_number[row])
        name = table.episode_id[episode] if name_episodes else episode
        return place(where, row=number, episode=name, step=row - int(table.offsets[episode]), field=field)

    sizes = check_dimensions(table, where, robot) if robot else []
    return [
        *sizes,
        *check_finite(table, locate),
        *check_action_bounds(table, locate),
        *check_alignment(table, locate),
        *(check_unwritten(table, locate) if robot else []),
        *check_repeated(table, where),
        *check_order(table, where),
        *check_terminals_continue(table, locate),
        *(check_lengths(table, locate, robot) if robot else []),
        *(check_terminals(table, locate, robot) if robot and not sizes else []),
    ]
