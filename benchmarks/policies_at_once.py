"""Update steps per second of 1, 8, 32, 64 and 128 policies that are trained as one batched program.

The policies are those of `many_policies`: IQL with V2A's filter at its published sizes. Times are wall times; on a GPU
the clock is read after all queued work is done. There is no target, and nothing is recorded.

    python -m benchmarks.policies_at_once --device cuda                # operators called one by one
    python -m benchmarks.policies_at_once --device cuda --cuda-graph   # a step is one call
"""

from __future__ import annotations

import argparse
import time

import torch

from benchmarks.many_policies import make_learners
from v2a_ray.engine.devices import choose_device
from v2a_ray.engine.trainer import place
from v2a_ray.stages.policy.batched import BatchedIQL, PolicyBatch
from v2a_ray.stages.policy.cuda_graph import RecordedPolicyBatch
from v2a_ray.stages.policy.iql import IQLLearner

NUM_POLICIES = (1, 8, 32, 64, 128)


def steps_per_second(num_policies: int, width: int, device: torch.device, seconds: float, graph: bool) -> float:
    """Update steps of the batched policies, measured for at least `seconds`, after a few warm-up steps."""
    learners = make_learners(num_policies, width, device)
    for learner in learners:
        place(learner, device)
    program: PolicyBatch | IQLLearner
    if graph:
        program = RecordedPolicyBatch(BatchedIQL(learners))
    elif num_policies > 1:
        program = BatchedIQL(learners)
    else:
        program = learners[0]

    def run(num_steps: int) -> int:
        for step in range(num_steps):
            program.update(step)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return num_steps

    run(3)
    done, start = 0, time.perf_counter()
    while not done or time.perf_counter() - start < seconds:
        done += run(10)
    return done / (time.perf_counter() - start)


def main() -> None:
    """Measure pack by pack and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks, a few steps")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--cuda-graph", action="store_true", help="record a step and replay it; needs a GPU")
    parser.add_argument("--seconds", type=float, default=10.0, help="of every row")
    parser.add_argument("--num-threads", type=int, default=1, help="of the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.num_threads)
    device = choose_device(arguments.device)
    if arguments.cuda_graph and device.type != "cuda":
        parser.error("--cuda-graph needs a GPU; there is none, or --device says otherwise")
    width, seconds = (16, 0.0) if arguments.quick else (256, arguments.seconds)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, threads: {arguments.num_threads}"
    print(f"| policies at once | update steps/s of each ({name}) | of all |")
    print("| --- | --- | --- |")
    for num_policies in NUM_POLICIES:
        rate = steps_per_second(num_policies, width, device, seconds, arguments.cuda_graph)
        print(f"| {num_policies} | {rate:,.1f} | {rate * num_policies:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
