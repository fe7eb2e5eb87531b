"""One update step of IQL on 256 transitions, compared with d3rlpy's IQL with networks of the same sizes, on one thread.

Our step draws its batch. d3rlpy's batches are drawn beforehand, so that its sampling, which `sampling_speed` measures,
does not count here. The first run installs d3rlpy into a separate folder (`peers.py`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import count, cycle

import numpy as np
import torch

from benchmarks.learners import SOURCE_EPISODES, TARGET_EPISODES, target_policy_learner
from benchmarks.peers import PeerError, d3rlpy
from benchmarks.record import Result, interleaved, record, step_milliseconds
from benchmarks.tables import random_episodes

TARGET = 2.3
BATCH_SIZE = 256
NUM_DRAWN = 32


def d3rlpy_step() -> Callable[[], object]:
    """One update of d3rlpy's IQL on one of a few batches of the same table."""
    peer = d3rlpy()
    table = random_episodes(TARGET_EPISODES, first=SOURCE_EPISODES)
    ends = np.zeros(len(table.observation), np.float32)
    ends[table.offsets[1:] - 1] = 1
    dataset = peer.dataset.MDPDataset(
        table.observation, table.action, table.reward, terminals=np.zeros_like(ends), timeouts=ends
    )
    encoder = peer.models.VectorEncoderFactory([256, 256])
    algorithm = peer.algos.IQLConfig(
        batch_size=BATCH_SIZE,
        actor_encoder_factory=encoder,
        critic_encoder_factory=encoder,
        value_encoder_factory=encoder,
        n_critics=2,
    ).create(device="cpu:0")
    algorithm.build_with_dataset(dataset)
    batches = cycle([dataset.sample_transition_batch(BATCH_SIZE) for _ in range(NUM_DRAWN)])
    return lambda: algorithm.update(next(batches))


def main() -> int:
    """Exits with status 2 and one line with the reason if d3rlpy is not available."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few steps, one repetition, no recording")
    parser.add_argument("--repetitions", type=int, default=11)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        theirs = d3rlpy_step()
    except PeerError as error:
        print(error, file=sys.stderr)
        return 2
    learner, steps = target_policy_learner(), count()
    num_steps = 3 if arguments.quick else 50

    def ours() -> object:
        return learner.update(next(steps))

    for step in (ours, theirs):
        step()
    measured = interleaved(
        lambda: step_milliseconds(ours, num_steps),
        lambda: step_milliseconds(theirs, num_steps),
        1 if arguments.quick else arguments.repetitions,
        less_is_better=True,
    )
    name = f"IQL: update step on {BATCH_SIZE} transitions, one thread, against d3rlpy"
    record([Result(name, *measured[:2], "ms/step", measured[2], TARGET)], write=not arguments.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
