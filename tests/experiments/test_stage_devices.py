"""`device` reaches every stage, from its settings to its tables and networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.experiments.test_every_method import experiment, run
from v2a_ray.errors import ConfigError

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
STAGES = ("modality", "advantage", "alignment", "density", "dynamics", "correction", "policy")


@without_gpu
@pytest.mark.parametrize(
    ("method", "stage"),
    [
        ("v2a", "modality"),
        ("v2a", "advantage"),
        *(("dvdf", f"alignment.kind={kind}") for kind in ("contrastive", "classifier", "residual")),
        ("v2a_calibrated", "alignment"),
        ("dvdf_ot", "alignment"),
        ("srpo", "alignment"),
        ("bosa", "alignment"),
        ("bosa", "density"),
        ("stc", "dynamics"),
        ("stc", "correction"),
        ("iql", "policy"),
        ("bc", "policy"),
    ],
)
def test_a_stage_that_insists_on_a_gpu_says_that_there_is_none(method: str, stage: str, tmp_path: Path) -> None:
    section, _, kind = stage.partition(".")
    overrides = [f"{section}.device=cuda", *([stage] if kind else [])]
    with pytest.raises(ConfigError, match="cuda is asked for, and this process has no GPU"):
        run(experiment(method, *overrides), tmp_path)
    assert section in {path.name for path in tmp_path.iterdir()}  # it was this stage, not one before
    assert not (tmp_path / section / "curves.parquet").exists()


@without_gpu
@pytest.mark.parametrize("method", ["v2a_calibrated", "stc", "bosa"])
def test_auto_without_a_gpu_is_the_cpu(method: str, tmp_path: Path) -> None:
    everywhere = [f"{stage}.device=cpu" for stage in STAGES]
    actors = [
        load_file(run(experiment(method, *overrides), tmp_path / str(index))["policy"] / "actor.safetensors")
        for index, overrides in enumerate([[], everywhere])
    ]
    for name, values in actors[0].items():
        assert torch.equal(values, actors[1][name]), name


def test_what_rllib_trains_is_on_the_cpu() -> None:
    assert experiment("rllib_iql", "policy.device=auto").policy.device == "auto"
    with pytest.raises(ConfigError, match=r"policy\.device: policy\.learner=rllib_iql is trained on the CPU"):
        experiment("rllib_iql", "policy.device=cuda")
