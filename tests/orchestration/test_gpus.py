"""The shares of GPUs that stages reserve, and the messages for too few GPUs."""

from __future__ import annotations

from typing import Any

import pytest

from v2a_ray.errors import ConfigError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import resolve
from v2a_ray.orchestration.cluster.gpus import gpu_share, require_gpus, stage_device, workers_have_gpus


def experiment(method: str = "v2a", **sections: Any) -> ExperimentConfig:
    rolled_out = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 300}
    return resolve({"name": "test", "method": method, "target": rolled_out, "sources": [rolled_out], **sections})


@pytest.mark.parametrize(
    ("device", "num_gpus", "share"),
    [("auto", 0, 0.0), ("auto", 1, 0.25), ("auto", 8, 0.25), ("cuda", 2, 0.25), ("cpu", 8, 0.0)],
)
def test_a_stage_reserves_a_part_of_a_gpu_where_there_is_one(device: Any, num_gpus: float, share: float) -> None:
    assert gpu_share(device, num_gpus) == share


@pytest.mark.parametrize(
    ("device", "num_workers", "num_gpus", "have"),
    [
        ("auto", 2, 2, True),
        ("auto", 2, 8, True),
        ("cuda", 1, 1, True),
        ("auto", 2, 1, False),
        ("auto", 2, 0, False),
        ("cpu", 2, 2, False),
    ],
)
def test_workers_get_whole_gpus_or_none(device: Any, num_workers: int, num_gpus: float, have: bool) -> None:
    assert workers_have_gpus(device, num_workers, num_gpus) == have


def test_stages_without_training_need_no_gpu() -> None:
    config = experiment(policy={"device": "cuda"})
    assert [stage_device(config, stage) for stage in ("data", "source", "rows")] == ["cpu"] * 3
    assert [stage_device(config, stage) for stage in ("modality", "policy")] == ["auto", "cuda"]
    assert stage_device(experiment("rllib_iql"), "policy") == "cpu"


def test_the_first_stage_without_its_gpu_is_named() -> None:
    config = experiment(policy={"device": "cuda"})
    stages = [(config, stage) for stage in ("data", "modality", "alignment", "policy")]
    require_gpus(stages, 1)
    require_gpus(stages[:-1], 0)
    with pytest.raises(ConfigError, match=r"^policy\.device: .* the cluster has no GPU\n  try: auto"):
        require_gpus(stages, 0)


def test_workers_that_insist_on_gpus_need_as_many() -> None:
    config = experiment(modality={"device": "cuda", "num_workers": 3})
    require_gpus([(config, "modality")], 3)
    with pytest.raises(ConfigError, match=r"^modality\.num_workers: 3 workers need .* has 2"):
        require_gpus([(config, "modality")], 2)
