"""A policy batch equals the separate runs of its members: same numbers, same checkpoints, independent members."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.stages.problems import assert_same_weights, linear_system, make_actor, raw, weights_of
from v2a_ray.data.loading.sampler import Transitions
from v2a_ray.engine.trainer import History, TrainingLoop
from v2a_ray.errors import DivergenceError
from v2a_ray.stages.policy.batched import BatchedIQL, train_together
from v2a_ray.stages.policy.config import FILTERS, LEARNERS, FilterConfig
from v2a_ray.stages.policy.droco import DROCOLearner
from v2a_ray.stages.policy.filtering import SourceFilter
from v2a_ray.stages.policy.grouped import GroupedLearner
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.support.conditional_vae import BehaviorDensity, ConditionalVAE

SOURCE = linear_system([40, 60, 50], 1.0, seed=0)
TARGET = linear_system([50, 40], 0.5, seed=1)
RANDOM = np.random.default_rng(0)
COLUMNS = {name: RANDOM.normal(size=SOURCE.num_transitions).astype(np.float32) for name in ("alignment", "advantage")}
HELD_OUT = RANDOM.normal(size=50).astype(np.float32)
TABLES = Transitions(TARGET, raw(2)), Transitions(SOURCE, raw(2), COLUMNS)
SCALARS: list[dict[str, Any]] = [
    {"learning_rate": 3e-3},
    {"learning_rate": 1e-3, "expectile": 0.9, "keep_fraction": 0.25},
    {"learning_rate": 2e-3, "temperature": 1.0, "alignment_weight": 0.1},
    {"learning_rate": 3e-3, "discount": 0.9, "keep_fraction": 0.8, "target_rate": 0.05},
]
"""Settings in which the members differ, besides the seed."""


def config_of(scalars: dict[str, Any], num_steps: int = 100, **more: Any) -> Any:
    rule = {name: scalars[name] for name in scalars.keys() & FilterConfig.model_fields.keys()}
    policy = {name: scalars[name] for name in scalars.keys() - rule.keys()}
    chosen = more.pop("filter", {"rule": "top_fraction", "weight": "exp_alignment"})
    return LEARNERS(num_steps=num_steps, batch_size=16, width=12, filter=FILTERS(**chosen, **rule), **policy, **more)


def learner_of(config: Any, seed: int) -> IQLLearner:
    """The learner as a separate process makes it."""
    torch.manual_seed(seed)
    source_filter = SourceFilter.prepare(config.filter, COLUMNS["alignment"], HELD_OUT)
    return IQLLearner(MixedSampler(*TABLES, source_filter, config), make_actor(TARGET, 12), config, seed)


def learners_of(num_steps: int = 100, scalars: Sequence[dict[str, Any]] = SCALARS, **more: Any) -> list[IQLLearner]:
    return [learner_of(config_of(each, num_steps, **more), seed) for seed, each in enumerate(scalars)]


def loops_of(count: int, num_steps: int, folder: Path | None = None, **more: Any) -> list[TrainingLoop]:
    return [
        TrainingLoop(
            num_steps,
            folder / f"{index}.safetensors" if folder else None,
            checkpoint_interval_steps=10,
            log_interval_steps=5,
            **more,
        )
        for index in range(count)
    ]


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name, values in first.items():
        torch.testing.assert_close(values, second[name], rtol=tolerance, atol=tolerance, msg=name)


RULES: list[dict[str, Any]] = [
    {"rule": "none"},
    {"rule": "top_fraction", "weight": "exp_alignment"},
    {"rule": "top_fraction", "weight": "score"},
    {"rule": "calibrated"},
]


@pytest.mark.parametrize(
    ("rule", "data", "num_steps"),
    [(RULES[1], "mixed", 100), *((rule, data, 50) for rule in RULES for data in ("mixed", "target", "source"))],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else str(value),
)
def test_policy_batch_equals_separate_runs(rule: dict[str, Any], data: str, num_steps: int) -> None:
    alone, packed = (learners_of(num_steps, filter=rule, data=data) for _ in range(2))
    untrained = [weights_of(learner) for learner in packed]
    apart, together = loops_of(len(alone), num_steps), loops_of(len(packed), num_steps)
    for loop, learner in zip(apart, alone, strict=True):
        loop.run(learner)
    assert train_together(together, packed) == [None] * len(packed)
    for index, learner in enumerate(packed):
        assert_close(weights_of(alone[index]), weights_of(learner), 1e-4)
        for row, other in zip(apart[index].history, together[index].history, strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-4)
        moved = weights_of(learner)["actor.body.0.weight"] - untrained[index]["actor.body.0.weight"]
        assert moved.abs().max() > 0.01  # a hundred times the tolerance of the comparison


def test_losses_and_metrics_of_two_policies_by_hand() -> None:
    policy_batch = BatchedIQL(
        learners_of(scalars=[{"expectile": 0.7, "temperature": 1.0}, {"expectile": 0.9, "temperature": 0.0}])
    )
    policy_batch.share_PB = torch.tensor([[0.5, 0.5], [1.0, 0.0]])  # the second policy has one row and one padding row
    q, value = torch.tensor([[3.0, 0.0], [3.0, 50.0]]), torch.tensor([[1.0, 1.0], [1.0, -50.0]])
    loss, metrics = policy_batch.value_loss(q, value)
    # (0.7 * 2^2 + 0.3 * 1^2) / 2 and 0.9 * 2^2
    torch.testing.assert_close(loss, torch.tensor([1.55, 3.6]))
    torch.testing.assert_close(metrics["policy/value"], torch.tensor([1.0, 1.0]))
    batch, _ = policy_batch.sample()
    narrow = type(batch)(
        **{name: getattr(batch, name)[:, :2] for name in ("observation_BO", "action_BA", "next_observation_BO")},
        reward_B=batch.reward_B[:, :2],
        not_done_B=batch.not_done_B[:, :2],
        extra={},
    )
    _, metrics = policy_batch.actor_loss(narrow, torch.tensor([[0.0, 9.0], [5.0, 7.0]]))
    # (exp(0) + 100) / 2, because exp(9) is clamped; temperature 0 gives every row weight 1
    torch.testing.assert_close(metrics["policy/advantage_weight"], torch.tensor([50.5, 1.0]))


@pytest.mark.parametrize("others", [[0.25], [0.8], [1.0, 0.05]])
def test_padding_rows_of_a_smaller_batch_change_nothing(others: list[float]) -> None:
    scalars = [{"keep_fraction": fraction, "learning_rate": 3e-3} for fraction in (0.5, *others)]
    padded, plain = learners_of(scalars=scalars), learners_of(scalars=scalars[:1])
    assert len({learner.sampler.num_rows for learner in padded}) == len(scalars)
    policy_batch, alone = BatchedIQL(padded), BatchedIQL(plain)
    for step in range(5):
        metrics, expected = policy_batch.update(step)[0], alone.update(step)[0]
        assert_close(metrics, expected, 1e-6)
    assert_close(weights_of(padded[0]), weights_of(plain[0]), 1e-6)


def test_member_can_leave_the_batch_and_continue_alone() -> None:
    alone, packed = learners_of()[1], learners_of()
    policy_batch = BatchedIQL(packed)
    for step in range(20):
        alone.update(step)
        policy_batch.update(step) if step < 10 else packed[1].update(step)
    assert_close(weights_of(alone), weights_of(packed[1]), 1e-5)


def test_equal_seeds_give_equal_policy_batches() -> None:
    policy_batches = [learners_of(20) for _ in range(2)]
    histories = []
    for learners in policy_batches:
        loops = loops_of(len(learners), 20)
        train_together(loops, learners)
        histories.append([loop.history for loop in loops])
    assert histories[0] == histories[1]
    for first, second in zip(*policy_batches, strict=True):
        assert_same_weights(weights_of(first), weights_of(second))
    loop = TrainingLoop(20, log_interval_steps=5)
    loop.run(learners_of(20)[0])
    assert [row.keys() for row in histories[0][0]] == [row.keys() for row in loop.history]


def stop_at(limit: int) -> Any:
    def progress(step: int, num_steps: int, metrics: dict[str, float]) -> None:
        if step == limit:
            raise KeyboardInterrupt

    return progress


def test_resumed_policy_batch_is_bit_identical_to_an_uninterrupted_one(tmp_path: Path) -> None:
    straight = learners_of(30)
    expected = loops_of(len(straight), 30)
    train_together(expected, straight)
    with pytest.raises(KeyboardInterrupt):
        train_together(loops_of(len(SCALARS), 30, tmp_path, progress=stop_at(25)), learners_of(30))
    for path in tmp_path.glob("*.safetensors"):
        path.with_suffix(".tmp").write_bytes(path.read_bytes()[:100])  # a kill while writing leaves such a file
    # The next process starts from other weights; everything comes from the checkpoints.
    resumed = [learner_of(config_of(each, 30), seed=99) for each in SCALARS]
    resumed_from: list[int] = []
    loops = loops_of(len(SCALARS), 30, tmp_path)
    for loop in loops:
        loop.progress = lambda step, _, metrics: resumed_from.append(step) if "resumed" in metrics else None
    train_together(loops, resumed)
    assert resumed_from == [20] * len(SCALARS)
    for first, second, loop, straight_loop in zip(straight, resumed, loops, expected, strict=True):
        assert_same_weights(weights_of(first), weights_of(second))
        assert loop.history == straight_loop.history


def test_kill_between_two_checkpoints_loses_one_interval_of_some_members(tmp_path: Path) -> None:
    straight = learners_of(30)
    train_together(loops_of(len(straight), 30), straight)
    # Members 0 and 1 were saved at step 20, the others at step 10.
    for stop, first in ((25, 0), (15, 2)):
        folder = tmp_path / str(stop)
        with pytest.raises(KeyboardInterrupt):
            train_together(loops_of(len(SCALARS), 30, folder, progress=stop_at(stop)), learners_of(30))
        for index in (first, first + 1):
            (folder / f"{index}.safetensors").rename(tmp_path / f"{index}.safetensors")
    resumed, loops = learners_of(30), loops_of(len(SCALARS), 30, tmp_path)
    train_together(loops, resumed)
    for first_learner, second, loop in zip(straight, resumed, loops, strict=True):
        assert_close(weights_of(first_learner), weights_of(second), 1e-5)
        assert [row["step"] for row in loop.history] == [5, 10, 15, 20, 25, 30]


def test_checkpoint_of_a_batch_member_resumes_a_separate_run(tmp_path: Path) -> None:
    straight = learners_of(30)
    for loop, learner in zip(loops_of(len(straight), 30), straight, strict=True):
        loop.run(learner)
    with pytest.raises(KeyboardInterrupt):
        train_together(loops_of(len(SCALARS), 30, tmp_path, progress=stop_at(25)), learners_of(30))
    resumed = learners_of(30)[2]
    loops_of(len(SCALARS), 30, tmp_path)[2].run(resumed)
    assert_close(weights_of(straight[2]), weights_of(resumed), 1e-5)


@pytest.mark.parametrize("bad", [[1], [0, 3], [0, 1, 2, 3]])
def test_diverging_policy_leaves_the_batch_and_the_others_continue(bad: list[int]) -> None:
    scalars = [each | ({"learning_rate": 1e30} if index in bad else {}) for index, each in enumerate(SCALARS)]
    learners, loops = learners_of(30, scalars), loops_of(len(SCALARS), 30)
    errors = train_together(loops, learners)
    alone = learners_of(30)
    for index, error in enumerate(errors):
        if index in bad:
            assert isinstance(error, DivergenceError) and "update step 5" in str(error)
        else:
            assert error is None and loops[index].history[-1]["step"] == 30
            TrainingLoop(30).run(alone[index])
            assert_close(weights_of(alone[index]), weights_of(learners[index]), 1e-5)


def test_stopped_policy_leaves_the_batch(tmp_path: Path) -> None:
    def after_15(history: History) -> bool:
        return bool(history) and history[-1]["step"] >= 15

    learners, loops = learners_of(30), loops_of(len(SCALARS), 30, tmp_path)
    loops[1].stop = after_15
    assert train_together(loops, learners) == [None] * len(SCALARS)
    assert [loop.history[-1]["step"] for loop in loops] == [30, 15, 30, 30]
    alone = learners_of(30)
    for index, learner in enumerate(learners):
        TrainingLoop(30, log_interval_steps=5, stop=loops[index].stop).run(alone[index])
        assert_close(weights_of(alone[index]), weights_of(learner), 1e-5)
    # A stopped member does not train after a resume: its checkpoint is from step 10, where it now stops.
    resumed, again = learners_of(30), loops_of(len(SCALARS), 30, tmp_path)
    again[1].stop = lambda history: len(history) >= 2
    train_together(again, resumed)
    assert [loop.history[-1]["step"] for loop in again] == [30, 10, 30, 30]


def derived(kind: str) -> IQLLearner:
    """A learner with other losses or steps than plain IQL."""
    plain, config = learners_of()[0], config_of({})
    arguments = plain.sampler, make_actor(TARGET, 12), config, 0
    if kind == "density":
        return IQLLearner(*arguments, BehaviorDensity(ConditionalVAE(1, 2, 1, 2, 6), num_samples=3))
    return DROCOLearner(*arguments, None) if kind == "droco" else GroupedLearner(*arguments)


@pytest.mark.parametrize("kind", ["density", "droco", "grouped"])
def test_policy_batch_refuses_learners_other_than_plain_iql(kind: str) -> None:
    with pytest.raises(ValueError, match="a policy batch takes only plain IQL"):
        BatchedIQL([learners_of()[0], derived(kind)])
