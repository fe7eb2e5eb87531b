"""Ray's node provider for tests, except that nodes of the type `absent` never come. Ray's monitor imports it."""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE


class ProcessProvider(FakeMultiNodeProvider):
    """A node is a raylet with its workers on this machine."""

    def create_node_with_resources_and_labels(
        self, node_config: dict[str, Any], tags: dict[str, str], count: int, resources: dict[str, float], labels: Any
    ) -> None:
        if tags[TAG_RAY_USER_NODE_TYPE] == "absent":
            raise NodeLaunchException("InsufficientInstanceCapacity", "no such machine is left", None)
        super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)

    def set_node_tags(self, node_id: str, tags: dict[str, str]) -> None:
        self._nodes[node_id]["tags"].update(tags)
