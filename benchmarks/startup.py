"""Waiting times besides the work itself: help, a refusal, an estimate, the first line of a run, Ray.

    python -m benchmarks.startup

Every measurement is a separate process, on a machine that has read its files before; results are medians over
repetitions. Commands that wait for no other process are measured in CPU seconds, the others in seconds. The reference
is a limit that we chose.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.record import Result, record

ROOT = Path(__file__).parents[1]
V2A = (sys.executable, "-m", "v2a_ray.cli.main")
ENOUGH_HELP, ENOUGH_REFUSAL, ENOUGH_ESTIMATE, ENOUGH_FIRST_LINE, ENOUGH_RAY = 0.4, 1.0, 3.0, 0.5, 5.0
RAY = """
import time
from v2a_ray.orchestration.cluster.session import ray_session
start = time.perf_counter()
with ray_session():
    pass
print(time.perf_counter() - start)
"""


def cpu_seconds(*arguments: str, status: int = 0) -> float:
    """CPU time of a command and what it started. Raises SystemExit when it ends with another status than expected."""

    def spent() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    done = subprocess.run([*V2A, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != status:
        raise SystemExit(f"v2a {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return spent() - before


def first_line() -> float:
    """Seconds from the start of `v2a run` to its first line; it is stopped then."""
    start = time.perf_counter()
    command = [*V2A, "run", "tune_configs/demo.yaml", "--run-dir", os.devnull]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        waited = time.perf_counter() - start
        process.terminate()
    if not line:
        raise SystemExit("v2a run printed nothing")
    return waited


def ray_alone() -> float:
    """Seconds in which a local Ray starts and stops, as a run has it."""
    done = subprocess.run([sys.executable, "-c", RAY], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure all five."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="once each, no recording")
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    measures: list[tuple[str, Callable[[], float], float, str]] = [
        ("v2a --help", lambda: cpu_seconds("--help"), ENOUGH_HELP, "CPU s"),
        (
            "a mistyped key is refused",
            lambda: cpu_seconds("run", "tune_configs/demo.yaml", "policy.num_stesp=3", status=2),
            ENOUGH_REFUSAL,
            "CPU s",
        ),
        (
            "v2a sweep smoke.yaml --dry-run",
            lambda: cpu_seconds("sweep", "tune_configs/smoke.yaml", "--dry-run"),
            ENOUGH_ESTIMATE,
            "CPU s",
        ),
        ("first line of v2a run", first_line, ENOUGH_FIRST_LINE, "s"),
        ("Ray starts and stops", ray_alone, ENOUGH_RAY, "s"),
    ]
    results = []
    for name, measure, enough, unit in measures:
        measure()  # what the disk has to read the first time
        ours = statistics.median(measure() for _ in range(1 if arguments.quick else arguments.repetitions))
        results.append(Result(f"{name}, against {enough:g} {unit}", ours, enough, unit, enough / ours, 1.0))
    record(results, write=not arguments.quick)


if __name__ == "__main__":
    main()
