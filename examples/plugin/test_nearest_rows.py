"""The plugin's own tests: `pytest examples/plugin`, or from any copy of this folder where v2a_ray is installed."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from v2a_ray.experiments.plugins import load_files
from v2a_ray.experiments.reading import load_experiment

HERE = Path(__file__).parent
load_files([str(HERE / "nearest_rows.py")])


def test_the_experiment_is_the_plugins_method() -> None:
    config = load_experiment(HERE / "experiment.yaml", ["alignment.num_neighbors=3"])
    assert config.alignment.model_dump(include={"kind", "num_neighbors"}) == {
        "kind": "nearest_rows",
        "num_neighbors": 3,
    }
    assert config.policy.learner == "weighted_bc" and config.policy.filter.weight == "exp_alignment"
    assert config.method_title == "nearest_bc"


def test_its_settings_are_checked_as_ours_are() -> None:
    from v2a_ray.stages.alignment.config import ALIGNMENTS

    with pytest.raises(ValidationError, match="greater than 0"):
        ALIGNMENTS(kind="nearest_rows", num_neighbors=0)
    with pytest.raises(ValidationError, match="unknown key of kind=nearest_rows"):
        ALIGNMENTS(kind="nearest_rows", embedding_dim=3)
