"""Ray's node provider for tests, made like a cloud: nodes of the type `absent` never come, and a node that has died is
no longer there. Ray's monitor imports it."""

from __future__ import annotations

from typing import Any

from ray._private.ray_constants import PROCESS_TYPE_RAYLET
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import STATUS_UP_TO_DATE, TAG_RAY_NODE_STATUS, TAG_RAY_USER_NODE_TYPE


class ProcessProvider(FakeMultiNodeProvider):
    """A node is a raylet with its workers on this machine."""

    def create_node_with_resources_and_labels(
        self, node_config: dict[str, Any], tags: dict[str, str], count: int, resources: dict[str, float], labels: Any
    ) -> None:
        if tags[TAG_RAY_USER_NODE_TYPE] == "absent":
            raise NodeLaunchException("InsufficientInstanceCapacity", "no such machine is left", None)
        ready = {**tags, TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE}
        super().create_node_with_resources_and_labels(node_config, ready, count, resources, labels)

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        with self.lock:
            for name, node in list(self._nodes.items()):
                raylets = node["node"].all_processes[PROCESS_TYPE_RAYLET] if "node" in node else []
                if any(raylet.process.poll() is not None for raylet in raylets):
                    self._nodes.pop(name)
            found: list[str] = super().non_terminated_nodes(tag_filters)
            return found

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        with self.lock:
            self._nodes[node_id]["tags"].update(tags)
