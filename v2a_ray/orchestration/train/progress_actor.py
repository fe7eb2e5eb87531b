"""The progress board: a Ray actor that stages report to and the driver reads from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

if TYPE_CHECKING:
    # It imports torch, for which the actor's process would take seconds to start.
    from v2a_ray.engine.trainer import Metrics, Progress


@dataclass(frozen=True)
class Event:
    """One report: `step` of `num_steps` of the node called `name`, with metrics named `group/name`."""

    name: str
    step: int
    num_steps: int
    metrics: Metrics


class _Board:
    """Collects events until they are drained."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def report(self, event: Event) -> None:
        """Add an event."""
        self.events.append(event)

    def drain(self) -> list[Event]:
        """All events since the last call, in order."""
        events, self.events = self.events, []
        return events


ProgressBoard: Any = ray.remote(num_cpus=0)(_Board)
"""The actor class; see `make_board`."""


def make_board(name: str | None = None) -> Any:
    """A board on the caller's node: it lives as long as the driver that reads it, whatever other nodes do."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ProgressBoard.options(name=name, scheduling_strategy=here).remote()


def reporter(board: Any, name: str) -> Progress:
    """A progress callback that reports to `board` without waiting."""

    def report(step: int, num_steps: int, metrics: Metrics) -> None:
        board.report.remote(Event(name, step, num_steps, metrics))

    return report
