"""The time of the policy step by operator: torch's profile of 200 update steps, as a Markdown table."""

from __future__ import annotations

import argparse

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.learners import policy_learner


def main() -> None:
    """Profile on one thread and print the operators that take the most time themselves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-steps", type=int, default=200)
    parser.add_argument("--num-rows", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    learner = policy_learner()
    learner.update(0)
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        for step in range(arguments.num_steps):
            learner.update(step)
    events = sorted(profiler.key_averages(), key=lambda event: event.self_cpu_time_total, reverse=True)
    total = sum(event.self_cpu_time_total for event in events)
    print("| operator | share of time | calls per step |")
    print("| --- | --- | --- |")
    for event in events[: arguments.num_rows]:
        print(f"| `{event.key}` | {event.self_cpu_time_total / total:.1%} | {event.count / arguments.num_steps:g} |")


if __name__ == "__main__":
    main()
