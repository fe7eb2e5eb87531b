"""Ingest of 16 HDF5 files into the combined source table, on two workers and on one; Ray runs already.

Both must give the same table. The time is that of `compute_all` up to the source table: reading, checking and writing
each source, and combining the sources with Ray Data.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.record import Result, interleaved, record, seconds
from benchmarks.recordings import write_recording
from v2a_ray.experiments.experiment import ExperimentConfig
from v2a_ray.orchestration.cluster.session import ray_session
from v2a_ray.orchestration.data.mix import make_mix
from v2a_ray.orchestration.train.listener import Listener

NUM_FILES = 16
TARGET = 1 / 0.65
"""The wall time on two workers is at most 0.65 of that on one."""


def main() -> None:
    """Measure one mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="16 files of 5,000 transitions once, no recording")
    parser.add_argument("--transitions-per-file", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=2)
    arguments = parser.parse_args()
    per_file = 5_000 if arguments.quick else arguments.transitions_per_file
    hashes = set()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(NUM_FILES):
            write_recording(folder / f"{index}.hdf5", per_file, variant=index)
        write_recording(folder / "warm.hdf5", 5_000, variant=NUM_FILES)

        def ingest(num_workers: int) -> float:
            with ray_session(num_cpus=num_workers), tempfile.TemporaryDirectory() as fresh:
                store = Path(fresh)
                # The first tasks wait for Ray's own processes and for imports from disk.
                make_mix(_mix(["warm"] * 2 * num_workers, folder, store / "warm"), store / "warm-mix", Listener())
                config = _mix([str(index) for index in range(NUM_FILES)], folder, store / "store")
                made = {}
                elapsed = seconds(lambda: made.update(make_mix(config, store / "mix", Listener())))
                hashes.add(made["content_hash"])
                return elapsed

        repetitions = 1 if arguments.quick else arguments.repetitions
        measured = interleaved(lambda: ingest(2), lambda: ingest(1), repetitions, less_is_better=True)
    assert len(hashes) == 1, "the number of workers changed the table"
    title = f"ingest of {NUM_FILES} files of {per_file:,} transitions on 2 workers against 1"
    record([Result(title, *measured[:2], "s", measured[2], TARGET)], write=not arguments.quick)


def _mix(files: list[str], folder: Path, store: Path) -> ExperimentConfig:
    sources = [
        {"name": f"source-{index}", "domain": "hopper/stock", "behavior": "medium", "path": f"{file}.hdf5"}
        for index, file in enumerate(files)
    ]
    target = {"domain": "hopper/stock", "behavior": "random", "num_transitions": 1}
    settings = {"name": "ingest", "target": target, "sources": sources, "data_root": str(folder), "store": str(store)}
    return ExperimentConfig.model_validate(settings)


if __name__ == "__main__":
    main()
