"""Requirements on every registered stage."""

from __future__ import annotations

import inspect

import pytest

from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.stage import STAGES, Stage, artifact_kinds, imported, needed_stages
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.methods import METHODS
from v2a_ray.settings.base import TrainingConfig
from v2a_ray.settings.choices import Choices
from v2a_ray.stages.advantage.config import ADVANTAGES
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.modality.config import ENCODERS
from v2a_ray.stages.policy.config import FILTERS, LEARNERS
from v2a_ray.stages.registered import fit_of

DATA = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 100}


def experiment(method: str) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {"name": "test", "method": method, "target": DATA, "sources": [DATA | {"name": "other"}]}
    )


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_stage_functions_exist_and_take_a_job(stage: Stage) -> None:
    holders = [stage, *(LEARNERS[name] for name in LEARNERS if stage.name == "policy")]
    names = [value for each in holders for name, value in inspect.getmembers(each) if name.startswith("fits") and value]
    assert names
    for name in names:
        assert list(inspect.signature(imported(name)).parameters) == ["job"], name


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_stage_names_match_settings_and_store(stage: Stage) -> None:
    assert stage.name in artifact_kinds() and isinstance(stage.section(experiment("v2a")), TrainingConfig)


@pytest.mark.parametrize("method", METHODS)
def test_plan_contains_all_inputs_and_every_node_has_a_function(method: str) -> None:
    config = experiment(method)
    plan = make_plan(config)
    needed = {stage.name for stage in STAGES.values() if stage in needed_stages(config)}
    assert {node.stage for node in plan.values()} == {"data", "source", "rows", *needed}
    seen: set[str] = set()
    for name, node in plan.items():
        assert set(node.inputs.values()) <= seen, "a node must come after its inputs"
        seen.add(name)
        if node.stage not in ("data", "source"):
            assert callable(fit_of(node.stage, config))


@pytest.mark.parametrize(
    ("choices", "attribute"),
    [(ADVANTAGES, "value_loss"), (ALIGNMENTS, "fits"), (LEARNERS, "makes"), (FILTERS, "selects")],
    ids=lambda value: getattr(value, "noun", value),
)
def test_functions_named_by_kinds_exist(choices: Choices, attribute: str) -> None:
    for name in choices:
        function = getattr(choices[name], attribute)
        assert name == "none" or callable(imported(function)), name


def test_every_encoder_exists() -> None:
    assert all(callable(imported(encoder)) for encoder in ENCODERS.values())
