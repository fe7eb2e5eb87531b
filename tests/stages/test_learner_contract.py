"""Properties of every learner: reproducible, resumable bit for bit, finite metrics named `group/name`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch

import v2a_ray.stages.registered  # noqa: F401 - fills STAGES
from benchmarks.harm import HARMS, flip
from tests.stages.problems import assert_same_weights, linear_system, make_actor, mixed_sampler, raw, weights_of
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.engine.stage import STAGES
from v2a_ray.engine.trainer import Learner, TrainingLoop
from v2a_ray.errors import DivergenceError
from v2a_ray.stages.advantage.config import ADVANTAGES
from v2a_ray.stages.advantage.learner import AdvantageLearner
from v2a_ray.stages.alignment.classifier import ClassifierLearner
from v2a_ray.stages.alignment.config import ALIGNMENTS
from v2a_ray.stages.alignment.contrastive import ContrastiveLearner
from v2a_ray.stages.alignment.dynamics_density import DynamicsDensityLearner
from v2a_ray.stages.alignment.residual import ResidualLearner
from v2a_ray.stages.alignment.state_ratio import StateRatioLearner
from v2a_ray.stages.modality.config import ModalityConfig
from v2a_ray.stages.modality.learner import ModalityLearner
from v2a_ray.stages.modality.model import ModalityModel, moments
from v2a_ray.stages.policy.batched import BatchedIQL
from v2a_ray.stages.policy.config import FILTERS, LEARNERS
from v2a_ray.stages.policy.inputs import LearnerInputs, make_learner
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.support.conditional_vae import (
    BehaviorDensity,
    ConditionalVAE,
    DensityLearner,
    behavior_split,
)
from v2a_ray.stages.support.config import CorrectionConfig, DensityConfig, DynamicsConfig
from v2a_ray.stages.support.correction import CorrectionLearner
from v2a_ray.stages.support.dynamics import DynamicsLearner, DynamicsModel

NUM_STEPS = 20
SOURCE = linear_system([9, 6, 12, 5], 1.0, seed=0)
TARGET = linear_system([8, 7], 0.5, seed=1)
FILTER = FILTERS(rule="top_fraction", weight="exp_alignment")


def policy(kind: str, seed: int, extra: dict[str, Any] | None = None, **settings: Any) -> Learner:
    """A policy learner with all inputs that any learner may read."""
    given = {"num_steps": NUM_STEPS, "batch_size": 8, "width": 6, "filter": FILTER.model_dump()}
    config = LEARNERS(learner=kind, **given | settings)
    generator = np.random.default_rng(0)
    columns = {name: generator.normal(size=SOURCE.num_transitions) for name in ("alignment", "advantage")}
    columns["next_action"] = generator.uniform(-1, 1, (SOURCE.num_transitions, 1))
    of_target = {"next_action": generator.uniform(-1, 1, (TARGET.num_transitions, 1))}
    reads_density = "density" in config.reads()
    density = BehaviorDensity(ConditionalVAE(1, 2, 1, 2, 6), num_samples=3) if reads_density else None
    return make_learner(
        LearnerInputs(
            mixed_sampler(TARGET, SOURCE, config, columns | (extra or {}), of_target),
            make_actor(TARGET, 6),
            config,
            seed,
            density,
            DynamicsModel(3, 2, 1, 6),
        )
    )


class BatchMember:
    """The first of two policies trained as a batch; the other one restarts when this one is resumed."""

    def __init__(self, first: IQLLearner, other: IQLLearner) -> None:
        self.policy_batch = BatchedIQL([first, other])
        self.networks, self.optimizers, self.generator = first.networks, first.optimizers, first.generator

    def update(self, step: int) -> dict[str, torch.Tensor]:
        return self.policy_batch.update(step)[0]


def batch_member(seed: int) -> Learner:
    first, other = policy("iql", seed), policy("iql", seed + 1)
    assert isinstance(first, IQLLearner) and isinstance(other, IQLLearner)
    return BatchMember(first, other)


def density(seed: int) -> Learner:
    config = DensityConfig(num_steps=NUM_STEPS, batch_size=8)
    samplers = [Transitions(table, raw(2)) for table in (TARGET, SOURCE)]
    return DensityLearner(ConditionalVAE(1, 2, 1, 2, 6), behavior_split, samplers, config, seed)


def dynamics_density(seed: int) -> Learner:
    config = ALIGNMENTS(
        kind="dynamics_density", num_steps=NUM_STEPS, batch_size=8, width=6, num_members=3, density_latent_dim=2
    )
    target = Transitions(TARGET, raw(2))
    return DynamicsDensityLearner(target, [target], config, seed)


def advantage(seed: int) -> Learner:
    latent = np.random.default_rng(0).normal(size=(SOURCE.num_transitions, 3)).astype(np.float32)
    config = ADVANTAGES(kind="sparse_q", num_steps=NUM_STEPS, batch_size=8, width=6)
    return AdvantageLearner(Transitions(SOURCE, raw(2), {"z": latent}), 3, config, seed)


def expectile_advantage(seed: int) -> Learner:
    config = ADVANTAGES(kind="iql", num_steps=NUM_STEPS, batch_size=8, width=6)
    return AdvantageLearner(Transitions(SOURCE, raw(2)), 0, config, seed)


def classifier(seed: int) -> Learner:
    config = ALIGNMENTS(kind="classifier", num_steps=NUM_STEPS, batch_size=8, width=6)
    return ClassifierLearner(Transitions(TARGET, raw(2)), Transitions(SOURCE, raw(2)), config, seed)


def state_ratio(seed: int) -> Learner:
    config = ALIGNMENTS(kind="state_ratio", num_steps=NUM_STEPS, batch_size=8, width=6)
    return StateRatioLearner(Transitions(TARGET, raw(2)), Transitions(SOURCE, raw(2)), config, seed)


def contrastive(seed: int) -> Learner:
    config = ALIGNMENTS(kind="contrastive", num_steps=NUM_STEPS, batch_size=8, width=6, embedding_dim=4)
    return ContrastiveLearner(Transitions(TARGET, raw(2)), Transitions(SOURCE, raw(2)), config, seed)


def residual(seed: int) -> Learner:
    config = ALIGNMENTS(kind="residual", num_steps=NUM_STEPS, batch_size=8, width=6, num_members=3)
    return ResidualLearner(Transitions(TARGET, raw(2)), config, seed)


def dynamics(seed: int) -> Learner:
    config = DynamicsConfig(num_steps=NUM_STEPS, batch_size=8, width=6, num_members=3)
    return DynamicsLearner(Transitions(TARGET, raw(2)), config, seed)


def correction(seed: int) -> Learner:
    config = CorrectionConfig(num_steps=NUM_STEPS, batch_size=8, width=6)
    return CorrectionLearner(Transitions(TARGET, raw(2)), DynamicsModel(3, 2, 1, 6), config, seed)


def corrected_policy(seed: int) -> Learner:
    generator, size = np.random.default_rng(0), SOURCE.num_transitions
    columns: dict[str, Any] = {
        "corrected_action": generator.uniform(-1, 1, (size, 1)),
        "corrected_reward": generator.normal(size=size),
    }
    columns["correction_kept"] = generator.integers(0, 2, size)
    return policy("iql", seed, columns, correct_transitions=True)


def modality(seed: int, **settings: Any) -> ModalityLearner:
    tiny = {"batch_size": 4, "crop_steps": 6, "latent_dim": 3, "encoder_width": 6, "decoder_width": 6}
    form = {"encoder": "gru", "optimization": "em", "patience_evaluations": None}
    config = ModalityConfig.model_validate({"num_steps": NUM_STEPS, **tiny, **form, **settings})
    model = ModalityModel(2, 1, config)
    model.set_statistics(moments(SOURCE))
    return ModalityLearner(SOURCE, model, config, seed)


MADE: dict[str, Callable[[int], Learner]] = {
    **{kind: partial(policy, kind) for kind in LEARNERS if not getattr(LEARNERS[kind], "uses_rllib", False)},
    "iql-in-a-batch": batch_member,
    "iql-in-support": lambda seed: policy("iql", seed, density_weight=0.1),
    "density": density,
    "dynamics_density": dynamics_density,
    "advantage": advantage,
    "advantage-iql": expectile_advantage,
    "classifier": classifier,
    "state_ratio": state_ratio,
    "contrastive": contrastive,
    "residual": residual,
    "modality-em": lambda seed: modality(seed, optimization="em"),
    "modality-joint": lambda seed: modality(seed, optimization="joint"),
    "modality-pooled": lambda seed: modality(seed, encoder="pooled"),
    "modality-held-out": lambda seed: modality(seed, patience_evaluations=3),
    "dynamics": dynamics,
    "correction": correction,
    "iql-corrected": corrected_policy,
}
every_learner = pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())


def fresh(make: Callable[[int], Learner], seed: int = 5) -> Learner:
    """The learner as a new process makes it."""
    torch.manual_seed(seed)
    return make(seed)


def loop(checkpoint: Path | None = None, **more: Any) -> TrainingLoop:
    return TrainingLoop(NUM_STEPS, checkpoint, checkpoint_interval_steps=10, log_interval_steps=5, **more)


def stop_at_15(step: int, num_steps: int, metrics: dict[str, float]) -> None:
    if step == 15:
        raise KeyboardInterrupt


@every_learner
def test_equal_seeds_give_equal_weights_and_different_seeds_do_not(make: Callable[[int], Learner]) -> None:
    first, second, other = fresh(make), fresh(make), fresh(make, seed=6)
    untrained = weights_of(first)
    for learner in (first, second, other):
        loop().run(learner)
    assert_same_weights(weights_of(first), weights_of(second))
    trained, different = weights_of(first), weights_of(other)
    names = [name for name in trained if not name.endswith(("_mean_O", "_std_O"))]  # statistics are not trained
    assert all(not torch.equal(trained[name], untrained[name]) for name in names)
    assert any(not torch.equal(trained[name], different[name]) for name in names)


@every_learner
def test_resumed_run_is_bit_identical_to_an_uninterrupted_one(make: Callable[[int], Learner], tmp_path: Path) -> None:
    straight = fresh(make)
    history = loop().run(straight)
    checkpoint = tmp_path / "work" / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        loop(checkpoint, progress=stop_at_15).run(fresh(make))
    # The next process starts from other weights; everything comes from the checkpoint.
    resumed = fresh(make, seed=5)
    for network in resumed.networks.values():
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.zero_()
    reports: list[tuple[int, dict[str, float]]] = []
    resumed_history = loop(checkpoint, progress=lambda step, _, metrics: reports.append((step, metrics))).run(resumed)
    assert_same_weights(weights_of(straight), weights_of(resumed))
    assert resumed_history == history
    assert reports[0] == (10, {"resumed": 1.0})
    assert [step for step, _ in reports[1:]] == [15, 20]


@every_learner
def test_half_written_checkpoint_is_ignored(make: Callable[[int], Learner], tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    straight = fresh(make)
    loop().run(straight)
    with pytest.raises(KeyboardInterrupt):
        loop(checkpoint, progress=stop_at_15).run(fresh(make))
    whole = checkpoint.read_bytes()
    for leftover in {path.name for path in tmp_path.iterdir()} - {checkpoint.name}:
        pytest.fail(f"{leftover} was left behind")
    checkpoint.with_suffix(".tmp").write_bytes(whole[: len(whole) // 2])
    resumed = fresh(make)
    TrainingLoop(NUM_STEPS, checkpoint, checkpoint_interval_steps=3, log_interval_steps=5).run(resumed)
    assert_same_weights(weights_of(straight), weights_of(resumed))
    assert checkpoint.read_bytes() != whole  # overwritten at steps 12, 15 and 18


def flip_at(place: float) -> Callable[[Path], None]:
    return lambda file: flip(file, place)


DAMAGES = {**HARMS, "header flipped": flip_at(0.02), "first byte flipped": flip_at(0.0), "body flipped": flip_at(0.9)}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_restarts_training(damage: str, tmp_path: Path) -> None:
    straight, checkpoint = fresh(MADE["iql"]), tmp_path / "checkpoint.safetensors"
    history = loop().run(straight)
    with pytest.raises(KeyboardInterrupt):
        loop(checkpoint, progress=stop_at_15).run(fresh(MADE["iql"]))
    DAMAGES[damage](checkpoint)
    reports: list[dict[str, float]] = []
    again = fresh(MADE["iql"])
    assert loop(checkpoint, progress=lambda step, _, metrics: reports.append(metrics)).run(again) == history
    assert_same_weights(weights_of(straight), weights_of(again))
    assert ("discarded" in reports[0]) == (damage != "removed") and not any("resumed" in each for each in reports)


def test_checkpoint_of_other_networks_restarts_training(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        loop(checkpoint, progress=stop_at_15).run(fresh(MADE["bc"]))
    straight, again = fresh(MADE["iql"]), fresh(MADE["iql"])
    assert loop(checkpoint).run(again) == loop().run(straight)
    assert_same_weights(weights_of(straight), weights_of(again))


@every_learner
def test_metrics_are_finite_and_have_group_prefixes(make: Callable[[int], Learner]) -> None:
    history = loop().run(fresh(make))
    assert [row["step"] for row in history] == [5, 10, 15, 20]
    groups = set()
    for row in history:
        names = row.keys() - {"step"}
        assert names and names == history[0].keys() - {"step"}
        for name in names:
            assert re.fullmatch(r"[a-z]+/[a-z_]+", name), name
            assert math.isfinite(row[name]), name
            groups.add(name.split("/")[0])
    assert len(groups) == 1 and groups <= {*STAGES}


def test_worker_without_saves_restores_checkpoints(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        loop(checkpoint, saves=False, progress=stop_at_15).run(fresh(MADE["bc"]))
    assert not checkpoint.exists()
    with pytest.raises(KeyboardInterrupt):
        loop(checkpoint, progress=stop_at_15).run(fresh(MADE["bc"]))
    saved = checkpoint.read_bytes()
    resumed = fresh(MADE["bc"])
    assert [row["step"] for row in loop(checkpoint, saves=False).run(resumed)] == [5, 10, 15, 20]
    assert checkpoint.read_bytes() == saved


def test_non_finite_metric_stops_training(tmp_path: Path) -> None:
    target = TARGET.replace(reward=np.full_like(TARGET.reward, np.nan))
    config = LEARNERS(num_steps=NUM_STEPS, batch_size=8, width=6)
    learner = IQLLearner(mixed_sampler(target, SOURCE, config), make_actor(target, 6), config, 0)
    with pytest.raises(DivergenceError, match=r"update step 5: .*policy/critic_loss.* is not finite"):
        loop(tmp_path / "checkpoint.safetensors").run(learner)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_non_finite_weights_are_never_saved(tmp_path: Path) -> None:
    target = TARGET.replace(reward=np.full_like(TARGET.reward, np.nan))
    config = LEARNERS(num_steps=NUM_STEPS, batch_size=8, width=6)
    learner = IQLLearner(mixed_sampler(target, SOURCE, config), make_actor(target, 6), config, 0)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(DivergenceError):  # although metrics are recorded less often than checkpoints
        TrainingLoop(NUM_STEPS, checkpoint, checkpoint_interval_steps=2, log_interval_steps=20).run(learner)
    assert not checkpoint.exists()


def test_evaluation_is_recorded_at_its_interval_and_at_the_end() -> None:
    rows = loop(evaluate=lambda: {"evaluation/score": 1.0}, evaluation_interval_steps=8).run(fresh(MADE["bc"]))
    assert [row["step"] for row in rows] == [5, 8, 10, 15, 16, 20]
    assert [row["step"] for row in rows if "evaluation/score" in row] == [8, 16, 20]
    rows = loop(evaluate=lambda: {"evaluation/score": 1.0}).run(fresh(MADE["bc"]))
    assert [row["step"] for row in rows if "evaluation/score" in row] == [20]
    with pytest.raises(DivergenceError, match="evaluation/score"):
        loop(evaluate=lambda: {"evaluation/score": math.nan}).run(fresh(MADE["bc"]))


def never_good_enough(seed: int, encoder: str) -> ModalityLearner:
    """Evaluated every 4 steps; no evaluation is 90 % below the first, so training stops at the third, at step 12."""
    stopping = {"patience_evaluations": 2, "min_improvement": 0.9, "validation_interval_steps": 4}
    return modality(seed, encoder=encoder, **stopping)


@pytest.mark.parametrize("encoder", ["gru", "pooled"])
@pytest.mark.parametrize("checkpoint_interval_steps", [3, 5])
@pytest.mark.parametrize("killed_at", [4, 10, 12])
def test_run_killed_near_its_early_stop_resumes_bit_identically(
    killed_at: int, checkpoint_interval_steps: int, encoder: str, tmp_path: Path
) -> None:
    def run(checkpoint: Path | None, killed_at: int | None = None) -> tuple[Learner, list[dict[str, Any]]]:
        def progress(step: int, num_steps: int, metrics: dict[str, float]) -> None:
            if step == killed_at:
                raise KeyboardInterrupt

        torch.manual_seed(5)
        learner = never_good_enough(5, encoder)
        training = TrainingLoop(
            NUM_STEPS,
            checkpoint,
            checkpoint_interval_steps=checkpoint_interval_steps,
            log_interval_steps=5,
            progress=progress,
            **learner.stopping(),
        )
        return learner, training.run(learner)

    straight, history = run(None)
    assert [row["step"] for row in history] == [4, 5, 8, 10, 12]
    assert [row["step"] for row in history if "modality/validation_loss" in row] == [4, 8, 12]
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, killed_at)
    for _ in range(2):  # the second run finds a checkpoint at or shortly before the stop
        resumed, resumed_history = run(checkpoint)
        assert_same_weights(weights_of(straight), weights_of(resumed))
        assert resumed_history == history


def test_stopped_run_does_not_continue_from_its_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    updates: list[int] = []

    def run() -> None:
        learner = fresh(MADE["bc"])
        with patch.object(learner, "update", wraps=learner.update) as update:
            loop(checkpoint, stop=lambda history: len(history) == 2).run(learner)
        updates.extend(call.args[0] for call in update.call_args_list)

    run()
    run()
    assert updates == list(range(10))
