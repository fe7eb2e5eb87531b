"""One update step of every trained stage, compared with its published computation (`reference/`), on one thread.

Batches and networks have the published sizes on both sides, with Hopper's dimensions. Both sides draw their batches
from the same kind of table within the step. Besides the ratios, it prints the arithmetic of a step, its rate, and two
peaks measured in turn with it: the fastest single-precision matrix product of PyTorch's own operators (the sgemm of its
BLAS), and the fastest product on this processor, which is oneDNN's where our step uses it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import learners
from benchmarks.record import Result, interleaved, record, step_milliseconds
from benchmarks.reference import AdvantageReference, ContrastiveReference, ModalityReference, PolicyReference
from v2a_ray.engine.trainer import Learner
from v2a_ray.networks import product

PEAK_SHARE_TARGET = 0.55
MATRIX_SHAPES = ((1, 256), (1, 512), (1, 1024), (1, 2048), (2, 256), (3, 512))
"""(matrices, rows = columns) of the products whose fastest defines the peak."""


@dataclass(frozen=True)
class Comparison:
    """Our update step and the published one.

    Attributes:
        name: the stage.
        ours, reference: one update step.
        target: how many times faster ours has to be.
        num_steps, num_reference_steps: timed at a time, about half a second.
    """

    name: str
    ours: Callable[[], object]
    reference: Callable[[], object]
    target: float
    num_steps: int
    num_reference_steps: int


def updates(learner: Learner) -> Callable[[], object]:
    """The next update step of a learner, at every call."""
    steps = itertools.count()
    return lambda: learner.update(next(steps))


def modality(optimization: Literal["em", "joint"], target: float) -> Comparison:
    """TC-ELBO on 16 crops of 200 steps; the reference is EM."""
    ours, drawn = learners.modality_learner(optimization), learners.modality_learner("em")
    reference = ModalityReference(drawn)
    return Comparison(
        f"modality {optimization}",
        updates(ours),
        lambda: reference.update(drawn.crops.draw(drawn.num_trajectories, drawn.generator)),
        target,
        3,
        3,
    )


def advantage() -> Comparison:
    """Sparse QL given z on 256 transitions."""
    ours, drawn = learners.advantage_learner(), learners.advantage_learner()
    reference, steps = AdvantageReference(drawn), itertools.count()

    def reference_step() -> object:
        return reference.update(drawn.transitions.sample(drawn.config.batch_size, drawn.generator), next(steps))

    return Comparison("advantage", updates(ours), reference_step, 1.7, 60, 60)


def alignment() -> Comparison:
    """Contrastive alignment on 128 target transitions and 127 of the source."""
    ours, drawn = learners.contrastive_learner(), learners.contrastive_learner()
    reference, size = ContrastiveReference(drawn), drawn.config.batch_size

    def reference_step() -> object:
        positive = drawn.target.sample(size, drawn.generator)
        return reference.update(positive, drawn.source.sample(size - 1, drawn.generator))

    return Comparison("alignment contrastive", updates(ours), reference_step, 40.0, 150, 4)


def policy() -> Comparison:
    """Filtered IQL on 128 + 128 drawn transitions, of which 64 + 128 are trained on."""
    ours, drawn = learners.policy_learner(), learners.policy_learner()
    advantage_learner = learners.advantage_learner()
    reference = PolicyReference(drawn, learners.contrastive_learner(), advantage_learner)
    size, target = drawn.config.batch_size, drawn.sampler.target

    def reference_step() -> object:
        source_batch = advantage_learner.transitions.sample(size, drawn.generator)
        return reference.update(source_batch, target.sample(size, drawn.generator))

    return Comparison("policy", updates(ours), reference_step, 2.2, 60, 60)


def comparisons() -> list[Comparison]:
    """All of them, in the order of the stages."""
    return [modality("em", 1.5), modality("joint", 2.5), advantage(), alignment(), policy()]


def counted_gflop(step: Callable[[], object]) -> float:
    """Matrix products of one step, forward and backward, in 1e9 floating-point operations (a multiply-add is two)."""
    with FlopCounterMode(display=False, custom_mapping={torch.ops.mkldnn._linear_pointwise: linear_flop}) as counter:
        step()
    return float(counter.get_total_flops()) / 1e9


def linear_flop(
    inputs: Sequence[int], weight: Sequence[int], *rest: object, out_shape: object = None, **settings: object
) -> int:
    """Floating-point operations of oneDNN's linear layer, from the shapes (B, X) and (Y, X)."""
    return 2 * inputs[0] * weight[0] * weight[1]


def matrix_products(num_matrices: int, size: int, *, only_torch: bool) -> list[Callable[[], object]]:
    """Ways to multiply square matrices: torch's batched product, and ours if there is one matrix."""
    left, right = torch.randn(2, num_matrices, size, size)
    out = torch.empty_like(left)
    ways: list[Callable[[], object]] = [lambda: torch.bmm(left, right, out=out)]
    if num_matrices == 1 and not only_torch:
        ways.append(lambda: product(left[0], right[0]))
    return ways


def peak_rate(*, only_torch: bool, shapes: Sequence[tuple[int, int]] = MATRIX_SHAPES, gflop: float = 10.0) -> float:
    """GFLOP/s of the fastest of the products, each repeated for about `gflop`; `only_torch`: without oneDNN's."""
    rates = []
    for num_matrices, size in shapes:
        cost = 2 * num_matrices * size**3 / 1e9
        for multiply in matrix_products(num_matrices, size, only_torch=only_torch):
            multiply()
            rates.append(1000 * cost / step_milliseconds(multiply, max(1, round(gflop / cost))))
    return max(rates)


@dataclass(frozen=True)
class Effort:
    """How long to measure: `repetitions`, of one step each where `single_step`."""

    repetitions: int
    single_step: bool


def compare(stage: Comparison, effort: Effort) -> Result:
    """Milliseconds of a step."""
    ours, reference = (1, 1) if effort.single_step else (stage.num_steps, stage.num_reference_steps)
    measured = interleaved(
        lambda: step_milliseconds(stage.ours, ours),
        lambda: step_milliseconds(stage.reference, reference),
        effort.repetitions,
        less_is_better=True,
    )
    return Result(f"update step: {stage.name}", *measured[:2], "ms/step", measured[2], stage.target)


def share_of_peak(stage: Comparison, effort: Effort, *, only_torch: bool) -> Result:
    """GFLOP/s of our step against the fastest product's."""
    gflop, num_steps = counted_gflop(stage.ours), 1 if effort.single_step else stage.num_steps
    measured = interleaved(
        lambda: 1000 * gflop / step_milliseconds(stage.ours, num_steps),
        lambda: peak_rate(only_torch=only_torch, gflop=0.5 if effort.single_step else 10.0),
        effort.repetitions,
    )
    peak = "the peak of torch's products" if only_torch else "the machine's peak"
    return Result(f"share of {peak}: {stage.name}", *measured[:2], "GFLOP/s", measured[2], PEAK_SHARE_TARGET)


def main() -> None:
    """Measure stage by stage; of the shares of the peak, the policy's alone has a target and is recorded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one step each, one repetition, no recording")
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    effort = Effort(1 if arguments.quick else arguments.repetitions, arguments.quick)
    stages = comparisons()
    gflop = [(counted_gflop(stage.ours), counted_gflop(stage.reference)) for stage in stages]
    results = [compare(stage, effort) for stage in stages]
    torchs = [share_of_peak(stage, effort, only_torch=True) for stage in stages]
    shares = [share_of_peak(stage, effort, only_torch=False) for stage in stages]
    results = [replace(result, gflop_per_second=share.ours) for result, share in zip(results, shares, strict=True)]
    record([*results, torchs[-1], shares[-1]], write=not arguments.quick)
    print(
        "\n| update step | ms | GFLOP | reference's GFLOP | GFLOP/s | torch's peak | share | machine's peak | share |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for stage, time, (ours, reference), torch_, share in zip(stages, results, gflop, torchs, shares, strict=True):
        rates = [f"{share.ours:.1f}"]
        rates += [cell for of in (torch_, share) for cell in (f"{of.reference:.1f}", f"{of.ratio:.0%}")]
        print(" | ".join([f"| {stage.name}", f"{time.ours:.2f}", f"{ours:.3f}", f"{reference:.3f}", *rates]), "|")


if __name__ == "__main__":
    main()
