"""The memory that tasks ask Ray for, so that no more large ones run on a node than fit.

Small tasks ask for none, as they did not before: a few hundred MB are what every process takes.
"""

from __future__ import annotations

from v2a_ray.data.loading.memory_mapped import transition_bytes
from v2a_ray.data.mixing.mixture import resolve
from v2a_ray.data.table.folder import read_manifest
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.errors import DataError
from v2a_ray.orchestration.cluster.capacity import Capacity
from v2a_ray.orchestration.train.work import Work

SMALL_BYTES = 2**29
COPIES_OF_ROWS = 2
"""A stage holds its transitions, and what it computes of them."""
COPIES_OF_FILE = 4
"""Reading a file holds what is read, converted and checked; compressed files take more, which nobody knows before."""
LARGEST_SHARE = 0.9
"""Of a node's memory: what asks for more than any node has would wait for ever."""


def stage_memory(work: Work, store: ArtifactStore) -> int:
    """Bytes that a stage may take for transitions: those of its input tables, or `loading.memory_gib` if it is less."""
    total = 0
    for name in set(work.node.inputs.values()):
        node = work.plan[name]
        try:
            manifest = read_manifest(store.path(node.stage, node.key) / "table")
        except DataError:
            continue  # an artifact without a table
        total += transition_bytes(manifest)
    return COPIES_OF_ROWS * min(total, int(work.config.loading.memory_gib * 2**30))


def file_memory(work: Work) -> int:
    """Bytes that one process may take to read the file of a part of the data; 0 for what no local file holds."""
    spec = work.node.spec
    if spec is None or spec.path is None or "://" in spec.path or "://" in work.config.data_root:
        return 0
    local = resolve(spec, work.config.data_root).local
    if local is None or not local.exists():
        return 0
    files = [local] if local.is_file() else [file for file in local.rglob("*") if file.is_file()]
    return COPIES_OF_FILE * sum(file.stat().st_size for file in files)


def reserved_memory(num_bytes: int, there: Capacity) -> dict[str, float]:
    """Options of a task that takes so much memory; none for a small one."""
    most = LARGEST_SHARE * there.largest_node("memory")
    if num_bytes < SMALL_BYTES or not most:
        return {}
    return {"memory": float(int(min(num_bytes, most)))}
