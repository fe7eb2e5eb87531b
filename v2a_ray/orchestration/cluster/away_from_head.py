"""Keeps tasks that reserve no CPU off nodes that have none: a head with `num-cpus: 0` is to run none of our work."""

from __future__ import annotations

import random
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from v2a_ray.orchestration.cluster.join import alive_nodes


def away_from_head() -> dict[str, Any]:
    """Options of a task that reserves no CPU. Waits for a node with CPUs where there is none yet."""
    nodes = alive_nodes()
    working = [node for node in nodes if node["Resources"].get("CPU")]
    if len(working) == len(nodes):
        return {}
    # An expensive node is left to work that needs it, if there is another.
    cheap = [node for node in working if not node["Resources"].get("GPU")] or working
    where = random.choice(cheap)["NodeID"] if cheap else ray.get(ray.remote(num_cpus=1)(_node).remote())
    # If the node is lost meanwhile, the task goes on elsewhere.
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(where, soft=True)}


def _node() -> str:
    return str(ray.get_runtime_context().get_node_id())
