"""Progress as metrics of Ray, which every node's agent exposes to Prometheus. `cluster/grafana/` shows them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ray.util.metrics import Counter, Gauge

from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import Artifact
from v2a_ray.orchestration.train.listener import Event, Listener
from v2a_ray.report.tally import RETURN, SCORE, Tally

RATE_SECONDS = 10.0
"""Over how long update steps per second are averaged."""


class MetricsListener(Listener):
    """Counts what a run or sweep does. Ray must be running; names get the prefix `ray_` where Prometheus reads them."""

    def __init__(self, name: str) -> None:
        labels = {"experiment": name}
        keys = tuple(labels)
        self.tally = Tally()
        self._lock = threading.Lock()
        self._nodes = Gauge("v2a_nodes", "Stages or policies of the present phase, by state", (*keys, "what", "state"))
        self._artifacts = Counter("v2a_artifacts", "Artifacts, computed or found in the store", (*keys, "stage", "how"))
        self._rate = Gauge("v2a_steps_per_second", "Update steps of all stages that run", keys)
        self._score = Gauge("v2a_evaluation_score", "Newest score, or return, of a policy", (*keys, "policy"))
        for metric in (self._nodes, self._artifacts, self._rate, self._score):
            metric.set_default_tags(labels)
        self._steps, self._since = 0, time.monotonic()

    def planned(self, what: str, total: int, waits_for: str = "", then: str = "") -> None:
        self._count(lambda: self.tally.plan(what, total, waits_for, then))

    def started(self, node: Node) -> None:
        self._count(lambda: self.tally.start(node.key, node.name))

    def progressed(self, event: Event) -> None:
        with self._lock:
            node = self.tally.running.get(event.key)
            if node is None:
                return
            self._steps += max(0, event.step - node.step) if "resumed" not in event.metrics else 0
            self.tally.progress(event.key, event.step, event.num_steps, event.metrics)
            if RETURN in event.metrics:
                score = event.metrics.get(SCORE, event.metrics[RETURN])
                self._score.set(score, {"policy": node.name})
            passed = time.monotonic() - self._since
            if passed >= RATE_SECONDS:
                self._rate.set(self._steps / passed)
                self._steps, self._since = 0, time.monotonic()

    def done(self, node: Node, artifact: Artifact, score: float | None = None) -> None:
        how = "found" if artifact.cached else "computed"
        self._artifacts.inc(1.0, {"stage": node.stage, "how": how})
        if score is not None:
            self._score.set(score, {"policy": node.name})
        self._count(lambda: self.tally.finish(node.key, node.name, artifact.cached, score))

    def failed(self, node: Node, reason: str) -> None:
        self._count(lambda: self.tally.fail(node.key, node.name, reason))

    def stopped(self, node: Node, step: float) -> None:
        self._count(lambda: self.tally.stop(node.key))

    def _count(self, change: Callable[[], object]) -> None:
        """Change the tally and set the numbers by state."""
        with self._lock:
            change()
            state = self.tally.snapshot()
            counts = {name: state[key] for name, key in _STATES} | {"waiting": sum(state["waiting"].values())}
            for name, count in counts.items():
                self._nodes.set(count, {"what": state["what"], "state": name})


_STATES = (("done", "done"), ("running", "num_running"), ("failed", "num_failed"), ("stopped", "stopped"))
