"""The modality on real Ray Train workers (gloo): equal to one worker, z of every episode, and failures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from safetensors.torch import load_file

from tests.stages.problems import linear_system
from v2a_ray.data.table.episodes import concatenate
from v2a_ray.data.table.folder import write_table
from v2a_ray.data.table.pieces import shards
from v2a_ray.engine.columns import read_episode_column
from v2a_ray.engine.context import Job
from v2a_ray.engine.data_parallel import Workers
from v2a_ray.engine.trainer import Progress, silent
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.orchestration.cluster.session import user_error
from v2a_ray.orchestration.train.modality_workers import fit_modality_parallel
from v2a_ray.orchestration.train.workers import share_of_cores
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.fit import load_modality
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, TrajectoryBatch, encode_episodes, moments, pad

pytestmark = pytest.mark.usefixtures("ray_cluster")

SETTINGS: dict[str, Any] = {
    "num_steps": 3,
    "batch_size": 6,
    "crop_steps": 8,
    "latent_dim": 3,
    "encoder": "gru",
    "encoder_width": 8,
    "decoder_width": 8,
    "kl_weight": 0.1,
    "learning_rate": 1e-2,
    "patience_evaluations": None,
}
LENGTHS = [[8, 3, 5, 2, 7, 1], [4, 4, 4, 8, 1, 2], [2, 6, 1, 8, 8, 3]]
"""Lengths of the trajectories of the three global batches; the halves have different numbers of steps."""
CLIPS = {"em": 10.0, "joint": 0.05}
"""Large enough to clip no gradient, and small enough to clip every gradient."""


def config_of(optimization: str) -> ModalityConfig:
    return ModalityConfig(**SETTINGS, optimization=optimization, gradient_norm_clip=CLIPS[optimization])


@pytest.fixture(scope="module")
def parallel_parameters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, torch.Tensor]]]:
    """Parameters of both workers after three updates on their halves of the global batches, by optimisation."""
    folder = tmp_path_factory.mktemp("parallel")
    configs = {name: config_of(name) for name in CLIPS}

    def train(settings: dict[str, Any]) -> None:
        import ray.train
        import torch
        from safetensors.torch import save_file

        from v2a_ray.engine.data_parallel import Workers
        from v2a_ray.orchestration.train.workers import sum_over_workers
        from v2a_ray.stages.modality.learner import ModalityLearner
        from v2a_ray.stages.modality.model import ModalityModel, TrajectoryBatch

        torch.set_num_threads(1)
        rank = ray.train.get_context().get_world_rank()
        half = slice(0, 3) if rank == 0 else slice(3, 6)
        for name, config in settings["configs"].items():
            torch.manual_seed(0)
            model = ModalityModel(2, 1, config)
            model.set_statistics(settings["moments"])
            learner = ModalityLearner(settings["table"], model, config, 0, Workers(rank, 2, sum_over_workers))
            for steps, lengths, noise in settings["batches"]:
                learner.update_on(TrajectoryBatch(steps[half], lengths[half], noise[half]))
            save_file(model.state_dict(), f"{settings['folder']}/{name}-{rank}.safetensors")

    table = linear_system([12] * 6, 1.0, seed=0)
    TorchTrainer(
        train,
        train_loop_config={
            "configs": configs,
            "table": table,
            "moments": moments(table),
            "batches": [(batch.steps_BTX, batch.lengths_B, batch.noise_BZ) for batch in global_batches()],
            "folder": str(folder),
        },
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(name="test", storage_path=str(folder / "train")),
    ).fit()
    return {name: [load_file(folder / f"{name}-{rank}.safetensors") for rank in (0, 1)] for name in CLIPS}


def global_batches() -> list[TrajectoryBatch]:
    table = linear_system([12] * 6, 1.0, seed=0)
    model = ModalityModel(2, 1, config_of("em"))
    model.set_statistics(moments(table))
    steps, generator = model.steps(table), torch.Generator().manual_seed(7)
    batches = []
    for lengths in LENGTHS:
        begins = torch.from_numpy(table.offsets[:-1])
        noise = torch.randn(6, 3, generator=generator)
        batches.append(TrajectoryBatch(pad(steps, begins, torch.tensor(lengths)), torch.tensor(lengths), noise))
    return batches


@pytest.mark.slow
@pytest.mark.parametrize("optimization", ["em", "joint"])
def test_two_workers_equal_one_worker_on_the_whole_batch(
    optimization: str, parallel_parameters: dict[str, list[dict[str, torch.Tensor]]]
) -> None:
    table, config = linear_system([12] * 6, 1.0, seed=0), config_of(optimization)
    torch.manual_seed(0)
    model = ModalityModel(2, 1, config)
    model.set_statistics(moments(table))
    untrained = {name: value.clone() for name, value in model.state_dict().items()}
    alone = ModalityLearner(table, model, config, 0)
    for batch in global_batches():
        alone.update_on(batch)
    first, second = parallel_parameters[optimization]
    assert first.keys() == second.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(first[name], second[name]), name  # the workers agree exactly
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-5, msg=name)
    moved = max((value - untrained[name]).abs().max() for name, value in model.state_dict().items())
    assert moved > 1e-2  # a thousand times the tolerance


@pytest.mark.slow
def test_three_workers_on_one_part_file_equal_one_worker(tmp_path: Path) -> None:
    """A batch of 16 splits into 6 + 5 + 5 trajectories, and the episodes of the one file are split too."""
    table = concatenate([linear_system([12, 3, 9, 5, 20], gain, seed=1) for gain in (1.0, -1.0)])
    write_table(table, tmp_path / "table", num_files=1)
    config = ModalityConfig(**SETTINGS | {"batch_size": 16, "num_workers": 3})

    def train(settings: dict[str, Any]) -> None:
        import ray.train
        import torch
        from safetensors.torch import save_file

        from v2a_ray.data.table.episodes import concatenate
        from v2a_ray.engine.data_parallel import Workers
        from v2a_ray.orchestration.train.workers import sum_over_workers
        from v2a_ray.stages.modality.learner import ModalityLearner
        from v2a_ray.stages.modality.model import ModalityModel, moments

        torch.set_num_threads(1)
        rank = ray.train.get_context().get_world_rank()
        shard = concatenate([piece.read() for piece in settings["shards"][rank]])
        torch.manual_seed(0)
        model = ModalityModel(2, 1, settings["config"])
        model.set_statistics(sum_over_workers(moments(shard)))
        learner = ModalityLearner(shard, model, settings["config"], 5, Workers(rank, 3, sum_over_workers))
        for step in range(3):
            learner.update(step)
        save_file(model.state_dict(), f"{settings['folder']}/{rank}.safetensors")

    shared = shards([tmp_path / "table"], 3)
    TorchTrainer(
        train,
        train_loop_config={"config": config, "shards": shared, "folder": str(tmp_path)},
        scaling_config=ScalingConfig(num_workers=3, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(name="test", storage_path=str(tmp_path / "train")),
    ).fit()

    torch.manual_seed(0)
    model = ModalityModel(2, 1, config)
    model.set_statistics(moments(table))
    alone = ModalityLearner(table, model, config, 5)
    parts = [concatenate([piece.read() for piece in mine]) for mine in shared]
    assert [part.num_episodes for part in parts] == [3, 4, 3]
    for step in range(3):
        drawn = [
            drawn_by(ModalityLearner(part, model, config, 5, Workers(rank, 3)), step) for rank, part in enumerate(parts)
        ]
        assert [len(batch.lengths_B) for batch in drawn] == [6, 5, 5]
        alone.update_on(joined(drawn))
    first, *others = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(3)]
    for name, value in model.state_dict().items():
        assert all(torch.equal(first[name], other[name]) for other in others), name
        torch.testing.assert_close(first[name], value, rtol=0, atol=1e-5, msg=name)


def drawn_by(learner: ModalityLearner, step: int) -> TrajectoryBatch:
    """The batch of the learner's update, without the update."""
    batches: list[TrajectoryBatch] = []
    learner.update_on = lambda batch: batches.append(batch) or {}  # type: ignore[method-assign, func-returns-value]
    learner.update(step)
    return batches[0]


def joined(batches: list[TrajectoryBatch]) -> TrajectoryBatch:
    """One batch of all trajectories, padded to the longest."""
    lengths = torch.cat([batch.lengths_B for batch in batches])
    steps = torch.zeros(len(lengths), int(lengths.max()), batches[0].steps_BTX.shape[2])
    first = 0
    for batch in batches:
        steps[first : first + len(batch.lengths_B), : batch.steps_BTX.shape[1]] = batch.steps_BTX
        first += len(batch.lengths_B)
    return TrajectoryBatch(steps, lengths, torch.cat([batch.noise_BZ for batch in batches]))


def experiment(**modality: Any) -> ExperimentConfig:
    part = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 10}
    settings = SETTINGS | {"num_steps": 6, "num_workers": 2, "checkpoint_interval_steps": 4, "log_interval_steps": 3}
    return ExperimentConfig.model_validate(
        {
            "name": "test",
            "method": "v2a",
            "target": part,
            "sources": [part],
            "upstream_seed": 3,
            "modality": settings | modality,
        }
    )


@pytest.mark.slow
@pytest.mark.parametrize(("num_workers", "num_files"), [(3, 1), (2, 5)])
def test_parallel_fit_writes_a_latent_for_every_episode(tmp_path: Path, num_workers: int, num_files: int) -> None:
    """Three workers share two cores and a batch that does not divide evenly."""
    table = concatenate([linear_system([9, 4, 12, 6], gain, seed=1) for gain in (1.0, -1.0)])
    source = tmp_path / "source"
    write_table(table, source / "table", num_files=num_files)
    job = Job(
        experiment(batch_size=5, num_workers=num_workers), {"source": source}, tmp_path / "output", tmp_path / "work"
    )
    job.output.mkdir()
    # As in production: inside a task without CPUs, because the workers reserve them.
    ray.get(ray.remote(fit_modality_parallel).options(num_cpus=0).remote(job))

    column = pq.read_table(job.output / "column.parquet").column("episode_id").to_pylist()
    assert column == list(table.episode_id)
    latent = read_episode_column(job.output / "column.parquet", "z", table)
    assert latent.shape == (8, 3) and np.isfinite(latent).all()
    assert len(np.unique(latent.round(6), axis=0)) == 8
    model = load_modality(job.output, 2, 1)
    np.testing.assert_allclose(latent, encode_episodes(model, table, job.config.modality), atol=1e-6)
    # The statistics cover both shards.
    expected = ModalityModel(2, 1, job.config.modality)
    expected.set_statistics(moments(table))
    for name in ("state_mean_O", "state_std_O", "delta_std_O"):
        torch.testing.assert_close(getattr(model, name), getattr(expected, name))
    curves = pq.read_table(job.output / "curves.parquet")
    assert curves.column("step").to_pylist() == [3, 6]
    assert (job.work / "checkpoint.safetensors").exists()


@pytest.mark.slow
def test_two_workers_stop_early_by_their_common_validation_loss(tmp_path: Path) -> None:
    """No evaluation is 99 % below the first, so training stops at the second one, with its weights."""
    table = concatenate([linear_system([9, 4, 12, 6], gain, seed=1) for gain in (1.0, -1.0)])
    write_table(table, tmp_path / "source" / "table", num_files=2)
    stopping = {"patience_evaluations": 1, "min_improvement": 0.99, "validation_interval_steps": 2}
    job = Job(experiment(**stopping), {"source": tmp_path / "source"}, tmp_path / "output", tmp_path / "work")
    job.output.mkdir()
    ray.get(ray.remote(fit_modality_parallel).options(num_cpus=0).remote(job))

    curves = pq.read_table(job.output / "curves.parquet")
    assert curves.column("step").to_pylist() == [2, 3, 4]
    found = curves.column("modality/validation_loss").to_pylist()
    model, config = load_modality(job.output, 2, 1), job.config.modality
    errors = []
    for rank, mine in enumerate(shards([tmp_path / "source" / "table"], 2)):
        shard = concatenate([piece.read() for piece in mine])
        for batch in ModalityLearner(shard, model, config, job.config.upstream_seed, Workers(rank)).validation:
            with torch.no_grad():
                mean, _ = model.encoder(batch.steps_BTX, batch.lengths_B)
                errors.append(model.reconstruction_error(batch, mean))
    assert len(errors) == 2
    assert found[1] is None and found[2] == pytest.approx(float(torch.cat(errors).mean()), rel=1e-5)

    # A checkpoint was saved at step 4: all workers that resume from it stop at once.
    again = replace(job, output=tmp_path / "again")
    again.output.mkdir()
    ray.get(ray.remote(fit_modality_parallel).options(num_cpus=0).remote(again))
    assert pq.read_table(again.output / "curves.parquet").equals(curves)
    for name, value in load_file(again.output / "model.safetensors").items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.slow
def test_killed_modality_worker_restarts_with_identical_results(kill_once: Progress, tmp_path: Path) -> None:
    """The worker that writes checkpoints is killed one step after it wrote one."""
    table = concatenate([linear_system([9, 4, 12, 6], gain, seed=1) for gain in (1.0, -1.0)])
    source = tmp_path / "source"
    write_table(table, source / "table", num_files=2)
    config = experiment(num_steps=8, log_interval_steps=1)
    models = []
    for name, progress in (("straight", silent), ("interrupted", kill_once)):
        job = Job(config, {"source": source}, tmp_path / name, tmp_path / f"{name}.work", progress)
        job.output.mkdir()
        ray.get(ray.remote(fit_modality_parallel).options(num_cpus=0).remote(job))
        models.append(load_file(job.output / "model.safetensors"))
    assert (tmp_path / "killed").exists()
    # Steps 1 to 5, then from the checkpoint of step 4 on.
    assert (tmp_path / "steps").read_text().split() == ["1", "2", "3", "4", "5", "4", "5", "6", "7", "8"]
    straight, interrupted = models
    assert all(torch.equal(straight[name], interrupted[name]) for name in straight)


@pytest.mark.slow
def test_user_errors_are_not_retried(tmp_path: Path) -> None:
    """One worker fails while the other waits for its gradients."""
    write_table(linear_system([9, 4, 12, 6], 1.0, seed=1), tmp_path / "source" / "table", num_files=2)
    tries = tmp_path / "tries"

    def refuse(step: int, num_steps: int, metrics: dict[str, float]) -> None:
        with tries.open("a") as file:
            file.write(f"{step}\n")
        raise ConfigError("nobody can do this", where="modality.some_key", remedy="something else")

    job = Job(experiment(), {"source": tmp_path / "source"}, tmp_path / "output", tmp_path / "work", refuse)
    job.output.mkdir()
    with pytest.raises(ConfigError) as error:
        ray.get(ray.remote(fit_modality_parallel).options(num_cpus=0).remote(job))
    cause = user_error(error.value)
    assert str(cause) == "modality.some_key: nobody can do this\n  try: something else"
    assert tries.read_text().split() == ["3"]


@pytest.mark.parametrize(
    ("cores", "num_workers", "num_threads", "cpus"),
    [(8, 2, 4, 4), (2, 3, 1, 0.5), (4, 3, 2, 1), (1, 6, 1, 0.166), (0, 2, 1, 1)],
)
def test_workers_reserve_at_most_the_available_cores(
    cores: int, num_workers: int, num_threads: int, cpus: float
) -> None:
    assert share_of_cores(cores, num_workers, num_threads) == cpus


def test_more_workers_than_trajectories_are_refused() -> None:
    with pytest.raises(ValueError, match="7 workers cannot share a batch of 6 trajectories"):
        experiment(num_workers=7)
