"""Twenty episodes of the crane by an unsteady hand, as D4RL's HDF5: crane.hdf5."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from crane import Crane, act

EPISODE_STEPS = 150


def main() -> None:
    """Record."""
    crane, generator = Crane(), np.random.default_rng(0)
    rows: dict[str, list[Any]] = {
        key: [] for key in ("observations", "next_observations", "actions", "rewards", "terminals", "timeouts")
    }
    for episode in range(20):
        observation, _ = crane.reset(seed=episode)
        for step in range(EPISODE_STEPS):
            action = np.clip(act(observation) + generator.normal(0, 0.3, 1), -1, 1)
            following, reward, terminated, _, _ = crane.step(action)
            timeout = step == EPISODE_STEPS - 1 and not terminated
            for key, value in zip(rows, (observation, following, action, reward, terminated, timeout), strict=True):
                rows[key].append(value)
            observation = following
            if terminated:
                break
    with h5py.File("crane.hdf5", "w") as file:
        for key, values in rows.items():
            file[key] = np.asarray(values, dtype=bool if key in ("terminals", "timeouts") else "f4")


if __name__ == "__main__":
    main()
