"""What the progress display costs, by the number of policies: CPU to tell it of all of them, and while it is watched.

    python -m benchmarks.display_cost

A terminal is drawn for a sweep that is nearly done: all policies but sixteen have started, reported and ended. Then the
sixteen report every second for ten seconds, and the share of a core that this takes is measured. It has to stay below a
hundredth of a core however many policies there are.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from rich.console import Console

from benchmarks.record import Result, record
from v2a_ray.cli.display import StageDisplay
from v2a_ray.engine.plan import Node
from v2a_ray.engine.store import Artifact
from v2a_ray.orchestration.train.listener import Event

NUM_RUNNING, NUM_STEPS = 16, 20_000
LARGEST_SHARE = 0.01
"""Of a core, while it is watched."""


def measure(num_policies: int, seconds: int) -> tuple[float, float]:
    """CPU seconds to tell of all policies, and the share of a core while it is watched."""
    with Path(os.devnull).open("w") as nowhere:
        console = Console(file=nowhere, force_terminal=True, width=160, height=50)
        with StageDisplay(console) as display:
            start = time.process_time()
            display.planned("policies", num_policies, "a free core")
            for number in range(num_policies):
                display.started(Node("policy", f"policy near iql_mixed {number}", str(number)))
                display.progressed(_event(number, NUM_STEPS))
                if number >= NUM_RUNNING:
                    ended = Node("policy", f"policy near iql_mixed {number - NUM_RUNNING}", str(number - NUM_RUNNING))
                    display.done(ended, Artifact("policy", ended.key, Path("store"), 60.0, cached=False), 50.0)
            # The lines of the last second are printed with the next event.
            time.sleep(1.1)
            display.progressed(_event(num_policies - 1, 0))
            told, start, begun = time.process_time() - start, time.process_time(), time.monotonic()
            for second in range(seconds):
                for number in range(num_policies - NUM_RUNNING, num_policies):
                    display.progressed(_event(number, 100 * second))
                time.sleep(1.0)
            return told, (time.process_time() - start) / (time.monotonic() - begun)


def _event(number: int, step: int) -> Event:
    return Event(str(number), f"policy near iql_mixed {number}", step, NUM_STEPS, {})


def main() -> None:
    """Measure 200, 2,000 and 10,000 policies; a minute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a second each, no recording")
    arguments = parser.parse_args()
    results = []
    for num_policies in (200, 2_000, 10_000):
        told, share = measure(num_policies, 1 if arguments.quick else 10)
        print(f"{num_policies:>6,} policies: told in {told:.2f} s of CPU, {100 * share:.2f} % of a core while watched")
        name = f"the display of {num_policies:,} policies, watched, against {LARGEST_SHARE:.0%} of a core"
        results.append(Result(name, share, LARGEST_SHARE, "cores", LARGEST_SHARE / share, 1.0))
    record(results, write=not arguments.quick)


if __name__ == "__main__":
    main()
