"""Trains many IQL policies as one batch: seeds, data and scalar settings become a leading dimension P.

A policy batch consists of ordinary learners and has no state of its own. Their networks are stacked in memory, so that
one batched matrix product per layer computes all of them; each learner's parameters become views of the stack. Each
learner keeps its own generator, filter, optimisers and learning rates. So a member can be saved, restored, evaluated or
trained alone at any step, and equals a separate run up to rounding.

No operation in a step synchronises with the device (`sampler.target.device`) or depends on values, and the settings fix
all shapes. So on a GPU, a step can be recorded and replayed (`cuda_graph`).

Shape suffixes: P policies, B rows of a batch (of the largest one, if the policies keep different numbers), K = 2
critics, X inputs of a network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from v2a_ray.data.loading.sampler import Batch
from v2a_ray.engine.trainer import TrainingLoop
from v2a_ray.errors import DivergenceError
from v2a_ray.networks import EnsembleMLP, perceptrons
from v2a_ray.stages.policy.iql import IQLConstants, IQLLearner, IQLLosses


class SideBySide:
    """P networks of equal shape with K members each, in one tensor; maps (P, B, X) to (K, P, B, Y).

    The networks' parameters become views of the tensor, so their optimisers update it.
    """

    def __init__(self, networks: Sequence[EnsembleMLP]) -> None:
        self.parameters = [network.numbers_KS for network in networks]
        self.widths = networks[0].widths
        self.numbers_PKS = torch.stack([parameter.detach() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, self.numbers_PKS.unbind(), strict=True):
            parameter.data = part
        self.numbers_PKS.requires_grad_(self.parameters[0].requires_grad)

    def __call__(self, inputs_PBX: Tensor) -> Tensor:
        policies, members, _ = self.numbers_PKS.shape
        inputs = inputs_PBX.repeat_interleave(members, dim=0)
        outputs = perceptrons(inputs, self.numbers_PKS.flatten(0, 1), self.widths)
        return outputs.view(policies, members, *outputs.shape[1:]).transpose(0, 1)

    def give_gradients(self) -> None:
        """Move the gradient of the stack to the networks' parameters."""
        assert self.numbers_PKS.grad is not None
        for parameter, gradient in zip(self.parameters, self.numbers_PKS.grad.unbind(), strict=True):
            parameter.grad = gradient
        self.numbers_PKS.grad = None


class BatchedIQL(IQLLosses):
    """P `IQLLearner`s of equal shapes, updated together with the losses of IQL; every loss and metric is (P,).

    Raises ValueError for a learner with other losses: a subclass, or one with a density or with `value_first`.
    """

    critics: SideBySide
    target_critics: SideBySide

    def __init__(self, learners: Sequence[IQLLearner]) -> None:
        if any(type(learner) is not IQLLearner or learner.density or learner.value_first for learner in learners):
            raise ValueError(
                "a policy batch takes only plain IQL: no derived learner, no density, no next_value=after_step"
            )
        self.learners = list(learners)
        device = learners[0].sampler.target.device

        def of_each(value: Callable[[IQLLearner], float]) -> Tensor:
            return torch.tensor([[value(learner)] for learner in learners], device=device)

        self.constants = IQLConstants(
            discount=of_each(lambda learner: learner.config.discount),
            expectile=of_each(lambda learner: learner.config.expectile),
            temperature=of_each(lambda learner: learner.config.temperature),
        )
        self.bodies = SideBySide([learner.actor.body for learner in learners])
        self.values = SideBySide([learner.value for learner in learners])
        self.critics = SideBySide([learner.critics for learner in learners])
        self.target_critics = SideBySide([learner.target_critics for learner in learners])
        sizes = of_each(lambda learner: learner.sampler.num_rows)
        rows = torch.arange(int(sizes.max()), device=device)
        self.share_PB = torch.where(rows < sizes, 1 / sizes, 0.0)
        """Weight of a row in a policy's mean; 0 for padding rows of a smaller batch."""

    def actor(self, observation_PBO: Tensor) -> Tensor:
        """See `TanhActor`."""
        return torch.tanh(self.bodies(observation_PBO)[0])

    def value(self, observation_PBO: Tensor) -> Tensor:
        """(P, B, O) to (P, B, 1)."""
        value_PB1: Tensor = self.values(observation_PBO)[0]
        return value_PB1

    def mean(self, values_B: Tensor) -> Tensor:
        """(..., P, B) to (..., P): the mean over each policy's own rows."""
        return (self.share_PB * values_B).sum(dim=-1)

    def update(self, step: int) -> list[dict[str, Tensor]]:
        """One update step of every policy; returns the metrics of each."""
        self.set_rates(step)
        return self.train_step()

    def set_rates(self, step: int) -> None:
        """Set the learning rates for an update step."""
        for learner in self.learners:
            learner.set_rates(step)

    def train_step(self) -> list[dict[str, Tensor]]:
        """One update step at the current learning rates; never synchronises and does not depend on the step number."""
        batch, weight_PB = self.sample()
        critic_losses, metrics, advantage_PB = self.critic_losses(batch, weight_PB)
        actor_losses, actor_metrics = self.actor_loss(batch, advantage_PB)
        # Policies share no parameters, so the gradient of the sum is the gradient of each policy's loss.
        (critic_losses + actor_losses).sum().backward()  # type: ignore[no-untyped-call]
        for networks in (self.bodies, self.values, self.critics):
            networks.give_gradients()
        for learner in self.learners:
            learner.descend()
        metrics |= actor_metrics
        return [
            dict(zip(metrics, values, strict=True))
            for values in zip(*(metric.unbind() for metric in metrics.values()), strict=True)
        ]

    def sample(self) -> tuple[Batch, Tensor]:
        """A batch of every policy, padded to the largest, (P, B, ...), and TD weights (P, B)."""
        drawn = [learner.sampler.sample(learner.generator) for learner in self.learners]

        def stack(tensors: list[Tensor]) -> Tensor:
            return nn.utils.rnn.pad_sequence(tensors, batch_first=True)

        names = ("observation_BO", "action_BA", "next_observation_BO", "reward_B", "not_done_B")
        fields = {name: stack([getattr(batch, name) for batch, _ in drawn]) for name in names}
        return Batch(**fields, extra={}), stack([weight_B for _, weight_B in drawn])


class PolicyBatch(Protocol):
    """Trains several policies at once: `BatchedIQL`, or `RecordedPolicyBatch`."""

    def update(self, step: int) -> list[dict[str, Tensor]]:
        """One update step of every policy; returns the metrics of each."""
        ...


def as_it_is(policy_batch: BatchedIQL) -> PolicyBatch:
    """The policy batch itself, without recording."""
    return policy_batch


def train_together(
    loops: Sequence[TrainingLoop],
    learners: Sequence[IQLLearner],
    prepared: Callable[[BatchedIQL], PolicyBatch] = as_it_is,
) -> list[DivergenceError | None]:
    """Train P learners as one batch. Each keeps its own loop, with its history, checkpoints and evaluations.

    After a kill between two members' checkpoints, members resume at different steps; those ahead wait. A member that
    diverges, or whose loop stops, leaves the batch, and the others continue. All loops have equal `num_steps`. Whenever
    the members change, `prepared` prepares the new batch.

    Returns:
        The error of each member, None if it finished.
    """
    errors: list[DivergenceError | None] = [None] * len(loops)
    starts = [loop.restore(learner) for loop, learner in zip(loops, learners, strict=True)]
    left = [loop.stop(loop.history) for loop in loops]
    members: list[int] = []
    for step in range(min(starts), loops[0].num_steps):
        running = [index for index, start in enumerate(starts) if start <= step and not left[index]]
        if not running:
            continue
        if running != members:
            members, policy_batch = running, prepared(BatchedIQL([learners[index] for index in running]))
        for index, metrics in zip(running, policy_batch.update(step), strict=True):
            try:
                left[index] = loops[index].after_update(learners[index], step + 1, metrics)
            except DivergenceError as error:
                errors[index], left[index] = error, True
    return errors
