"""The benchmark of the whole pipeline has the documented sizes, and runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cold_pipeline import PUBLISHED_STEPS, experiment
from v2a_ray.stages.modality.config import ModalityConfig


def test_our_pipeline_has_the_published_sizes_except_the_modality(tmp_path: Path) -> None:
    config = experiment(tmp_path)
    assert config.method == "v2a" and config.alignment.kind == "contrastive"
    assert config.modality == ModalityConfig()
    for stage, batch_size in (("advantage", 256), ("alignment", 128), ("policy", 128)):
        settings = getattr(config, stage)
        assert (settings.num_steps, settings.batch_size, settings.width) == (PUBLISHED_STEPS[stage], batch_size, 256)
    assert PUBLISHED_STEPS == {"modality": 100_000, "advantage": 5000, "alignment": 7000, "policy": 20_000}


@pytest.mark.slow
def test_cold_pipeline_prints_the_time_of_each_stage() -> None:
    command = [sys.executable, "-m", "benchmarks.cold_pipeline", "--quick"]
    run = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    rows = [line.split(" | ")[0].removeprefix("| ") for line in run.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["stage", "---", "tables (wall time)", "rows", "modality", "advantage", "alignment", "policy"]
