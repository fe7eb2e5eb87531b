"""What the driver tells while it computes: a display, a status file and metrics listen to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The progress actor's process imports this module, and torch and Arrow would delay its start by seconds.
    from v2a_ray.engine.plan import Node
    from v2a_ray.engine.store import Artifact
    from v2a_ray.engine.trainer import Metrics


@dataclass(frozen=True)
class Event:
    """One report: `step` of `num_steps` of a node, with metrics named `group/name`.

    Attributes:
        key: of the node's artifact, which tells nodes of one name apart.
        name: of the node.
    """

    key: str
    name: str
    step: int
    num_steps: int
    metrics: Metrics


@dataclass
class Listener:
    """Callbacks for the driver. By default they do nothing."""

    def planned(self, what: str, total: int, waits_for: str = "", then: str = "") -> None:
        """A phase begins.

        Args:
            what: is counted, in the plural: `stages` or `policies`.
            total: number of them, including those that are in the store.
            waits_for: what one that could run waits for.
            then: what follows this phase.
        """

    def queued(self, node: Node) -> None:
        """A node could run and waits for cores or a GPU."""

    def started(self, node: Node) -> None:
        """A node's computation runs."""

    def progressed(self, event: Event) -> None:
        """A node reported progress."""

    def done(self, node: Node, artifact: Artifact, score: float | None = None) -> None:
        """A node's artifact was computed or found in the store; `score` is that of a policy of a sweep."""

    def failed(self, node: Node, reason: str) -> None:
        """A node failed and is not tried again."""

    def stopped(self, node: Node, step: float) -> None:
        """A scheduler ended a policy at this update step."""

    def warned(self, text: str) -> None:
        """The user should see this warning; the computation continues."""


class Listeners(Listener):
    """Passes everything on to several listeners, in order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = listeners

    def planned(self, what: str, total: int, waits_for: str = "", then: str = "") -> None:
        for each in self.listeners:
            each.planned(what, total, waits_for, then)

    def queued(self, node: Node) -> None:
        for each in self.listeners:
            each.queued(node)

    def started(self, node: Node) -> None:
        for each in self.listeners:
            each.started(node)

    def progressed(self, event: Event) -> None:
        for each in self.listeners:
            each.progressed(event)

    def done(self, node: Node, artifact: Artifact, score: float | None = None) -> None:
        for each in self.listeners:
            each.done(node, artifact, score)

    def failed(self, node: Node, reason: str) -> None:
        for each in self.listeners:
            each.failed(node, reason)

    def stopped(self, node: Node, step: float) -> None:
        for each in self.listeners:
            each.stopped(node, step)

    def warned(self, text: str) -> None:
        for each in self.listeners:
            each.warned(text)
