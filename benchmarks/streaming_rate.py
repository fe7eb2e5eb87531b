"""A table four times as large as the memory allowed: batches per second streamed against in memory, and memory used.

The rates are compared in one process. Memory is measured in a process that only streams, as the increase of its
resident memory after its libraries are loaded. In memory, batches are drawn at the speed of memory; a learner is
slower.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.record import Result, interleaved, record
from benchmarks.tables import OBSERVATION_DIM, ROW_BYTES, random_row_file
from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions
from v2a_ray.data.loading.sampler import Preprocessing, Transitions, TransitionSampler
from v2a_ray.data.loading.streaming import StreamedTransitions

RATE_TARGET, MEMORY_TARGET = 0.4, 1.0
BATCH_SIZE = 256
TIMES_ALLOWANCE = 4


def plain() -> Preprocessing:
    """Changes nothing, but is applied."""
    return Preprocessing(np.zeros(OBSERVATION_DIM, np.float32), np.ones(OBSERVATION_DIM, np.float32), 1.0)


def streamed(file: MemoryMappedTransitions) -> StreamedTransitions:
    """With a quarter of the table as allowance."""
    return StreamedTransitions(file, plain(), memory_bytes=file.num_bytes // TIMES_ALLOWANCE, seed=0)


def rate(sampler: TransitionSampler, generator: torch.Generator, num_batches: int) -> float:
    """Batches per second."""
    start = time.perf_counter()
    for _ in range(num_batches):
        sampler.sample(BATCH_SIZE, generator)
    return num_batches / (time.perf_counter() - start)


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak_memory(folder: Path, num_batches: int) -> int:
    """Bytes that become resident in this process while the memory-mapped transitions in `folder` are streamed."""
    generator = torch.Generator().manual_seed(0)
    MemoryMappedTransitions.open(folder)  # Arrow loads pandas (45 MB) at its first use; that is no part of the table.
    before, most = resident_bytes(), 0
    sampler = streamed(MemoryMappedTransitions.open(folder))
    for _ in range(num_batches):
        sampler.sample(BATCH_SIZE, generator)
        most = max(most, resident_bytes())
    return most - before


def main() -> None:
    """Measure on one table of random transitions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small table, one repetition, no recording")
    parser.add_argument("--table-mib", type=int, default=2048)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--num-batches", type=int, default=20_000, help="per measurement of memory")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory_of:
        print(peak_memory(arguments.memory_of, arguments.num_batches))
        return
    table_mib = 128 if arguments.quick else arguments.table_mib
    num_batches = 1000 if arguments.quick else arguments.num_batches
    with tempfile.TemporaryDirectory() as folder:
        file = random_row_file(Path(folder), table_mib * 2**20 // ROW_BYTES)
        samplers = streamed(file), Transitions(file, plain())
        generator = torch.Generator().manual_seed(0)
        for sampler in samplers:  # Fill the buffer and touch the pages.
            rate(sampler, generator, 2000)
        measured = interleaved(
            lambda: rate(samplers[0], generator, 2000),
            lambda: rate(samplers[1], generator, 2000),
            1 if arguments.quick else arguments.repetitions,
        )
        command = [sys.executable, "-m", "benchmarks.streaming_rate", "--num-batches", str(num_batches)]
        printed = subprocess.check_output([*command, "--memory-of", file.path.parent], cwd=Path(__file__).parents[1])
        used, allowed = int(printed) / 2**20, file.num_bytes / TIMES_ALLOWANCE / 2**20
    title = f"streaming a table of {table_mib:,} MiB with a quarter of it as memory"
    results = [
        Result(f"{title}: rate against in memory", *measured[:2], "batches / s", measured[2], RATE_TARGET),
        Result(f"{title}: memory against the allowance", used, allowed, "MiB", allowed / used, MEMORY_TARGET),
    ]
    record(results, write=not arguments.quick)


if __name__ == "__main__":
    main()
