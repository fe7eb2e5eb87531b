"""What experiments name is imported on every node before it gets work, also on nodes that join late."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from v2a_ray.errors import ConfigError, DomainError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.orchestration.cluster.importable import Named, require_importable
from v2a_ray.orchestration.cluster.node_watch import NodeWatch

HOPPER = {"domain": "hopper/stock", "behavior": "medium", "num_transitions": 10}


def experiment(**changes: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate({"name": "test", "target": HOPPER, "sources": [HOPPER], **changes})


def late(named: Named) -> NodeWatch:
    """A watch to which every node of the cluster has joined late, after one look."""
    watch = NodeWatch([], print, named)
    watch.known = {}
    watch.look()
    return watch


def test_simulated_environments_are_what_experiments_name() -> None:
    own = HOPPER | {"domain": "gym:InvertedPendulum-v5"}
    recorded = own | {"domain": "gym:Hopper-v5", "path": "there.hdf5", "name": "recorded"}
    named = Named.by([experiment(), experiment(target=own, sources=[own, recorded])])
    assert named == Named(("gym:InvertedPendulum-v5",))
    assert Named.by([experiment()]) == Named()


def test_late_nodes_with_all_that_is_named_are_fit(ray_cluster: None, tmp_path: Path) -> None:
    watch = late(Named(("gym:InvertedPendulum-v5",), {str(tmp_path / "plugin.py"): "import numpy"}))
    watch.raise_problem()
    assert watch.known


@pytest.mark.parametrize(
    ("named", "kind", "said"),
    [
        (Named(("gym:no_such_package:Robot",)), DomainError, "No module named 'no_such_package'"),
        (Named(plugins={"mine.py": "import no_such_package"}), ConfigError, "No module named 'no_such_package'"),
        (Named(settings=({"method": "of_a_package"},)), ConfigError, "of_a_package"),
    ],
)
def test_a_late_node_that_cannot_import_what_is_named_is_told_as_at_the_start(
    ray_cluster: None, named: Named, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said) as at_start:
        require_importable(named)
    with pytest.raises(kind, match=said) as later:
        late(named).raise_problem()
    assert str(at_start.value) == str(later.value) and "on every node" in str(later.value)
