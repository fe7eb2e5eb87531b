"""Watches the nodes of a cluster while work runs on it.

Nodes that join late get the checks that the first ones got before the work began: the same code, the same storage, the
environments and plugins that the experiments name. Lost nodes are named. When work waits for nodes that do not come,
the user is told what is asked for and what the autoscaler has to say.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import ray
from ray.autoscaler.v2.sdk import get_cluster_resource_state, get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import internal_kv_get_gcs_client

from v2a_ray.errors import V2AError
from v2a_ray.orchestration.cluster.capacity import amounts_text, autoscales, capacity, is_for_one_process
from v2a_ray.orchestration.cluster.importable import Named, require_importable
from v2a_ray.orchestration.cluster.join import alive_nodes, require_same_package
from v2a_ray.orchestration.cluster.shared_storage import require_shared_storage

INTERVAL_SECONDS = 2.0
WAIT_SECONDS = 120.0
"""How long work may wait for nodes before the user is told, and told again. A cloud's machine takes a minute or two to
start and set itself up."""


_NOT_ANSWERED = (
    TimeoutError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.TaskUnschedulableError,
    ray.exceptions.WorkerCrashedError,
)


class NodeWatch:
    """What has happened to the cluster's nodes since the work began."""

    def __init__(self, folders: Sequence[Path], warn: Callable[[str], None], named: Named | None = None) -> None:
        """
        Args:
            folders: that every node has to share.
            warn: takes one line.
            named: what every node has to import.
        """
        self.folders, self.warn, self.named = folders, warn, named or Named()
        self.known = {node["NodeID"]: node["NodeManagerAddress"] for node in alive_nodes()}
        self.problem: V2AError | None = None
        self.waiting_since: float | None = None

    def look(self) -> None:
        """Look once."""
        there = {node["NodeID"]: node["NodeManagerAddress"] for node in alive_nodes()}
        joined, lost = there.keys() - self.known.keys(), self.known.keys() - there.keys()
        for node in lost:
            self.warn(f"node {self.known[node]} ({node[-8:]}) has left; what it was computing goes on elsewhere")
        if joined or lost:
            self.waiting_since = None
        if joined and not self._check(joined):
            there = {node: address for node, address in there.items() if node not in joined}
        self.known = there
        self._look_for_missing()

    def raise_problem(self) -> None:
        """Raise what is wrong with a node that joined late, if something is."""
        if self.problem:
            raise self.problem

    def _check(self, joined: set[str]) -> bool:
        """Whether these nodes have answered. One that is busy, or gone again already, is asked the next time."""
        try:
            require_same_package(joined)
            require_shared_storage(self.folders, nodes=joined)
            require_importable(self.named, joined)
        except V2AError as error:
            if isinstance(error.__cause__, _NOT_ANSWERED):
                return False
            self.problem = self.problem or error
        return True

    def _look_for_missing(self) -> None:
        demand = pending_demand() if autoscales() else []
        now = time.monotonic()
        if not demand or self.waiting_since is None:
            self.waiting_since = now if demand else None
        elif now - self.waiting_since >= WAIT_SECONDS:
            self.waiting_since = now
            if line := missing_nodes(demand):
                self.warn(line)


@contextmanager
def watching(folders: Sequence[Path], warn: Callable[[str], None], named: Named | None = None) -> Iterator[NodeWatch]:
    """Watch the cluster's nodes while the block runs.

    The block may fail because of a late node before the watch has looked at it; then the node's problem is raised.
    """
    watch = NodeWatch(folders, warn, named)
    if is_for_one_process():
        yield watch
        return
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(INTERVAL_SECONDS):
            try:
                watch.look()
            except ray.exceptions.RayError:
                return  # the cluster itself is gone, which the work notices

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield watch
    except Exception:
        with suppress(ray.exceptions.RayError):
            watch.look()
        watch.raise_problem()
        raise
    finally:
        ended.set()
        thread.join(timeout=5)


def pending_demand() -> list[tuple[dict[str, float], int]]:
    """What waits for resources in the whole cluster: resources of one process, and the number of such processes."""
    state = get_cluster_resource_state(internal_kv_get_gcs_client())
    alone = [(each.request, each.count) for each in state.pending_resource_requests]
    together = [(each, 1) for gang in state.pending_gang_resource_requests for each in gang.requests]
    demand: Counter[tuple[tuple[str, float], ...]] = Counter()
    for request, count in [*alone, *together]:
        demand[tuple(sorted(request.resources_bundle.items()))] += count
    return [(dict(resources), count) for resources, count in demand.items()]


def missing_nodes(demand: Sequence[tuple[Mapping[str, float], int]]) -> str | None:
    """One line: what waits, which node types could serve it, and why they do not come, if the autoscaler knows.

    None if no type is left that could: then the work waits its turn.
    """
    there = capacity()
    nodes = [node["Resources"] for node in alive_nodes()]
    left = [kind for kind in there.types[1:] if sum(kind.is_like(node) for node in nodes) < kind.largest]
    if there.max_workers is not None and len(nodes) > there.max_workers:
        left = []
    if not (could := [kind for kind in left if any(kind.room(resources) for resources, _ in demand)]):
        return None
    asked = ", ".join(f"{count} x ({amounts_text(resources)})" for resources, count in demand)
    said = launch_failures()
    types = ", ".join(
        f"up to {kind.largest} of {kind.describe()}" + (f": {said[kind.name]}" if kind.name in said else "")
        for kind in could
    )
    return f"for {WAIT_SECONDS:g} seconds no node has come for what waits: {asked}; the autoscaler may start {types}"


def launch_failures() -> dict[str, str]:
    """Node type to the reason why the autoscaler could not start one, as far as it knows."""
    if is_autoscaler_v2(fetch_from_server=True):
        failed = get_cluster_status(ray.get_runtime_context().gcs_address).failed_launches
        return {each.ray_node_type_name: each.details or "the launch failed, see monitor.log" for each in failed}
    report = json.loads(ray.experimental.internal_kv._internal_kv_get("__autoscaling_status") or "{}")
    summary = report.get("autoscaler_report", {}).get("node_availability_summary", {})
    known = {
        name: each["unavailable_node_information"] for name, each in summary.get("node_availabilities", {}).items()
    }
    return {name: f"{why['category']}: {why['description']}" for name, why in known.items() if why}
