"""The progress actor: stages report to it, the driver waits for reports, and Tune's processes ask it for trials."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from v2a_ray.orchestration.train.listener import Event

if TYPE_CHECKING:
    # This module imports torch, which would delay the start of the actor's process by seconds.
    from v2a_ray.engine.trainer import Metrics, Progress

GATHER_SECONDS = 1.0
"""How long reports are gathered before the driver gets them: it is called at most once in this time."""


class _ProgressActor:
    """Collects events until they are drained, and hands plugins and trials to Tune's processes."""

    def __init__(self, plugins: Mapping[str, str], trials: Sequence[str]) -> None:
        self.events: list[Event] = []
        self._plugins, self._trials = plugins, trials
        self._reported = asyncio.Event()

    async def plugins(self) -> Mapping[str, str]:
        """Path of each plugin to its content."""
        return self._plugins

    async def trials(self, numbers: Sequence[int]) -> list[str]:
        """The trials with these numbers, each as JSON: a process never reads the settings of the others."""
        return [self._trials[number] for number in numbers]

    async def report(self, event: Event) -> None:
        """Add an event."""
        self.events.append(event)
        self._reported.set()

    async def drain(self) -> list[Event]:
        """All events since the last call, in order; waits until there are some."""
        await self._reported.wait()
        await asyncio.sleep(GATHER_SECONDS)
        events, self.events = self.events, []
        self._reported.clear()
        return events


# Ray's task history holds 100,000 tasks: reports would push everything else out of it.
ProgressActor: Any = ray.remote(num_cpus=0, enable_task_events=False)(_ProgressActor)
"""The actor class; see `make_progress_actor`."""


def make_progress_actor(
    name: str | None = None, plugins: Mapping[str, str] | None = None, trials: Sequence[str] = ()
) -> Any:
    """A progress actor on the caller's node, so that it survives the failure of other nodes, as its driver does."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ProgressActor.options(name=name, scheduling_strategy=here).remote(plugins or {}, trials)


def reporter(progress_actor: Any, key: str, name: str, least_seconds: float = 0.0) -> Progress:
    """A progress callback of one node that reports to `progress_actor` without waiting.

    A report of the same metrics as the one before, less than `least_seconds` after it, is left out.
    """
    sent, moment = frozenset[str](), 0.0

    def report(step: int, num_steps: int, metrics: Metrics) -> None:
        nonlocal sent, moment
        if metrics.keys() == sent and step < num_steps and time.monotonic() - moment < least_seconds:
            return
        sent, moment = frozenset(metrics), time.monotonic()
        progress_actor.report.remote(Event(key, name, step, num_steps, metrics))

    return report
