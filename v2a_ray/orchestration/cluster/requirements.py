"""Checks that a cluster has the required resources before anything is computed. Ray would wait for ever for them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import ray
from ray.autoscaler.v2.utils import is_autoscaler_v2

from v2a_ray.data.mixing.mixture import resolve
from v2a_ray.domains import make_environment
from v2a_ray.engine.stage import STAGES
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.errors import ConfigError, DomainError
from v2a_ray.orchestration.cluster.gpus import stage_workers
from v2a_ray.orchestration.cluster.join import alive_nodes, first_line, on_every_node
from v2a_ray.orchestration.cluster.shared_storage import require_shared_storage
from v2a_ray.orchestration.train.work import Work, stage_threads
from v2a_ray.result_folders import address_of
from v2a_ray.settings.environment_names import is_environment

Warn = Callable[[str], None]
REPORT_SECONDS = 15.0
"""Ray's monitor reports every 5."""


def check_cluster(store: ArtifactStore, folder: Path, works: Sequence[Work], warn: Warn) -> None:
    """Raise ConfigError or StorageError if the cluster cannot compute the nodes that the store lacks.

    Args:
        store: must be the same on all nodes of the cluster.
        folder: of the results; must also be the same on all nodes.
        works: nodes of plans.
        warn: called with the resources that an autoscaler would have to add.
    """
    missing = [work for work in works if store.find(work.node.stage, work.node.key) is None]
    asked: dict[tuple[str, int, int], None] = {}
    for work in missing:
        if work.node.stage not in STAGES:
            continue
        asked[f"{work.node.stage}.num_threads", stage_threads(work), stage_workers(work.config, work.node.stage)] = None
    for where, threads, count in asked:
        require_resources({"CPU": threads}, where, warn, count=count)
    require_environments(sorted({name for work in missing for name in _environments(work)}))
    data = {path for work in missing if (path := _data_path(work))}
    shared = [store.root] if store.is_shared_folder else []
    shared += [folder] if address_of(folder) is None else []
    parallel = next((where for where, _, count in asked if count > 1), None)
    if parallel and not store.is_shared_folder and len(alive_nodes()) > 1:
        raise ConfigError(
            "several workers of one stage read a folder that all nodes see, and the store is object storage",
            where=parallel.replace("num_threads", "num_workers"),
            remedy="one worker, one node, or a store in a folder that all nodes mount",
        )
    require_shared_storage(shared, sorted(data))


def require_environments(names: Sequence[str]) -> None:
    """Raise DomainError unless every node can make the environments of these domains, those of `gym:` alone."""
    if not names:
        return
    for node, answer in on_every_node(_environment_problem, list(names)).items():
        problem = f"cannot be asked: {first_line(answer)}" if isinstance(answer, Exception) else answer
        if problem:
            raise DomainError(problem, where=f"node {node}", remedy="install the environment's package on every node")


def _environment_problem(names: Sequence[str]) -> str | None:
    """Runs on a node: what is wrong with the first environment that cannot be made there."""
    for name in names:
        try:
            make_environment(name).close()
        except DomainError as error:
            return str(error)
    return None


def _environments(work: Work) -> set[str]:
    """Domains of an experiment that are environments of their own, where they are simulated."""
    specs = [work.config.target, *(spec for spec in work.config.sources if spec.path is None)]
    return {spec.domain for spec in specs if is_environment(spec.domain)}


def require_resources(resources: Mapping[str, float], where: str, warn: Warn, count: int = 1) -> None:
    """Raise ConfigError if the cluster can never run `count` processes that need `resources` each.

    An autoscaler may still add suitable nodes; then `warn` is called instead.

    Args:
        resources: name to amount, as Ray counts them: `{"CPU": 4, "GPU": 0.5}`.
        where: the setting that needs them.
        warn: takes one line.
        count: processes that run at the same time.
    """
    nodes = [node["Resources"] for node in alive_nodes()]
    room = sum(_fits(resources, node) for node in nodes)
    if room >= count:
        return
    asked = _amounts(resources)
    if count == 1 or room == 0:
        most = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in resources}
        what = f"one process asks for {asked}, and the largest node has {_amounts(most)}"
    else:
        what = f"{count} processes ask for {asked} each, and the cluster has room for {room}"
    if autoscales():
        warn(f"{where}: {what}; it waits for the autoscaler to add nodes")
        return
    raise ConfigError(what, where=where, remedy="lower it, or give the cluster a node that has as much")


def autoscales() -> bool:
    """Whether an autoscaler may add nodes to the joined cluster.

    Without an autoscaler, Ray's monitor reports a node type `node_ID` for every node; cluster launchers name types.
    """
    ask = ray.experimental.internal_kv._internal_kv_get
    if json.loads(ask("CLUSTER_METADATA", namespace="cluster"))["ray_init_cluster"]:
        return False  # this process started the cluster
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


def _fits(resources: Mapping[str, float], node: Mapping[str, float]) -> int:
    """Number of processes that fit on a node."""
    return min(int(node.get(name, 0.0) / amount + 1e-9) for name, amount in resources.items() if amount > 0)


def _amounts(resources: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in resources.items())


def _data_path(work: Work) -> Path | None:
    """The file or folder that a node of a plan reads data from; None for roll-outs and for data in object storage."""
    spec, root = work.node.spec, work.config.data_root
    if spec is None or spec.path is None or "://" in spec.path or "://" in root:
        return None
    return resolve(spec, root).local
