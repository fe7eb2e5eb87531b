"""`device` reaches every stage, from its settings to its tables and networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.experiments.tiny_experiments import experiment, run
from v2a_ray.errors import ConfigError

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


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
def test_every_stage_with_device_cuda_fails_without_a_gpu(method: str, stage: str, tmp_path: Path) -> None:
    section, _, kind = stage.partition(".")
    overrides = [f"{section}.device=cuda", *([stage] if kind else [])]
    with pytest.raises(ConfigError, match="cuda is asked for, and this process has no GPU"):
        run(experiment(method, *overrides), tmp_path)
    assert section in {path.name for path in tmp_path.iterdir()}  # this stage failed, not an earlier one
    assert not (tmp_path / section / "curves.parquet").exists()


def test_rllib_baselines_refuse_device_cuda() -> None:
    assert experiment("rllib_iql", "policy.device=auto").policy.device == "auto"
    with pytest.raises(ConfigError, match=r"policy\.device: policy\.learner=rllib_iql is trained on the CPU"):
        experiment("rllib_iql", "policy.device=cuda")
