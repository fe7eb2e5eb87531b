"""What a cluster can have: by the node types of its autoscaler, or else what its nodes have now.

A cluster that grows by demand may have no node with a GPU, or no worker at all, when a sweep starts. Decisions about
resources (whether a stage gets a GPU, how many trials run at a time, how large packs are) therefore follow the node
types that the autoscaler may start. Ray's open-source autoscalers do not publish them (`get_cluster_config` stays
empty), so a task on the head reads them where the autoscaler does: in the file that its monitor was started with, or,
under KubeRay, in the RayCluster resource.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ray
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig, FileConfigReader, KubeRayConfigReader
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from v2a_ray.orchestration.cluster.join import alive_nodes

REPORT_SECONDS = 15.0
"""Time for the autoscaler's first report; it reports every 5 seconds."""
_HEAD = "node:__internal_head__"
_Limits = tuple[list["NodeType"], int | None]
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class NodeType:
    """Nodes with equal resources.

    Attributes:
        name: as the autoscaler calls it; the node's address where there is no autoscaler.
        resources: of each node, by Ray's names.
        largest: how many of them there can be.
    """

    name: str
    resources: Mapping[str, float]
    largest: int

    def room(self, resources: Mapping[str, float]) -> int:
        """Number of processes with these resources that fit on one node."""
        wanted = {name: amount for name, amount in resources.items() if amount > 0}
        return min((int(self.resources.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items()), default=0)

    def is_like(self, resources: Mapping[str, float]) -> bool:
        """Whether a node with these resources may be of this type: equal cores, GPUs and resources of its own."""
        return all(resources.get(name, 0.0) == amount for name, amount in self.resources.items() if name not in _USUAL)

    def describe(self) -> str:
        """Name and resources."""
        return f"{self.name} ({amounts_text({n: a for n, a in self.resources.items() if n not in _USUAL and a})})"


_USUAL = ("memory", "object_store_memory")
"""What every node has, and never exactly as much as its type says."""


def amounts_text(resources: Mapping[str, float]) -> str:
    """E.g. `4 CPU and 0.5 GPU`."""
    return " and ".join(f"{amount:g} {name}" for name, amount in resources.items()) or "no CPU"


@dataclass(frozen=True)
class Capacity:
    """The nodes that a cluster can have.

    Attributes:
        types: the head is one of them.
        max_workers: how many nodes there can be beside the head; None where no autoscaler limits them.
        elastic: whether an autoscaler adds and removes nodes.
        unknown: why the autoscaler's node types cannot be read; then `types` are the live nodes.
    """

    types: tuple[NodeType, ...]
    max_workers: int | None = None
    elastic: bool = False
    unknown: str | None = None

    def total(self, name: str) -> float:
        """Amount of a resource in the largest cluster."""
        return sum(kind.resources.get(name, 0.0) * count for kind, count in self._largest(self.types, {name: 1e-4}))

    def room(self, resources: Mapping[str, float]) -> int:
        """Number of processes with these resources that fit at a time.

        A cluster that grows leaves nodes with GPUs to processes that ask for one, where other nodes can take the rest:
        work that overflows would start an expensive node and leave its GPU idle.
        """
        types = [kind for kind in self.types if kind.room(resources)]
        if self.elastic and not resources.get("GPU"):
            types = [kind for kind in types if not kind.resources.get("GPU")] or types
        return sum(kind.room(resources) * count for kind, count in self._largest(tuple(types), resources))

    def largest_node(self, name: str) -> float:
        """The most of a resource that one node has."""
        return max((kind.resources.get(name, 0.0) for kind in self.types), default=0.0)

    def _largest(self, types: tuple[NodeType, ...], resources: Mapping[str, float]) -> list[tuple[NodeType, int]]:
        """Type and number of nodes when the limit on all workers is spent on those with the most room."""
        left = self.max_workers
        counts = []
        for kind in sorted(types, key=lambda kind: -kind.room(resources)):
            count = kind.largest
            if left is not None and kind.name != _HEAD:
                count = min(count, left)
                left -= count
            counts.append((kind, count))
        return counts


def capacity() -> Capacity:
    """What the joined cluster can have; what its live nodes have where no node types can be read."""
    nodes = alive_nodes()
    live = tuple(NodeType(node["NodeManagerAddress"], node["Resources"], 1) for node in nodes)
    if not autoscales():
        return Capacity(live)
    config = _autoscaling_config(ray.get_runtime_context().gcs_address)
    if isinstance(config, str):
        return Capacity(live, elastic=True, unknown=config)
    head = [NodeType(_HEAD, node["Resources"], 1) for node in nodes if _HEAD in node["Resources"]]
    types, max_workers = config
    return Capacity((*head, *types), max_workers, elastic=True)


def autoscales() -> bool:
    """Whether an autoscaler may add nodes to the joined cluster."""
    return _autoscales(ray.get_runtime_context().gcs_address)


def may_have_several_nodes() -> bool:
    """Whether the joined cluster has several nodes, or an autoscaler may add some."""
    return len(alive_nodes()) > 1 or autoscales()


def is_for_one_process() -> bool:
    """Whether `ray.init` started the joined cluster, whose nodes then never change."""
    metadata = ray.experimental.internal_kv._internal_kv_get("CLUSTER_METADATA", namespace="cluster")
    return bool(json.loads(metadata)["ray_init_cluster"])


@cache
def _autoscales(address: str) -> bool:
    """Without an autoscaler, Ray's monitor reports a node type `node_ID` for every node; cluster launchers name types.

    Args:
        address: of the cluster; a process may join several, one after the other.
    """
    ask = ray.experimental.internal_kv._internal_kv_get
    if is_for_one_process():
        return False
    if is_autoscaler_v2(fetch_from_server=True):
        return True
    # The monitor of a cluster that has just started has no report yet.
    deadline = time.monotonic() + REPORT_SECONDS
    while True:
        status = json.loads(ask("__autoscaling_status") or "{}")
        if report := status.get("autoscaler_report"):
            types: dict[str, str] = report["node_type_mapping"] or {}
            return any(kind != f"node_{node}" for node, kind in types.items())
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)


@cache
def _autoscaling_config(address: str) -> _Limits | str:
    """What `_read_on_head` finds, or why nothing was found."""
    head = next((node["NodeID"] for node in alive_nodes() if _HEAD in node["Resources"]), None)
    if head is None:
        return "no node says that it is the head"
    pinned = NodeAffinitySchedulingStrategy(head, soft=False)
    read = ray.remote(_read_on_head).options(num_cpus=0, scheduling_strategy=pinned)
    try:
        found: _Limits | str = ray.get(read.remote(address))
    except ray.exceptions.RayError as error:
        lines = str(getattr(error, "cause", None) or error).strip().splitlines()
        return lines[-1] if lines else type(error).__name__
    return found


def _read_on_head(address: str) -> _Limits | str:
    """Runs on the head: the autoscaler's types of worker nodes and the largest number of all, or why they cannot be
    read."""
    if name := os.environ.get("RAY_CLUSTER_NAME"):
        from ray.autoscaler._private.kuberay.autoscaling_config import AutoscalingConfigProducer

        if not _NAMESPACE_FILE.exists():
            return "the head's pod has no service account to read the RayCluster with"
        config = KubeRayConfigReader(
            AutoscalingConfigProducer(name, _NAMESPACE_FILE.read_text())
        ).get_cached_autoscaling_config()
    elif file := _monitors_file(address):
        config = FileConfigReader(file).get_cached_autoscaling_config()
    else:
        return "no autoscaler's monitor runs on the head"
    return worker_types(config), config.get_max_num_worker_nodes()


def worker_types(config: AutoscalingConfig) -> list[NodeType]:
    """The types of worker nodes in the configuration of an autoscaler."""
    return [
        NodeType(kind.name, dict(kind.resources), kind.max_worker_nodes)
        for kind in config.get_node_type_configs().values()
        if kind.name != config.get_head_node_type()
    ]


def _monitors_file(address: str) -> str | None:
    """The file that the monitor of the cluster at `address`, on this machine, was started with."""
    import psutil  # part of Ray

    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if f"--gcs-address={address}" in words:
            for word in words:
                if word.startswith("--autoscaling-config="):
                    return str(word.partition("=")[2])
    return None
