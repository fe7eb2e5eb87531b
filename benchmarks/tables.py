"""Random tables of any size for benchmarks, with Hopper's dimensions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from v2a_ray.data.loading.memory_mapped import MemoryMappedTransitions, row_bytes, write_rows
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.data.table.folder import finish_folder, write_part
from v2a_ray.data.table.manifest import summarize_part
from v2a_ray.outputs import new_folder

OBSERVATION_DIM, ACTION_DIM = 11, 3
EPISODE_STEPS = 1000
EPISODES_PER_PART = 1000
ROW_BYTES = row_bytes(OBSERVATION_DIM, ACTION_DIM)


def random_episodes(num_episodes: int, first: int = 0) -> EpisodeTable:
    """Episodes of 1,000 steps, named from number `first` on."""
    generator = np.random.default_rng(first)
    count = num_episodes * EPISODE_STEPS
    states = generator.standard_normal((count + 1, OBSERVATION_DIM), dtype=np.float32)
    return EpisodeTable(
        observation=states[:-1],
        action=generator.random((count, ACTION_DIM), dtype=np.float32) * 2 - 1,
        reward=generator.standard_normal(count, dtype=np.float32),
        next_observation=states[1:],
        offsets=np.arange(num_episodes + 1) * EPISODE_STEPS,
        terminated=np.zeros(num_episodes, bool),
        truncated=np.ones(num_episodes, bool),
        episode_id=tuple(f"random/{first + index:06d}" for index in range(num_episodes)),
        source=("random",) * num_episodes,
        domain=("unknown",) * num_episodes,
        behavior=("unknown",) * num_episodes,
    )


def write_random_table(folder: Path, num_transitions: int) -> None:
    """An episode table of about `num_transitions`, made and written part by part."""
    num_episodes = max(1, num_transitions // EPISODE_STEPS)
    with new_folder(folder) as partial:
        summaries = []
        for part, first in enumerate(range(0, num_episodes, EPISODES_PER_PART)):
            table = random_episodes(min(EPISODES_PER_PART, num_episodes - first), first)
            write_part(table, partial, part)
            summaries.append(summarize_part(table))
        finish_folder(partial, summaries, robot="hopper")


def random_row_file(folder: Path, num_transitions: int) -> MemoryMappedTransitions:
    """The memory-mapped transitions of such a table, below `folder`."""
    write_random_table(folder / "table", num_transitions)
    (folder / "rows").mkdir()
    write_rows(folder / "table", folder / "rows")
    return MemoryMappedTransitions.open(folder / "rows")
