"""The severity of each named shift: the mean return of one stock policy, used unchanged.

    python -m benchmarks.shift_severity hopper
    python -m benchmarks.shift_severity halfcheetah --folder runs/halfcheetah/behaviors --kinds wind mass

The named levels of a kind should range from harmless to not survivable. This table was used to choose the levels of
kinds without published levels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from v2a_ray.domains import catalogue, parse_domain
from v2a_ray.domains.behaviors import evaluate_policy, load_behavior
from v2a_ray.evaluation.interval import with_spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("robot")
    parser.add_argument("--folder", type=Path, help="trained behaviours; by default the packaged stock ones")
    parser.add_argument("--behavior", default="expert")
    parser.add_argument("--kinds", nargs="*", help="kinds of shifts, by default all")
    parser.add_argument("--also", nargs="*", default=[], help="further shifts, for example wind-3")
    parser.add_argument("--num-episodes", type=int, default=5)
    arguments = parser.parse_args()

    policy = load_behavior(arguments.robot, arguments.behavior, folder=arguments.folder)
    kinds = arguments.kinds
    named = [
        domain for domain in catalogue(arguments.robot) if kinds is None or domain.shift_name.split("-")[0] in kinds
    ]
    for domain in [*named, *(parse_domain(f"{arguments.robot}/{shift}") for shift in arguments.also)]:
        returns = evaluate_policy(policy, domain, arguments.num_episodes)
        print(f"{domain.name:40} {with_spread(returns, 0)}", flush=True)


if __name__ == "__main__":
    main()
