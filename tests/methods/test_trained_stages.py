"""The register of stages: what every declaration has to hold, whatever the stage."""

from __future__ import annotations

import inspect
from typing import get_args

import pytest
from v2a_ray.stages.alignment.estimators import ESTIMATORS

from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.stage import Stage, imported
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.methods import METHODS
from v2a_ray.settings.base import TrainingConfig
from v2a_ray.stages.alignment.config import AlignmentConfig
from v2a_ray.stages.registered import STAGES, fit_of

DATA = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 100}


def experiment(method: str) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {"name": "test", "method": method, "target": DATA, "sources": [DATA | {"name": "other"}]}
    )


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_what_a_stage_names_is_there_and_takes_a_job(stage: Stage) -> None:
    names = [value for name, value in inspect.getmembers(stage) if name.startswith("fits") and value]
    assert names
    for name in names:
        assert list(inspect.signature(imported(name)).parameters) == ["job"], name


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_stage_is_named_after_its_section_and_its_part_of_a_store(stage: Stage) -> None:
    assert stage.name in STAGES and isinstance(stage.section(experiment("v2a")), TrainingConfig)


@pytest.mark.parametrize("method", METHODS)
def test_a_plan_has_what_stages_ask_for_and_every_node_can_be_computed(method: str) -> None:
    config = experiment(method)
    plan = make_plan(config)
    needed = {stage.name for stage in STAGES.values() if stage.needed(config)}
    assert {node.stage for node in plan.values()} == {"data", "source", "rows", *needed}
    seen: set[str] = set()
    for name, node in plan.items():
        assert set(node.inputs.values()) <= seen, "a node stands after what it is made from"
        seen.add(name)
        if node.stage not in ("data", "source"):
            assert callable(fit_of(node.stage, config))


def test_every_kind_of_alignment_has_an_estimator() -> None:
    kinds = get_args(AlignmentConfig.model_fields["kind"].annotation)
    assert {"none", *ESTIMATORS} == set(kinds)
