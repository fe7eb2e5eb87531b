"""Four trials of a sweep at once on a table of 2 GiB: do they share one copy of it?

A real `v2a sweep` trains four policies on a made-up source table, which is put into the artifact store beforehand. The
proportional set size (a page shared by n processes counts 1/n in each) of all four trial processes together is sampled
while they train; the allowance is 1.3 times the table plus 0.6 GB per process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.record import Result, record
from benchmarks.tables import ROW_BYTES, write_random_table
from v2a_ray.engine.plan import make_plan
from v2a_ray.engine.store import ArtifactStore
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.experiments.reading import resolve

TARGET = 1.0
NUM_TRIALS = 4
TABLE_FACTOR, BYTES_PER_PROCESS = 1.3, 0.6e9


def experiment(store: Path, num_steps: int) -> dict[str, Any]:
    """Policies on the mixed tables, unfiltered; no roll-out happens, because the data are in the store."""
    rolled_out = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 1000}
    return {
        "name": "shared",
        "method": "iql_mixed",
        "target": rolled_out,
        "sources": [rolled_out],
        "store": str(store),
        "policy": {"num_steps": num_steps, "width": 64},
        "evaluation": {"num_episodes": 1, "interval_steps": 0},
    }


def fill_store(store: ArtifactStore, config: ExperimentConfig, num_transitions: int) -> None:
    """Put made-up tables where the plan of `config` looks for them: a large source, a small target."""
    for node in make_plan(config).values():
        if node.stage in ("data", "source"):
            size = num_transitions if node.stage == "source" else 10_000

            def make(output: Path, _work: Path, size: int = size) -> None:
                write_random_table(output / "table", size)

            store.get_or_make(node.stage, node.key, make, {})


def trial_processes(ancestor: int) -> list[int]:
    """Ray's workers below the process `ancestor` that run a trial, which is how they title themselves."""
    parents, trials = {}, []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title, status = (folder / "cmdline").read_bytes(), (folder / "stat").read_text()
            except OSError:
                continue  # it has just ended
            parents[int(folder.name)] = int(status.rsplit(")", 1)[1].split()[1])
            if title.startswith(b"ray::ImplicitFunc"):  # Tune's actor around a trainable function
                trials.append(int(folder.name))
    return [process for process in trials if ancestor in _line(process, parents)]


def _line(process: int, parents: dict[int, int]) -> list[int]:
    """A process and all that it descends from."""
    line = [process]
    while line[-1] in parents:
        line.append(parents[line[-1]])
    return line


def proportional_bytes(process: int) -> int:
    """Proportional set size of a process."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no Pss of {process}")


def watch(sweep: subprocess.Popen[bytes]) -> tuple[int, int]:
    """(most trials seen at once, most bytes of all of them together while so many were there)."""
    most = (0, 0)
    while sweep.poll() is None:
        try:
            sizes = [proportional_bytes(process) for process in trial_processes(sweep.pid)]
        except (OSError, ValueError):
            continue  # one has just ended
        most = max(most, (len(sizes), sum(sizes)))
        time.sleep(0.5)
    return most


def main() -> None:
    """Measure one sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small table, no recording")
    parser.add_argument("--table-mib", type=int, default=2048)
    parser.add_argument("--num-steps", type=int, default=10_000, help="update steps of each policy")
    arguments = parser.parse_args()
    table_mib, num_steps = (64, 3000) if arguments.quick else (arguments.table_mib, arguments.num_steps)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        settings = experiment(folder / "store", num_steps)
        fill_store(ArtifactStore(folder / "store"), resolve(settings), table_mib * 2**20 // ROW_BYTES)
        axes = {"seed": list(range(NUM_TRIALS))}
        (folder / "sweep.yaml").write_text(yaml.safe_dump({"name": "shared", "settings": settings, "axes": axes}))
        command = [sys.executable, "-m", "v2a_ray.cli.main", "sweep", "sweep.yaml", "--run-dir", "run"]
        command += ["--num-cpus", str(NUM_TRIALS)]
        sweep = subprocess.Popen(command, cwd=folder)
        num_processes, used = watch(sweep)
    if sweep.returncode or num_processes < NUM_TRIALS:
        raise SystemExit(f"the sweep ended with {sweep.returncode}, {num_processes} trials were seen at once")
    allowed = TABLE_FACTOR * table_mib * 2**20 + BYTES_PER_PROCESS * NUM_TRIALS
    name = f"memory of {NUM_TRIALS} concurrent trials on a table of {table_mib:,} MiB against the allowance"
    record(
        [Result(name, used / 1e9, allowed / 1e9, "GB", allowed / used, TARGET)],
        write=not arguments.quick,
    )


if __name__ == "__main__":
    main()
