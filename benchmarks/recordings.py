"""Large Hopper recordings to measure with: real episodes, repeated with small changes until there are enough."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from v2a_ray.data.collection.rolling import collect_episodes
from v2a_ray.data.formats.arrays import arrays_of
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains import parse_domain

NUM_EPISODES = 60


@lru_cache(maxsize=1)
def recorded() -> EpisodeTable:
    """A few tens of thousands of transitions of the medium policy."""
    return collect_episodes(parse_domain("hopper/stock"), "medium", range(NUM_EPISODES))


def write_recording(path: Path, num_transitions: int, variant: int = 0) -> None:
    """A gzipped D4RL file, as published ones are; no transition occurs twice in it or in another `variant`."""
    arrays = arrays_of(recorded())
    count = len(arrays["rewards"])
    repetitions = -(-num_transitions // count)
    tiled = {}
    for key, values in arrays.items():
        # Scaled states keep next observations equal to the following observations, to the bit.
        scaled = key in ("observations", "next_observations")
        scales = 1.0 + 1e-5 * (np.arange(repetitions) + variant * repetitions)
        copies = [values * np.float32(scale) if scaled else values for scale in scales]
        tiled[key] = np.concatenate(copies)[:num_transitions]
    with h5py.File(path, "w") as file:
        for key, values in tiled.items():
            file.create_dataset(key, data=values, compression="gzip")
