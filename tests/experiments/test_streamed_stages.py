"""Stages on a source table larger than the allowed memory: they stream and resume, or refuse with a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from v2a_ray.data.loading import streaming
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import write_table
from v2a_ray.engine.context import Job
from v2a_ray.engine.trainer import Metrics, silent
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import resolve
from v2a_ray.stages.registered import fit_of

NUM_SOURCE = 4000
ROW_BYTES = 27 * 4
QUARTER_GIB = NUM_SOURCE * ROW_BYTES / 4 / 2**30


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "BLOCK_BYTES", 5 * ROW_BYTES)
    monkeypatch.setattr(streaming, "OVERHEAD_BYTES", 0)
    torch.set_num_threads(1)


def hopper_like(num_transitions: int, seed: int) -> EpisodeTable:
    generator = np.random.default_rng(seed)
    states = generator.normal(size=(num_transitions + 1, 11)).astype(np.float32)
    count = num_transitions // 50
    return EpisodeTable(
        observation=states[:-1],
        action=generator.uniform(-1, 1, (num_transitions, 3)).astype(np.float32),
        reward=generator.normal(size=num_transitions).astype(np.float32),
        next_observation=states[1:],
        offsets=np.arange(count + 1) * 50,
        terminated=np.zeros(count, bool),
        truncated=np.ones(count, bool),
        episode_id=tuple(f"{seed}/{index}" for index in range(count)),
        source=("made",) * count,
        domain=("unknown",) * count,
        behavior=("unknown",) * count,
    )


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Inputs of a stage: a source, a small target, and their row files."""
    folder = tmp_path_factory.mktemp("tables")
    inputs: dict[str, Path] = {}
    for seed, (role, size) in enumerate({"source": NUM_SOURCE, "target": 300}.items()):
        write_table(hopper_like(size, seed), folder / role / "table", robot="hopper")
        (folder / f"{role}_rows").mkdir()
        fit_of("rows", experiment())(
            Job(experiment(), {"table": folder / role}, folder / f"{role}_rows", folder / "work")
        )
        inputs |= {role: folder / role, f"{role}_rows": folder / f"{role}_rows"}
    return inputs


def experiment(method: str = "iql_mixed", memory_gib: float = QUARTER_GIB, **sections: Any) -> ExperimentConfig:
    rolled_out = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 300}
    small = {"num_steps": 60, "width": 8, "batch_size": 32, "checkpoint_interval_steps": 20, "log_interval_steps": 10}
    raw = {"name": "test", "method": method, "target": rolled_out, "sources": [rolled_out]}
    raw |= {"loading": {"memory_gib": memory_gib}, "evaluation": {"num_episodes": 1, "interval_steps": 0}}
    raw |= {"advantage": small, "alignment": small, "policy": small}
    return resolve(raw | {name: raw.get(name, {}) | values for name, values in sections.items()})


def fit(
    stage: str, config: ExperimentConfig, inputs: dict[str, Path], folder: Path, fail_at_step: int | None = None
) -> Path:
    """Fit into `folder`; with `fail_at_step`, training is interrupted at that step and leaves its checkpoint."""
    told: list[str] = []

    def progress(step: int, num_steps: int, metrics: Metrics) -> None:
        told.extend(metrics)
        if step == fail_at_step:
            raise KeyboardInterrupt

    (folder / "output").mkdir(parents=True, exist_ok=True)
    fit_of(stage, config)(Job(config, inputs, folder / "output", folder / "work", progress))
    # A residual alignment only scores its source in order, so it does not report a streamed source.
    draws = stage != "alignment" or config.alignment.kind in ("contrastive", "classifier")
    assert ("streamed/source" in told) == (draws and config.loading.memory_gib < 1)
    return folder / "output"


def test_streamed_policy_resumes_from_its_checkpoint(tables: dict[str, Path], tmp_path: Path) -> None:
    whole = fit("policy", experiment(), tables, tmp_path / "whole")
    assert json.loads((whole / "evaluation.json").read_text())["streamed_tables"] == ["source"]
    with pytest.raises(KeyboardInterrupt):
        fit("policy", experiment(), tables, tmp_path / "broken", fail_at_step=50)
    resumed = fit("policy", experiment(), tables, tmp_path / "broken")
    in_memory = fit("policy", experiment(memory_gib=1.0), tables, tmp_path / "memory")
    actors = [load_file(folder / "actor.safetensors") for folder in (whole, resumed, in_memory)]
    for name, values in actors[0].items():
        assert torch.equal(values, actors[1][name]), name
    assert any(not torch.equal(values, actors[2][name]) for name, values in actors[0].items())


@pytest.mark.parametrize("kind", ["contrastive", "classifier", "residual"])
def test_columns_are_computed_from_a_streamed_source(kind: str, tables: dict[str, Path], tmp_path: Path) -> None:
    config = experiment("dvdf", alignment={"kind": kind})
    for stage in ("advantage", "alignment"):
        column = pq.read_table(fit(stage, config, tables, tmp_path / stage) / "column.parquet").column(stage)
        assert sum(len(values) for values in column.to_pylist()) == NUM_SOURCE


def test_residual_alignment_of_a_streamed_source_is_identical(tables: dict[str, Path], tmp_path: Path) -> None:
    """It is fitted to the target and only scores the source, in order."""
    columns = [
        pq.read_table(
            fit("alignment", experiment("v2a", gib, alignment={"kind": "residual"}), tables, tmp_path / str(gib))
            / "column.parquet"
        )
        for gib in (QUARTER_GIB, 1.0)
    ]
    assert columns[0].equals(columns[1])


@pytest.mark.parametrize("stage", ["advantage", "policy"])
def test_streamed_table_refuses_device_cuda(stage: str, tables: dict[str, Path], tmp_path: Path) -> None:
    sections: dict[str, Any] = {stage: {"device": "cuda"}}
    config = experiment("iql_mixed" if stage == "policy" else "dvdf", **sections)
    with pytest.raises(ConfigError, match=r"the source is more than .* would be streamed, on the CPU") as error:
        fit_of(stage, config)(Job(config, tables, tmp_path, tmp_path / "work", silent))
    assert error.value.where == "loading.memory_gib"


def test_stage_that_cannot_stream_names_the_remedy(tables: dict[str, Path], tmp_path: Path) -> None:
    config = experiment("v2a_calibrated")
    with pytest.raises(ConfigError, match=r"the alignment stage cannot stream(.|\n)*raise it") as error:
        fit_of("alignment", config)(Job(config, tables, tmp_path, tmp_path / "work", silent))
    assert error.value.where == "loading.memory_gib"


MODALITY = {
    "num_steps": 40,
    "encoder_width": 8,
    "decoder_width": 8,
    "batch_size": 8,
    "crop_steps": 20,
    "patience_evaluations": 9,
    "validation_interval_steps": 10,
    "validation_fraction": 0.2,
    "checkpoint_interval_steps": 10,
    "log_interval_steps": 10,
}


@pytest.mark.parametrize("include_target", [False, True])
def test_streamed_modality_is_that_of_memory(include_target: bool, tables: dict[str, Path], tmp_path: Path) -> None:
    found = {}
    for gib in (QUARTER_GIB, 1.0):
        config = experiment("v2a", gib, modality=MODALITY | {"include_target": include_target})
        output = fit("modality", config, tables, tmp_path / str(gib))
        column = pq.read_table(output / "column.parquet")
        found[gib] = load_file(output / "model.safetensors"), column, pq.read_table(output / "curves.parquet")
    (weights, column, curves), (others, whole, history) = found.values()
    for name, values in weights.items():
        torch.testing.assert_close(values, others[name], rtol=1e-4, atol=1e-5)
    assert column.column("episode_id").equals(whole.column("episode_id"))
    z, expected = (np.stack(each.column("z").to_pylist()) for each in (column, whole))
    assert np.ptp(expected) > 0.01 and np.allclose(z, expected, atol=1e-5)
    assert np.allclose(curves["modality/validation_loss"], history["modality/validation_loss"], equal_nan=True)


def test_streamed_modality_resumes_from_its_checkpoint(tables: dict[str, Path], tmp_path: Path) -> None:
    config = experiment("v2a", modality=MODALITY)
    whole = fit("modality", config, tables, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit("modality", config, tables, tmp_path / "broken", fail_at_step=30)
    resumed = fit("modality", config, tables, tmp_path / "broken")
    for name, values in load_file(whole / "model.safetensors").items():
        assert torch.equal(values, load_file(resumed / "model.safetensors")[name]), name


def test_streamed_modality_refuses_device_cuda(tables: dict[str, Path], tmp_path: Path) -> None:
    config = experiment("v2a", modality=MODALITY | {"device": "cuda"})
    with pytest.raises(ConfigError, match=r"it would be streamed, on the CPU"):
        fit_of("modality", config)(Job(config, tables, tmp_path, tmp_path / "work", silent))
