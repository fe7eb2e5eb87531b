"""Evaluates a policy in 10 episodes at once and one by one: the same episodes, the same returns."""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.record import Result, interleaved, record, seconds
from v2a_ray.domains import parse_domain
from v2a_ray.domains.behaviors import load_behavior
from v2a_ray.domains.rollout import roll_out

TARGET = 2.0


def main() -> None:
    """Measure one policy in its domain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repetition, no recording")
    parser.add_argument("--domain", default="hopper/stock@d4rl")
    parser.add_argument("--behavior", default="expert")
    parser.add_argument("--num-episodes", type=int, default=10)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    domain, num_episodes = parse_domain(arguments.domain), arguments.num_episodes
    policy = load_behavior(domain, arguments.behavior)
    returns: dict[str, np.ndarray] = {}

    def at_once() -> None:
        returns["at once"] = roll_out(policy.act, domain, num_episodes, seed=0)[0]

    def one_by_one() -> None:
        each = [roll_out(policy.act, domain, 1, seed=seed)[0] for seed in range(num_episodes)]
        returns["one by one"] = np.concatenate(each)

    at_once()  # Warm up.
    repetitions = 1 if arguments.quick else arguments.repetitions
    measured = interleaved(lambda: seconds(at_once), lambda: seconds(one_by_one), repetitions, less_is_better=True)
    # A matrix product of another batch size rounds differently, and an episode amplifies that; a policy's own
    # return has to survive it.
    means = {name: float(values.mean()) for name, values in returns.items()}
    print(f"mean return at once {means['at once']:.1f}, one by one {means['one by one']:.1f}")
    name = f"{num_episodes} episodes of {domain.name} {arguments.behavior} at once against one by one"
    record([Result(name, *measured[:2], "s", measured[2], TARGET)], write=not arguments.quick)


if __name__ == "__main__":
    main()
