"""Peak memory of every process, stage by stage, on a table that need not fit into a node's memory.

    python -m benchmarks.larger_than_node --gib 4

A recording of that size is made up, in D4RL's layout: Hopper's dimensions, episodes of 1,000 steps, nothing to find.
Then three commands and stages run, each in a process of its own with its own Ray where it needs one:

- convert: `v2a data convert`.
- source: `v2a data mix` of the recording as one of two sources: reading, facts of the sources, the combined table.
- modality: ten update steps of the modality stage and z of every episode, with a tenth of a GiB for transitions.

Counted is the anonymous memory of a process, which it cannot give back: neither pages of mapped files nor Ray's shared
memory, which spills to disk. What does not depend on the size of the table is bounded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import yaml

from v2a_ray.engine.context import Job
from v2a_ray.experiments.reading import resolve
from v2a_ray.stages.registered import fit_of

OBSERVATION_DIM, ACTION_DIM, EPISODE_STEPS = 11, 3, 1000
ROW_BYTES = (2 * OBSERVATION_DIM + ACTION_DIM + 1) * 4
EPISODES_AT_ONCE = 100
STAGES = ("convert", "source", "modality")
POLL_SECONDS = 0.2
COMMAND = "the command"
ROOT = Path(__file__).parents[1]


def make_recording(path: Path, gib: float) -> None:
    """A file in which all checks pass: states in which Hopper stands, and random actions."""
    num_episodes = max(2, round(gib * 2**30 / ROW_BYTES / EPISODE_STEPS))
    generator = np.random.default_rng(0)
    widths = {"observations": OBSERVATION_DIM, "next_observations": OBSERVATION_DIM, "actions": ACTION_DIM}
    with h5py.File(path, "w") as file:
        for name, width in {**widths, "rewards": 0, "terminals": 0, "timeouts": 0}.items():
            shape = (num_episodes * EPISODE_STEPS, width) if width else (num_episodes * EPISODE_STEPS,)
            file.create_dataset(name, shape, dtype="f4" if name not in ("terminals", "timeouts") else "?")
        for begin in range(0, num_episodes, EPISODES_AT_ONCE):
            count = min(EPISODES_AT_ONCE, num_episodes - begin)
            states = generator.normal(0, 0.01, (count, EPISODE_STEPS + 1, OBSERVATION_DIM)).astype(np.float32)
            states[..., 0] += 1.25
            rows = slice(begin * EPISODE_STEPS, (begin + count) * EPISODE_STEPS)
            size = (count * EPISODE_STEPS, ACTION_DIM)
            file["observations"][rows] = states[:, :-1].reshape(-1, OBSERVATION_DIM)
            file["next_observations"][rows] = states[:, 1:].reshape(-1, OBSERVATION_DIM)
            file["actions"][rows] = generator.uniform(-1, 1, size).astype(np.float32)
            file["rewards"][rows] = generator.normal(1, 0.1, size[0]).astype(np.float32)
            file["timeouts"][rows] = np.arange(size[0]) % EPISODE_STEPS == EPISODE_STEPS - 1


def experiment(folder: Path, gib: float = 16.0) -> dict[str, Any]:
    """A mix of the recording with a few transitions of a roll-out."""
    rolled_out = {"domain": "hopper", "behavior": "random", "num_transitions": 2000}
    return {
        "name": "large",
        "method": "v2a",
        "target": rolled_out,
        "sources": [
            {"domain": "hopper", "path": str(folder / "recording.hdf5"), "name": "recorded", "behavior": "unknown"},
            {**rolled_out, "domain": "hopper/gravity-0.5", "policy_domain": "hopper", "name": "rolled-out"},
        ],
        "store": str(folder / "store"),
        "loading": {"memory_gib": gib},
        "modality": {"num_steps": 10, "log_interval_steps": 10, "crop_steps": 50},
    }


def fit_modality(folder: Path) -> None:
    """The stage in this process, on the combined table of the mix."""
    config = resolve(experiment(folder, gib=0.1))
    (folder / "output").mkdir(exist_ok=True)
    fit_of("modality", config)(Job(config, {"source": folder / "mix"}, folder / "output", folder / "work"))


def peaks(command: Sequence[str], folder: Path) -> dict[str, int]:
    """Largest anonymous memory in bytes of the command, and of the largest worker of its Ray, with what it did."""
    found: dict[str, int] = {}
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
        )
        watched = psutil.Process(process.pid)
        while process.poll() is None:
            with suppress(psutil.Error):
                for each in [watched, *watched.children(recursive=True)]:
                    with suppress(psutil.Error, OSError, StopIteration):
                        name = COMMAND if each.pid == process.pid else " ".join(each.cmdline()[:1]).split(".")[0]
                        if name == COMMAND or name.startswith("ray::"):
                            found[name] = max(found.get(name, 0), anonymous(each.pid))
            time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(log.read_text())
    workers = sorted((most, name) for name, most in found.items() if name != COMMAND)
    return {COMMAND: found[COMMAND], **({f"largest worker, {workers[-1][1]}": workers[-1][0]} if workers else {})}


def anonymous(pid: int) -> int:
    """Bytes of memory of a process that no file stands behind."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, nargs="+", default=[1.0, 4.0], help="sizes of the table")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--folder", type=Path, help="for files, some five times the table; by default a temporary one")
    parser.add_argument("--fit", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.fit:
        fit_modality(given.fit)
        return
    print("| stage | process | GiB of the table | peak MiB |\n| --- | --- | --- | --- |")
    for gib in given.gib:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            folder = Path(name)
            make_recording(folder / "recording.hdf5", gib)
            (folder / "mix.yaml").write_text(yaml.safe_dump(experiment(folder)))
            v2a = ["-m", "v2a_ray.cli.main", "data"]
            commands = {
                "convert": [*v2a, "convert", "recording.hdf5", "--domain", "hopper", "-o", "converted"],
                "source": [*v2a, "mix", "mix.yaml", "--output", "mix/table"],
                "modality": ["-m", "benchmarks.larger_than_node", "--fit", str(folder)],
            }
            (folder / "mix").mkdir()
            for stage in given.stages:
                for process, most in sorted(peaks(commands[stage], folder).items()):
                    print(f"| {stage} | {process} | {gib:g} | {most / 2**20:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
