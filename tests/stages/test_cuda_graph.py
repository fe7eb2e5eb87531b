"""Recorded update steps. Without a GPU, a recorder that replays torch operators replaces the CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.stages.problems import weights_of
from tests.stages.test_batched_policies import SCALARS, assert_close, learners_of, loops_of
from v2a_ray.stages.policy.batched import BatchedIQL, train_together
from v2a_ray.stages.policy.config import LEARNERS
from v2a_ray.stages.policy.cuda_graph import WARM_UP_STEPS, Metrics, RecordedPolicyBatch, taken_back


class Operators(TorchDispatchMode):
    """Records the operators called within the block, with their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def replay(self) -> None:
        """Repeat the operators on the same memory; a new result is copied to the memory of the recorded result."""
        with torch.no_grad():
            for func, args, kwargs, before in self.calls:
                given = {id(leaf) for leaf in tree_leaves((args, kwargs))}
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(before), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and id(old) not in given and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


def record_operators(policy_batch: BatchedIQL) -> tuple[Callable[[], None], Metrics]:
    """As `record_graph`. On a CPU, recording executes a step, which is undone."""
    with taken_back(policy_batch.learners):
        for _ in range(WARM_UP_STEPS):
            policy_batch.train_step()
    operators = Operators()
    with taken_back(policy_batch.learners), operators:
        metrics = policy_batch.train_step()
    return operators.replay, metrics


def recorded(policy_batch: BatchedIQL) -> RecordedPolicyBatch:
    return RecordedPolicyBatch(policy_batch, record_operators)


def test_replayed_steps_equal_plain_steps() -> None:
    plain, replayed = learners_of(40), learners_of(40)
    histories = []
    for learners, prepared in ((plain, {}), (replayed, {"prepared": recorded})):
        loops = loops_of(len(SCALARS), 40)
        assert train_together(loops, learners, **prepared) == [None] * len(SCALARS)
        histories.append([loop.history for loop in loops])
    for index, (first, second) in enumerate(zip(plain, replayed, strict=True)):
        # A learning rate in a tensor has single precision.
        assert_close(weights_of(first), weights_of(second), 1e-5)
        for row, other in zip(histories[0][index], histories[1][index], strict=True):
            assert row == pytest.approx(other, rel=1e-4, abs=1e-4)
        assert torch.equal(first.generator.get_state(), second.generator.get_state())


def test_recording_trains_nothing() -> None:
    fresh, begun = learners_of(40), learners_of(40)
    for learner in begun:
        for step in range(7):
            learner.update(step)
    for learners in (fresh, begun):
        before = [weights_of(learner) for learner in learners]
        generators = [learner.generator.get_state() for learner in learners]
        counts = [
            [float(state["step"]) for optimizer in learner.optimizers.values() for state in optimizer.state.values()]
            for learner in learners
        ]
        recorded(BatchedIQL(learners))
        for learner, weights, generator, count in zip(learners, before, generators, counts, strict=True):
            assert_close(weights, weights_of(learner), 0.0)
            assert torch.equal(generator, learner.generator.get_state())
            states = [state for optimizer in learner.optimizers.values() for state in optimizer.state.values()]
            assert [float(state["step"]) for state in states] == (count or [0.0] * len(states))


def test_batch_is_recorded_again_without_a_stopped_member() -> None:
    plain, replayed = learners_of(20), learners_of(20)
    stops = [lambda history: False, lambda history: len(history) > 1, *[lambda history: False] * 2]
    for learners, prepared in ((plain, {}), (replayed, {"prepared": recorded})):
        loops = loops_of(len(SCALARS), 20)
        for loop, stop in zip(loops, stops, strict=True):
            loop.stop = stop
        train_together(loops, learners, **prepared)
        assert [loop.history[-1]["step"] for loop in loops] == [20, 10, 20, 20]
    for first, second in zip(plain, replayed, strict=True):
        assert_close(weights_of(first), weights_of(second), 1e-5)


@pytest.mark.parametrize(
    "settings",
    [{"learner": "bc"}, {"num_workers": 2}, {"density_weight": 1.0}, {"next_value": "after_step"}],
    ids=lambda settings: next(iter(settings)),
)
def test_cuda_graph_is_refused_for_unbatched_learners(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cuda_graph"):
        LEARNERS(cuda_graph=True, **settings)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graph_steps_equal_plain_steps() -> None:
    from tests.stages.problems import make_actor, raw
    from tests.stages.test_batched_policies import COLUMNS, HELD_OUT, SOURCE, TARGET, config_of
    from v2a_ray.data.loading.sampler import Transitions
    from v2a_ray.stages.policy.filtering import SourceFilter
    from v2a_ray.stages.policy.iql import IQLLearner
    from v2a_ray.stages.policy.mixed_sampler import MixedSampler

    tables = Transitions(TARGET, raw(2), device="cuda"), Transitions(SOURCE, raw(2), COLUMNS, device="cuda")
    trained = []
    for prepared in ({}, {"prepared": RecordedPolicyBatch}):
        learners = []
        for seed, scalars in enumerate(SCALARS):
            torch.manual_seed(seed)
            config = config_of(scalars, 40)
            source_filter = SourceFilter.prepare(config.filter, COLUMNS["alignment"], HELD_OUT)
            sampler = MixedSampler(*tables, source_filter, config)
            learners.append(IQLLearner(sampler, make_actor(TARGET, 12), config, seed))
        assert train_together(loops_of(len(SCALARS), 40), learners, **prepared) == [None] * len(SCALARS)
        trained.append(learners)
    for first, second in zip(*trained, strict=True):
        assert_close(weights_of(first), weights_of(second), 1e-4)
