"""One policy on several Ray Train workers: equal to one worker on their joint batch, also after a kill."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from tests.experiments.tiny_experiments import SOURCE, TARGET, experiment, run
from v2a_ray.data.loading.sampler import Batch, Preprocessing, Transitions, join_rows
from v2a_ray.engine.context import Job
from v2a_ray.engine.data_parallel import Workers
from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.trainer import Progress, silent
from v2a_ray.errors import ConfigError
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.orchestration.train.policy_workers import fit_policy_parallel
from v2a_ray.stages.policy.config import FILTERS, LEARNERS
from v2a_ray.stages.policy.filtering import SourceFilter
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.policy.training import make_actor

RULE = FILTERS(rule="top_fraction", weight="exp_alignment")
PREPROCESSING = Preprocessing(np.zeros(11, np.float32), np.ones(11, np.float32), 1.0)


class SumOverThreads:
    """Sums over workers that are threads of this process."""

    def __init__(self, count: int) -> None:
        self.parts: dict[int, Tensor] = {}
        self.barrier = threading.Barrier(count)

    def of(self, rank: int) -> Workers:
        def reduce(tensor: Tensor) -> Tensor:
            self.parts[rank] = tensor.clone()
            self.barrier.wait()
            total = sum(self.parts[other] for other in sorted(self.parts))
            self.barrier.wait()
            assert isinstance(total, Tensor)
            return tensor.copy_(total)

        return Workers(rank, self.barrier.parties, reduce)


def learner_of(config: Any, workers: Workers) -> IQLLearner:
    generator = np.random.default_rng(0)
    columns = {
        name: generator.normal(size=SOURCE.num_transitions).astype(np.float32) for name in ("alignment", "advantage")
    }
    config = config.model_copy(update={"batch_size": workers.share(config.batch_size)})
    tables = Transitions(TARGET, PREPROCESSING), Transitions(SOURCE, PREPROCESSING, columns)
    torch.manual_seed(0)
    sampler = MixedSampler(*tables, SourceFilter.prepare(RULE, None, None), config)
    return IQLLearner(sampler, make_actor(11, 3, 8, PREPROCESSING), config, seed=4, workers=workers)


@pytest.mark.parametrize("data", ["mixed", "target"])
def test_three_workers_equal_one_worker_on_their_joint_batch(data: str) -> None:
    config = LEARNERS(num_steps=50, batch_size=24, width=8, learning_rate=0.01, filter=RULE, data=data)
    together = SumOverThreads(3)
    learners = [learner_of(config, together.of(rank)) for rank in range(3)]
    alone = learner_of(config, Workers())
    untrained = {name: value.clone() for name, value in alone.actor.state_dict().items()}

    def drawn(step: int) -> tuple[Batch, Tensor]:
        """The joint batch of the three workers at a step."""
        batches, weights = [], []
        for rank in range(3):
            other = learner_of(config, Workers(rank, 3))
            other.generator.manual_seed(other.workers.seed(4, step))
            batch, weight = other.sampler.sample(other.generator)
            batches.append(batch)
            weights.append(weight)
        return join_rows(*batches), torch.cat(weights)

    for step in range(5):
        with ThreadPoolExecutor(3) as threads:
            metrics = list(threads.map(lambda learner, step=step: learner.update(step), learners))
        expected = drawn(step)
        assert len(expected[1]) == (36 if data == "mixed" else 48)
        alone.sampler.sample = lambda _, expected=expected: expected  # type: ignore[method-assign, misc]
        of_one = alone.update(step)
        for name, value in of_one.items():
            assert metrics[0][name] == metrics[1][name] == metrics[2][name]
            torch.testing.assert_close(metrics[0][name], value.detach(), rtol=1e-4, atol=1e-5, msg=name)
    for name, network in alone.networks.items():
        for key, value in network.state_dict().items():
            parts = [learner.networks[name].state_dict()[key] for learner in learners]
            assert torch.equal(parts[0], parts[1]) and torch.equal(parts[0], parts[2]), (name, key)
            torch.testing.assert_close(parts[0], value, rtol=0, atol=1e-5, msg=f"{name} {key}")
    moved = max((value - untrained[name]).abs().max() for name, value in alone.actor.state_dict().items())
    assert moved > 1e-2


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExperimentConfig, dict[str, Path]]:
    """An experiment with a policy on two workers, and the policy's inputs."""
    settings = ["policy.num_workers=2", "policy.num_steps=8", "policy.checkpoint_interval_steps=4"]
    config = experiment("igdf", *settings, "policy.log_interval_steps=1", "evaluation.interval_steps=4")
    folders = run(experiment("igdf"), tmp_path_factory.mktemp("upstream"))
    return config, {role: folders[name] for role, name in make_plan(config)["policy"].inputs.items()}


@pytest.mark.slow
def test_killed_policy_worker_restarts_with_an_identical_policy(
    ray_cluster: None, upstream: tuple[ExperimentConfig, dict[str, Path]], kill_once: Progress, tmp_path: Path
) -> None:
    """The worker that writes checkpoints is killed one step after it wrote one."""
    config, inputs = upstream
    outputs = []
    for name, progress in (("straight", silent), ("interrupted", kill_once)):
        job = Job(config, inputs, tmp_path / name, tmp_path / f"{name}.work", progress)
        job.output.mkdir()
        ray.get(ray.remote(fit_policy_parallel).options(num_cpus=0).remote(job))
        outputs.append(job.output)
    assert (tmp_path / "steps").read_text().split() == ["1", "2", "3", "4", "5", "4", "5", "6", "7", "8"]
    straight, interrupted = (load_file(output / "actor.safetensors") for output in outputs)
    assert all(torch.equal(straight[name], interrupted[name]) for name in straight)
    results = [json.loads((output / "evaluation.json").read_text()) for output in outputs]
    assert results[0] == results[1] and results[0]["data_kept"] == 0.75
    curves = pq.read_table(outputs[0] / "curves.parquet")
    evaluated = dict(zip(curves["step"].to_pylist(), curves["evaluation/return_mean"].to_pylist(), strict=True))
    assert [step for step, value in evaluated.items() if value is not None] == [4, 8]
    assert evaluated[8] == results[0]["return_mean"]


def test_streamed_table_with_several_workers_is_refused(
    upstream: tuple[ExperimentConfig, dict[str, Path]], tmp_path: Path
) -> None:
    config, inputs = upstream
    small = config.model_copy(update={"loading": config.loading.model_copy(update={"memory_gib": 1e-6})})
    with pytest.raises(
        ConfigError, match=r"policy\.num_workers: several workers cannot stream a table, and the target"
    ):
        fit_policy_parallel(Job(small, inputs, tmp_path / "output", tmp_path / "work"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["policy.batch_size=33", "policy.num_workers=2"], "2 workers cannot share a batch of 33 equally"),
        (["policy.learner=bc", "policy.num_workers=2"], "policy.num_workers: .*learner=iql would read it"),
    ],
)
def test_settings_that_workers_cannot_share_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises((ConfigError, ValidationError), match=message):
        experiment("iql_mixed", *overrides)


def test_num_workers_renews_only_the_policy() -> None:
    plans = [make_plan(experiment("igdf", f"policy.num_workers={count}")) for count in (1, 2)]
    assert {name for name in plans[0] if plans[0][name].key != plans[1][name].key} == {"policy"}
    assert plans[0]["policy"].key == make_plan(experiment("igdf"))["policy"].key
