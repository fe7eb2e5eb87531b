"""The progress actor: stages report to it, and the driver waits for what they report."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
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
    """Collects events until they are drained, and hands the plugins to Tune's processes."""

    def __init__(self, plugins: Mapping[str, str]) -> None:
        self.events: list[Event] = []
        self._plugins = plugins
        self._reported = asyncio.Event()

    async def plugins(self) -> Mapping[str, str]:
        """Path of each plugin to its content."""
        return self._plugins

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


ProgressActor: Any = ray.remote(num_cpus=0)(_ProgressActor)
"""The actor class; see `make_progress_actor`."""


def make_progress_actor(name: str | None = None, plugins: Mapping[str, str] | None = None) -> Any:
    """A progress actor on the caller's node, so that it survives the failure of other nodes, as its driver does."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ProgressActor.options(name=name, scheduling_strategy=here).remote(plugins or {})


def reporter(progress_actor: Any, key: str, name: str) -> Progress:
    """A progress callback of one node that reports to `progress_actor` without waiting."""

    def report(step: int, num_steps: int, metrics: Metrics) -> None:
        progress_actor.report.remote(Event(key, name, step, num_steps, metrics))

    return report
