"""A policy batch's update step as one CUDA graph, which starts all kernels of a step by one call.

An update step of small networks is hundreds of kernels of a few microseconds; launching them one by one from Python
takes longer than running them. A graph is recorded once and then replays the same operators on the same memory. So all
values that change from step to step must be in memory: learning rates and Adam's step counts are tensors, and every
member's generator is registered with the graph, so that a replay draws the next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from v2a_ray.stages.policy.batched import BatchedIQL
from v2a_ray.stages.policy.iql import IQLLearner

WARM_UP_STEPS = 3
"""Update steps before recording: libraries allocate workspaces in their first calls, which a graph must not do."""
Metrics = list[dict[str, Tensor]]
Recorder = Callable[[BatchedIQL], tuple[Callable[[], None], Metrics]]


def rates_as_tensors(learner: IQLLearner) -> None:
    """Make the optimisers' learning rates tensors, which `set_learning_rate` then updates in place."""
    for optimizer in learner.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=learner.generator.device)
            group["capturable"] = learner.generator.device.type == "cuda"


def record_graph(policy_batch: BatchedIQL) -> tuple[Callable[[], None], Metrics]:
    """Record an update step; return a function that replays it and the metrics tensors that it writes.

    A replay does not set learning rates. Recording trains nothing: the warm-up steps are undone.
    """
    device = policy_batch.learners[0].generator.device
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with taken_back(policy_batch.learners):
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                policy_batch.train_step()
        # Undoing the steps runs on the current stream and must wait for them.
        torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for learner in policy_batch.learners:
        graph.register_generator_state(learner.generator)
    with torch.cuda.graph(graph):
        metrics = policy_batch.train_step()
    return graph.replay, metrics


class RecordedPolicyBatch:
    """A `BatchedIQL` whose update step is recorded by the constructor and replayed by `update`.

    The metrics are in the memory of the graph, so the next step overwrites them.
    """

    def __init__(self, policy_batch: BatchedIQL, recorder: Recorder = record_graph) -> None:
        """Record the update step. Tests without a GPU pass another `recorder`."""
        self.policy_batch = policy_batch
        for learner in policy_batch.learners:
            rates_as_tensors(learner)
        self.replay, self.metrics = recorder(policy_batch)

    def update(self, step: int) -> Metrics:
        """One update step of every policy; returns the metrics of each."""
        self.policy_batch.set_rates(step)
        self.replay()
        return self.metrics


@contextmanager
def taken_back(learners: Sequence[IQLLearner]) -> Iterator[None]:
    """On exit, restore networks, optimisers and generators to their values on entry, in their present memory.

    An optimiser without state on entry has the state of step 0 on exit.
    """
    tensors = [tensor for learner in learners for tensor in _state(learner)]
    before = {id(tensor): tensor.detach().clone() for tensor in tensors}
    generators = [learner.generator.get_state() for learner in learners]
    yield
    tensors += [tensor for learner in learners for tensor in _state(learner) if id(tensor) not in before]
    with torch.no_grad():
        for tensor in tensors:
            if id(tensor) in before:
                tensor.copy_(before[id(tensor)])
            else:
                tensor.zero_()
    for learner, state in zip(learners, generators, strict=True):
        learner.generator.set_state(state)


def _state(learner: IQLLearner) -> list[Tensor]:
    """Weights, and the optimisers' step counts and moments."""
    tensors: list[Tensor] = []
    for network in learner.networks.values():
        tensors.extend(network.parameters())
    for optimizer in learner.optimizers.values():
        for state in optimizer.state.values():
            tensors.extend(state.values())
    return tensors
