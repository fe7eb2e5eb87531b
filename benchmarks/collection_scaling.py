"""Collects transitions with Ray actors on several cores and on one; both tables must be equal, bit for bit."""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.record import Result, interleaved, record, seconds
from v2a_ray.data.config import SourceSpec
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.orchestration.cluster.session import ray_session
from v2a_ray.orchestration.data.collect import collect_data

TARGET = 1.7


def main() -> None:
    """Measure one source."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20,000 transitions once, no recording")
    parser.add_argument("--domain", default="hopper/stock@d4rl")
    parser.add_argument("--behavior", default="medium")
    parser.add_argument("--num-transitions", type=int, default=1_000_000)
    parser.add_argument("--num-actors", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=1, help="a million transitions take minutes each time")
    arguments = parser.parse_args()
    num_transitions = 20_000 if arguments.quick else arguments.num_transitions
    repetitions = 1 if arguments.quick else arguments.repetitions
    tables: dict[int, EpisodeTable] = {}

    def transitions_per_second(num_actors: int) -> float:
        """Includes starting the actors, because a user waits for it too."""
        spec = SourceSpec(domain=arguments.domain, behavior=arguments.behavior, num_transitions=num_transitions)

        def collect() -> None:
            (tables[num_actors],) = collect_data([spec], num_actors=num_actors)

        return num_transitions / seconds(collect)

    many = arguments.num_actors
    with ray_session(num_cpus=many):
        # The first actors wait for Ray's own processes and for imports from disk.
        collect_data([SourceSpec(domain=arguments.domain, behavior=arguments.behavior, num_transitions=1000)])
        measured = interleaved(lambda: transitions_per_second(many), lambda: transitions_per_second(1), repetitions)
    for column in ("observation", "action", "reward", "next_observation", "offsets"):
        np.testing.assert_array_equal(getattr(tables[many], column), getattr(tables[1], column))
    source = f"{arguments.domain} {arguments.behavior}"
    name = f"collecting {num_transitions:,} transitions of {source} on {many} cores against 1"
    record([Result(name, *measured[:2], "rows/s", measured[2], TARGET)], write=not arguments.quick)


if __name__ == "__main__":
    main()
