"""Runs every benchmark with a target, each in a separate process, and prints the records of all processors."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.record import measured_on, read_results, render

SCRIPTS = (
    "startup",
    "environment_speed",
    "rollout_batching",
    "collection_scaling",
    "convert_speed",
    "ingest_scaling",
    "sampling_speed",
    "shared_tables",
    "streaming_rate",
    "many_policies",
    "sweep_overhead",
    "display_cost",
    "elastic_utilisation",
    "training_steps",
    "cold_pipeline",
    "d3rlpy_iql",
    "modality_scaling",
)


def main() -> int:
    """Status 1 if a script failed or a target is missed on this processor."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that the scripts run; no recording")
    parser.add_argument("scripts", nargs="*", default=SCRIPTS, help=f"by default {' '.join(SCRIPTS)}")
    arguments = parser.parse_args()
    failed = []
    for script in arguments.scripts:
        command = [sys.executable, "-m", f"benchmarks.{script}", *(["--quick"] if arguments.quick else [])]
        if subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode:
            failed.append(script)
    console = Console()
    entries = read_results()
    if not arguments.quick:
        console.print(render(entries))
    for script in failed:
        console.print(f"benchmarks.{script} failed", style="red")
    mine = [entry for entry in entries if entry["processor"] == measured_on()]
    return int(bool(failed) or (not arguments.quick and not all(entry["holds"] for entry in mine)))


if __name__ == "__main__":
    sys.exit(main())
