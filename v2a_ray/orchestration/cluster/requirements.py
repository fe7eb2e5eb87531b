"""Checks that a cluster has the required resources before anything is computed. Ray would wait for ever for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from v2a_ray.data.mixing.mixture import resolve
from v2a_ray.engine.stage import STAGES
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.errors import ConfigError
from v2a_ray.orchestration.cluster.capacity import amounts_text, capacity, may_have_several_nodes
from v2a_ray.orchestration.cluster.gpus import stage_workers
from v2a_ray.orchestration.cluster.importable import Named, require_importable
from v2a_ray.orchestration.cluster.shared_storage import require_shared_storage
from v2a_ray.orchestration.train.work import Work, stage_threads
from v2a_ray.result_folders import address_of

Warn = Callable[[str], None]


def check_cluster(store: ArtifactStore, folder: Path | None, works: Sequence[Work], warn: Warn) -> None:
    """Raise ConfigError or StorageError if the cluster cannot compute the nodes that the store lacks.

    Args:
        store: must be the same on all nodes of the cluster.
        folder: of the results, if nodes write there; must also be the same on all nodes.
        works: nodes of plans.
        warn: takes what cannot be checked, as one line.
    """
    with store.surveyed([(work.node.stage, work.node.key) for work in works]):
        missing = [work for work in works if store.find(work.node.stage, work.node.key) is None]
    asked: dict[tuple[str, int, int], None] = {}
    for work in missing:
        stage = work.node.stage
        where = f"{stage}.num_threads" if stage in STAGES else stage
        asked[where, stage_threads(work), stage_workers(work.config, stage)] = None
    for where, threads, count in asked:
        require_resources({"CPU": threads}, where, warn, count=count)
    require_importable(Named.by(work.config for work in missing))
    data = {path for work in missing if (path := _data_path(work))}
    parallel = next((where for where, _, count in asked if count > 1), None)
    if parallel and not store.is_shared_folder and may_have_several_nodes():
        raise ConfigError(
            "several workers of one stage read a folder that all nodes see, and the store is object storage",
            where=parallel.replace("num_threads", "num_workers"),
            remedy="one worker, one node, or a store in a folder that all nodes mount",
        )
    require_shared_storage(shared_folders(store, folder), sorted(data))


def shared_folders(store: ArtifactStore, folder: Path | None) -> list[Path]:
    """Those that every node must see: of artifacts and of results, unless they are in object storage."""
    artifacts = [store.root] if store.is_shared_folder else []
    return artifacts + ([folder] if folder and address_of(folder) is None else [])


def require_resources(resources: Mapping[str, float], where: str, warn: Warn, count: int = 1) -> None:
    """Raise ConfigError if the cluster, however far it grows, can never run `count` processes of `resources` each.

    `warn` is called instead where an autoscaler may add nodes that nobody can tell beforehand.

    Args:
        resources: name to amount, as Ray counts them: `{"CPU": 4, "GPU": 0.5}`.
        where: the setting, table or command that needs them.
        warn: takes one line.
        count: processes that run at the same time.
    """
    there = capacity()
    room = there.room(resources)
    if room >= count:
        return
    asked = amounts_text(resources)
    if count == 1 or room == 0:
        most = {name: there.largest_node(name) for name in resources}
        what = f"one process asks for {asked}, and the largest node has {amounts_text(most)}"
    else:
        what = f"{count} processes ask for {asked} each, and the cluster has room for {room}"
    if there.unknown:
        warn(f"{where}: {what}; it waits for the autoscaler, whose node types cannot be read: {there.unknown}")
        return
    # Nothing runs on less than a core.
    less = "" if count == 1 and resources == {"CPU": 1} else "lower it, or "
    if there.elastic:
        types = ", ".join(f"up to {kind.largest} of {kind.describe()}" for kind in there.types[1:])
        raise ConfigError(
            f"{what}, of all that the autoscaler may start: {types}",
            where=where,
            remedy=f"{less}give the cluster's definition a node type that has as much",
        )
    raise ConfigError(what, where=where, remedy=f"{less}give the cluster a node that has as much")


def _data_path(work: Work) -> Path | None:
    """The file or folder that a node of a plan reads data from; None for roll-outs and for data in object storage."""
    spec, root = work.node.spec, work.config.data_root
    if spec is None or spec.path is None or "://" in spec.path or "://" in root:
        return None
    return resolve(spec, root).local
