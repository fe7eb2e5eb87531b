"""Eight policies as one batched program on two cores: at most five times the time of one policy on one core?

The policies are IQL with V2A's filter at its published sizes (128 + 128 transitions a step, of which 64 + 128 are kept;
width 256) and Hopper's dimensions; they differ in the seed. Two layouts are measured, each against the same reference:

- one process with two threads, which share every batched matrix product;
- two processes with one thread and four policies each, which is what a sweep with `policies_per_trial: auto` does on
  two cores. They never wait for each other.

`ours` is the time in which each of the eight makes one update step, `reference` is five times that of one policy alone.
Threads that share a product wait for the slower thread, so the first layout is slower on a machine with other work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch

from benchmarks.record import Result, interleaved, record
from benchmarks.tables import ACTION_DIM, OBSERVATION_DIM, random_episodes
from v2a_ray.data.loading.sampler import Preprocessing, Transitions
from v2a_ray.stages.policy.batched import BatchedIQL
from v2a_ray.stages.policy.config import FILTERS, LEARNERS
from v2a_ray.stages.policy.filtering import SourceFilter
from v2a_ray.stages.policy.iql import IQLLearner
from v2a_ray.stages.policy.mixed_sampler import MixedSampler
from v2a_ray.stages.policy.training import make_actor

TARGET = 1.0
ALLOWED = 5
NUM_POLICIES, NUM_CORES = 8, 2


def make_learners(num_policies: int, width: int, device: torch.device | str = "cpu") -> list[IQLLearner]:
    """Policies that differ in their seed, on tables of random transitions that they share, on `device`."""
    source, target = random_episodes(30), random_episodes(5, first=30)
    zero, one = np.zeros(OBSERVATION_DIM, np.float32), np.ones(OBSERVATION_DIM, np.float32)
    preprocessing = Preprocessing(zero, one, 0.1)
    generator = np.random.default_rng(0)
    columns = {name: generator.random(source.num_transitions, np.float32) for name in ("alignment", "advantage")}
    tables = Transitions(target, preprocessing, None, device), Transitions(source, preprocessing, columns, device)
    rule = FILTERS(rule="top_fraction", weight="exp_alignment")
    config = LEARNERS(width=width, filter=rule)
    learners = []
    for seed in range(num_policies):
        torch.manual_seed(seed)
        sampler = MixedSampler(*tables, SourceFilter.prepare(rule, None, None), config)
        learners.append(
            IQLLearner(sampler, make_actor(OBSERVATION_DIM, ACTION_DIM, width, preprocessing), config, seed)
        )
    return learners


def milliseconds(steps: Callable[[int], object], num_steps: int, num_threads: int) -> float:
    """Wall time of an update step, after a few that warm up."""
    torch.set_num_threads(num_threads)
    steps(2)
    start = time.perf_counter()
    steps(num_steps)
    return (time.perf_counter() - start) / num_steps * 1e3


worker_pack: BatchedIQL
"""A worker process's own, which `start_worker` makes."""


def start_worker(num_policies: int, width: int) -> None:
    """Make the batched policies of a worker process."""
    global worker_pack
    torch.set_num_threads(1)
    worker_pack = BatchedIQL(make_learners(num_policies, width))


def worker_steps(num_steps: int) -> None:
    """Update steps of a worker's batched policies."""
    for step in range(num_steps):
        worker_pack.update(step)


def main() -> None:
    """Measure both layouts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small networks, one repetition, no recording")
    parser.add_argument("--num-steps", type=int, default=100, help="update steps of every policy per repetition")
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()
    width, num_steps, repetitions = (16, 3, 1) if arguments.quick else (256, arguments.num_steps, arguments.repetitions)
    alone, policy_batch = make_learners(1, width)[0], BatchedIQL(make_learners(NUM_POLICIES, width))
    share = NUM_POLICIES // NUM_CORES

    def reference() -> float:
        return ALLOWED * milliseconds(lambda count: [alone.update(step) for step in range(count)], num_steps, 1)

    def threads() -> float:
        return milliseconds(lambda count: [policy_batch.update(step) for step in range(count)], num_steps, NUM_CORES)

    # Workers start afresh: a forked copy of a process that has computed with threads can hang.
    with ProcessPoolExecutor(NUM_CORES, get_context("spawn"), start_worker, (share, width)) as workers:

        def processes() -> float:
            return milliseconds(lambda count: list(workers.map(worker_steps, [count] * NUM_CORES)), num_steps, 1)

        layouts = {"1 process, 2 threads": threads, f"2 processes of {share}": processes}
        results = []
        for layout, ours in layouts.items():
            measured = interleaved(ours, reference, repetitions, less_is_better=True)
            name = f"update step of {NUM_POLICIES} policies on {NUM_CORES} cores ({layout}) against {ALLOWED} of one"
            results.append(Result(name, *measured[:2], "ms", measured[2], TARGET))
    record(results, write=not arguments.quick)


if __name__ == "__main__":
    main()
