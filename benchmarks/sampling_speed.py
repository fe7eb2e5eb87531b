"""Draws a batch of 256 transitions from memory, compared with d3rlpy's `ReplayBuffer.sample_transition_batch`.

The first run installs d3rlpy into a separate folder (`peers.py`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers import PeerError, d3rlpy
from benchmarks.record import Result, interleaved, record
from benchmarks.tables import OBSERVATION_DIM, random_row_file
from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions
from v2a_ray.data.loading.sampler import Preprocessing, Transitions

TARGET = 10.0
BATCH_SIZE = 256


def batches_per_second(draw: Callable[[], object], num_batches: int) -> float:
    """Rate of `draw`."""
    start = time.perf_counter()
    for _ in range(num_batches):
        draw()
    return num_batches / (time.perf_counter() - start)


def d3rlpy_buffer(file: MemoryMappedTransitions) -> Any:
    """d3rlpy's in-memory buffer with the transitions of `file`."""
    rows = file.map().numpy()
    observation, action = file.observation_dim, file.action_dim
    timeouts = np.zeros(len(rows), np.float32)
    timeouts[file.offsets[1:] - 1] = 1.0
    dataset = d3rlpy().dataset.MDPDataset(
        observations=rows[:, :observation].copy(),
        actions=rows[:, observation : observation + action].copy(),
        rewards=rows[:, -2].copy(),
        terminals=np.zeros(len(rows), np.float32),
        timeouts=timeouts,
    )
    # For d3rlpy, which takes s' from the next row, the last step of a truncated episode is no transition.
    assert dataset.transition_count == len(rows) - len(file.lengths)
    return dataset


def main() -> int:
    """Exits with status 2 and one line with the reason if d3rlpy is not available."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a small table, one repetition, no recording")
    parser.add_argument("--num-transitions", type=int, default=1_000_000)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    try:
        d3rlpy()
    except PeerError as error:
        print(error, file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    num_transitions = 20_000 if arguments.quick else arguments.num_transitions
    with tempfile.TemporaryDirectory() as folder:
        file = random_row_file(Path(folder), num_transitions)
        preprocessing = Preprocessing(np.zeros(OBSERVATION_DIM, np.float32), np.ones(OBSERVATION_DIM, np.float32), 0.1)
        ours, generator = Transitions(file, preprocessing), torch.Generator().manual_seed(0)
        theirs = d3rlpy_buffer(file)
        measured = interleaved(
            lambda: batches_per_second(lambda: ours.sample(BATCH_SIZE, generator), 1000),
            lambda: batches_per_second(lambda: theirs.sample_transition_batch(BATCH_SIZE), 50),
            1 if arguments.quick else arguments.repetitions,
        )
    name = f"sampling: batches of {BATCH_SIZE} from {num_transitions:,} transitions in memory against d3rlpy"
    record([Result(name, *measured[:2], "batches / s", measured[2], TARGET)], write=not arguments.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
