"""A cluster whose nodes come and go: Ray's autoscaler, with its provider for tests, whose nodes are processes."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.orchestration.ray_head import RayHead, free_port

NodeType = dict[str, Any]


def node_type(largest: int, **resources: float) -> NodeType:
    """A type of worker nodes, from none to `largest`."""
    return {"resources": resources, "min_workers": 0, "max_workers": largest, "node_config": {}}


class ElasticHead(RayHead):
    """A head that computes nothing itself, and an autoscaler that adds nodes of these types on demand.

    Nodes of the type `absent` never come, as where a cloud has none left.
    """

    def __init__(self, idle_seconds: float = 300, v2: bool = False, **types: NodeType) -> None:
        gcs = free_port()
        address = f"127.0.0.1:{gcs}"
        config = {
            "cluster_name": "elastic",
            "max_workers": sum(each["max_workers"] for each in types.values()),
            "upscaling_speed": 100.0,
            "idle_timeout_minutes": idle_seconds / 60,
            "provider": {
                "type": "external",
                "module": "elastic_provider.ProcessProvider",
                "gcs_address": address,
                "launch_multiple": True,
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
            },
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                **types,
            },
            "head_node_type": "ray.head.default",
            **{key: {} for key in ["auth", "docker", "file_mounts"]},
            **{key: [] for key in ["cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands"]},
            **{key: [] for key in ["setup_commands", "head_setup_commands", "worker_setup_commands"]},
            **{key: [] for key in ["head_start_ray_commands", "worker_start_ray_commands"]},
            "file_mounts_sync_continuously": False,
        }
        variables = {
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_health_check_period_ms": "1000",
            # Nodes import the provider, and workers this checkout.
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])]),
        }
        if v2:
            config["provider"]["head_node_id"] = FAKE_HEAD_NODE_ID
            variables |= {
                "RAY_enable_autoscaler_v2": "1",
                "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
            }
        written = Path(tempfile.mkdtemp(prefix="v2a-elastic-")) / "autoscaler.yaml"
        written.write_text(yaml.safe_dump(config))
        super().__init__(num_cpus=0, more=[f"--autoscaling-config={written}"], gcs=gcs, **variables)

    def nodes(self) -> list[psutil.Process]:
        """The raylets that the autoscaler has started and that live."""
        monitor = [each for each in self._processes() if "--autoscaling-config=" in " ".join(each.cmdline())]
        return [each for each in monitor[0].children() if each.name() == "raylet"] if monitor else []

    def reclaim(self, node: psutil.Process) -> None:
        """End a node as a cloud takes a spot machine back: all of its processes at the same moment, without a word."""
        for process in [node, *node.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def _processes(self) -> list[psutil.Process]:
        return list(psutil.Process(self.processes[0].pid).children(recursive=True))
