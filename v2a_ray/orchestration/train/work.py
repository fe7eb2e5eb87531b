"""One node to compute, and the folders of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from v2a_ray.engine.plan import Node
from v2a_ray.engine.stage import STAGES
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.orchestration.cluster.join import code_digest


@dataclass(frozen=True)
class Work:
    """A node of an experiment's plan whose artifact is needed.

    Attributes:
        title: what the node is called on displays, where its name alone would not tell it from others.
        code: digest of the driver's code, for the check on the node that does the work.
    """

    config: ExperimentConfig
    plan: Mapping[str, Node]
    node: Node
    title: str = ""
    code: str = field(default_factory=code_digest)

    @property
    def shown(self) -> Node:
        """The node under its title."""
        return replace(self.node, name=self.title) if self.title else self.node


def input_paths(work: Work, store: ArtifactStore) -> dict[str, Path]:
    """Folder of every input of a node. Raises StorageError when an input is missing or damaged."""
    nodes = {role: work.plan[name] for role, name in work.node.inputs.items()}
    return {role: store.require(node.stage, node.key).path for role, node in nodes.items()}


def stage_threads(work: Work) -> int:
    """CPUs of one process that computes a trained stage or a table."""
    stage = work.node.stage
    return STAGES[stage].section(work.config).num_threads if stage in STAGES else 1
