"""Where the tasks of one table run: anywhere, unless the store's folder is this node's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from v2a_ray.engine.store import ArtifactStore


@contextmanager
def on_this_node(store: ArtifactStore) -> Iterator[None]:
    """Keep Ray Data's tasks that are started in the block on this node, if only it sees their files."""
    if store.is_shared_folder:
        yield
        return
    # Imported here because it imports pandas.
    from ray.data import DataContext

    context = DataContext.get_current()
    before = context.scheduling_strategy, context.scheduling_strategy_large_args
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    context.scheduling_strategy = context.scheduling_strategy_large_args = here
    try:
        yield
    finally:
        context.scheduling_strategy, context.scheduling_strategy_large_args = before
