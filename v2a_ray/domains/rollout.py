"""Roll-outs of a policy in a domain, several episodes side by side.

Shape suffixes: B episodes that are still running, O observation dimension, A action dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.base import Domain
from v2a_ray.domains.batch import make_batch

Act = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Raw observations (B, O) to actions (B, A) in [-1, 1]."""


def roll_out(
    act: Act, domain: Domain | str, num_episodes: int, seed: int = 0, num_threads: int | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Undiscounted returns and lengths, each (num_episodes,), of episodes that run side by side.

    Episode i is reset with seed + i; `act` is called once per step with the observations of all running episodes.
    `num_threads` is by default the number of CPUs of this process. It does not change the result.
    """
    returns = np.zeros(num_episodes)
    lengths = np.zeros(num_episodes, dtype=np.int64)
    with make_batch(domain, num_episodes, num_threads) as environment:
        observations = environment.reset(range(seed, seed + num_episodes))
        running = np.arange(num_episodes)
        while len(running):
            observations, rewards, terminated, truncated = environment.step(act(observations), running)
            returns[running] += rewards
            lengths[running] += 1
            alive = ~(terminated | truncated)
            observations, running = observations[alive], running[alive]
    return returns, lengths
