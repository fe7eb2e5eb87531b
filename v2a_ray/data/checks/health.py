"""Compares terminal flags with the robot's own rule of when it has fallen, and with its time limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.catalogue import found
from v2a_ray.data.checks.content import Locate
from v2a_ray.data.checks.findings import Finding
from v2a_ray.data.config import CheckName
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.robot_interface import RobotInterface

BLOCK_ROWS = 4096


def check_terminals(table: EpisodeTable, locate: Locate, robot: RobotInterface) -> list[Finding]:
    """Steps whose terminal flag contradicts the state they arrive in.

    A state within rounding of a threshold, or with a clipped velocity that the rule uses, is never reported. Neither is
    a terminal step whose next observation was not recorded (it repeats the observation).
    """
    terminal = table.terminal_rows > 0
    # Blocks stay in the processor's cache, because the rule is tried at several scalings of every state.
    blocks = [
        robot.observed_health(table.next_observation[begin : begin + BLOCK_ROWS])
        for begin in range(0, table.num_transitions, BLOCK_ROWS)
    ]
    healthy, fallen = (np.concatenate(flags) for flags in zip(*blocks, strict=True))
    recorded = np.isfinite(table.next_observation).all(axis=1) & table.arrival_recorded
    at_limit = np.zeros(table.num_transitions, dtype=bool)
    at_limit[table.offsets[1:][table.lengths == robot.max_episode_steps] - 1] = True
    contradicting = terminal & healthy & recorded
    facts: tuple[tuple[CheckName, NDArray[np.bool_], str], ...] = (
        (
            "time_limit_as_terminal",
            contradicting & at_limit,
            f"terminal after exactly {robot.max_episode_steps} steps, {robot.name}'s time limit, in a healthy state",
        ),
        (
            "terminal_but_healthy",
            contradicting & ~at_limit,
            f"terminal, but {robot.name} goes on from the state it arrives in",
        ),
        (
            "unhealthy_not_terminal",
            ~terminal & fallen & recorded,
            f"not terminal, but in the state it arrives in {robot.name} has fallen",
        ),
    )
    return [
        found(check, f"{what} ({int(rows.sum())} such steps in all)", locate(int(rows.argmax()), "terminated"))
        for check, rows, what in facts
        if rows.any()
    ]
