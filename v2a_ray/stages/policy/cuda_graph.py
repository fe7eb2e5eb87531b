"""A pack's update step as one CUDA graph: a GPU gets all kernels of a step by one call.

An update step of small networks is hundreds of kernels of a few microseconds, and to start them one by one from Python
takes longer than they do. A graph is recorded once and replayed: the same operators on the same memory. So whatever
changes from step to step lies in memory. Learning rates and Adam's counts are tensors, and every member's generator is
registered with the graph, so that a replay draws the next batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from v2a_ray.stages.policy.batched import BatchedIQL
from v2a_ray.stages.policy.iql import IQLLearner

WARM_UP_STEPS = 3
"""Before recording: in their first calls libraries make workspaces, which a graph must not do."""
Metrics = list[dict[str, Tensor]]
Recorder = Callable[[BatchedIQL], tuple[Callable[[], None], Metrics]]


def rates_as_tensors(learner: IQLLearner) -> None:
    """Let the optimisers read their learning rates from memory, where `set_learning_rate` then writes them."""
    for optimizer in learner.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=learner.generator.device)
            group["capturable"] = learner.generator.device.type == "cuda"


def record_graph(policy_batch: BatchedIQL) -> tuple[Callable[[], None], Metrics]:
    """A function that does one update step, but for the learning rates, and the metrics that it writes.

    Nothing is trained: steps that are taken to warm up are taken back.
    """
    device = policy_batch.learners[0].generator.device
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with taken_back(policy_batch.learners):
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                policy_batch.train_step()
        # What takes the steps back runs on the usual stream, and must not overtake them.
        torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    for learner in policy_batch.learners:
        graph.register_generator_state(learner.generator)
    with torch.cuda.graph(graph):
        metrics = policy_batch.train_step()
    return graph.replay, metrics


class RecordedPolicyBatch:
    """A `ManyIQL` whose update step is recorded when it is made, and replayed by `update`.

    The metrics of a step are in the memory of the graph, so the next step overwrites them.
    """

    def __init__(self, policy_batch: BatchedIQL, recorder: Recorder = record_graph) -> None:
        """Records; `recorder` is `record_graph` but in tests, which have no GPU."""
        self.policy_batch = policy_batch
        for learner in policy_batch.learners:
            rates_as_tensors(learner)
        self.replay, self.metrics = recorder(policy_batch)

    def update(self, step: int) -> Metrics:
        """One update step of every policy; its metrics, policy by policy."""
        self.policy_batch.set_rates(step)
        self.replay()
        return self.metrics


@contextmanager
def taken_back(learners: Sequence[IQLLearner]) -> Iterator[None]:
    """After the block networks, optimisers and generators are what they were before it, in the memory they are in then.

    An optimiser that had not begun has state then, but of no step.
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
    """Weights, and counts and moments of the optimisers."""
    tensors: list[Tensor] = []
    for network in learner.networks.values():
        tensors.extend(network.parameters())
    for optimizer in learner.optimizers.values():
        for state in optimizer.state.values():
            tensors.extend(state.values())
    return tensors
