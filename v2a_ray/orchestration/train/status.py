"""The status file of a run or sweep: what `v2a status` reads while it runs, and after it has died."""

from __future__ import annotations

import os
import platform
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import ray

from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import Artifact
from v2a_ray.errors import V2AError
from v2a_ray.files import write_json
from v2a_ray.orchestration.train.listener import Event, Listener
from v2a_ray.report.status import HEARTBEAT_SECONDS, STATUS_FILE
from v2a_ray.report.tally import Tally


class StatusFile(Listener):
    """Writes `status.json` into the results folder every few seconds while the block runs, and at its end."""

    def __init__(self, folder: Path, kind: str, name: str) -> None:
        self.path = folder / STATUS_FILE
        self.tally = Tally()
        now = time.time()
        self._about = {"kind": kind, "name": name, "host": platform.node(), "pid": os.getpid(), "began": now}
        self._reported = now
        self._alive: set[str] = set()
        """Addresses of nodes that were seen alive."""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> StatusFile:
        self._write("running")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            self._write("finished")
        elif isinstance(error, V2AError):
            self._write("failed", str(error))
        else:
            self._write("interrupted", "" if isinstance(error, KeyboardInterrupt) else repr(error))

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            self._write("running")

    def _write(self, state: str, reason: str = "") -> None:
        with self._lock:
            counts = self.tally.snapshot()
        content = {
            **self._about,
            "state": state,
            "reason": reason,
            "written": time.time(),
            "reported": self._reported,
            **counts,
            "cluster": self._cluster(),
        }
        # The work does not need the file, so a full disk does not end it here.
        with suppress(OSError):
            write_json(self.path, content)

    def _cluster(self) -> dict[str, Any]:
        """CPUs and GPUs, free ones, and the nodes that were lost since the start; empty without Ray."""
        if not ray.is_initialized():
            return {}
        with suppress(Exception):  # the head may be gone, which ends the work elsewhere
            nodes = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
            there, free = ray.cluster_resources(), ray.available_resources()
            self._alive |= set(nodes)
            return {
                "nodes": len(nodes),
                "lost": sorted(self._alive - set(nodes)),
                **{f"{kind}": [there[kind], free.get(kind, 0.0)] for kind in ("CPU", "GPU") if kind in there},
            }
        return {}

    def planned(self, what: str, total: int, waits_for: str = "", then: str = "") -> None:
        with self._lock:
            self.tally.plan(what, total, waits_for, then)

    def queued(self, node: Node) -> None:
        with self._lock:
            self.tally.queue(node.key)

    def started(self, node: Node) -> None:
        with self._reporting():
            self.tally.start(node.key, node.name)

    def progressed(self, event: Event) -> None:
        with self._reporting():
            self.tally.progress(event.key, event.step, event.num_steps, event.metrics)

    def done(self, node: Node, artifact: Artifact, score: float | None = None) -> None:
        with self._reporting():
            self.tally.finish(node.key, node.name, artifact.cached, score)

    def failed(self, node: Node, reason: str) -> None:
        with self._reporting():
            self.tally.fail(node.key, node.name, reason)

    def stopped(self, node: Node, step: float) -> None:
        with self._reporting():
            self.tally.stop(node.key)

    def _reporting(self) -> threading.Lock:
        self._reported = time.time()
        return self._lock
