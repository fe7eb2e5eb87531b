"""The plugin's tests: `pytest examples/plugin`, or from any copy of this folder if v2a_ray is installed."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from v2a_ray.experiments.plugins import load_files
from v2a_ray.experiments.reading import load_experiment

HERE = Path(__file__).parent
load_files([str(HERE / "nearest_rows.py")])


def test_experiment_uses_the_method_of_the_plugin() -> None:
    config = load_experiment(HERE / "experiment.yaml", ["alignment.num_neighbors=3"])
    assert config.alignment.model_dump(include={"kind", "num_neighbors"}) == {
        "kind": "nearest_rows",
        "num_neighbors": 3,
    }
    assert config.policy.learner == "weighted_bc" and config.policy.filter.weight == "exp_alignment"
    assert config.method_title == "nearest_bc"


def test_settings_of_the_plugin_are_checked() -> None:
    from v2a_ray.stages.alignment.config import ALIGNMENTS

    with pytest.raises(ValidationError, match="greater than 0"):
        ALIGNMENTS(kind="nearest_rows", num_neighbors=0)
    with pytest.raises(ValidationError, match="unknown key of kind=nearest_rows"):
        ALIGNMENTS(kind="nearest_rows", embedding_dim=3)
