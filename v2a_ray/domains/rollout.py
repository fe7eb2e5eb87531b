"""Roll-outs of a policy in a domain, several episodes side by side.

Shape suffixes: B episodes that are still running, O observation dimension, A action dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.domain import Domain
from v2a_ray.domains.environments import make_environment

Act = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Raw observations (B, O) to actions (B, A) in [-1, 1]."""


def roll_out(
    act: Act, domain: Domain | str, num_episodes: int, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Undiscounted returns and lengths, each (num_episodes,), of one episode in each of `num_episodes` environments.

    Episode i is reset with seed + i; `act` is called once per step with the observations of all running episodes.
    """
    environments = [make_environment(domain) for _ in range(num_episodes)]
    returns = np.zeros(num_episodes)
    lengths = np.zeros(num_episodes, dtype=np.int64)
    try:
        observations = np.stack([env.reset(seed=seed + index)[0] for index, env in enumerate(environments)])
        running = np.arange(num_episodes)
        while len(running):
            actions = act(observations)
            steps = [environments[index].step(action) for index, action in zip(running, actions, strict=True)]
            returns[running] += [float(step[1]) for step in steps]
            lengths[running] += 1
            alive = np.asarray([not (step[2] or step[3]) for step in steps])
            observations = np.stack([step[0] for step in steps])[alive]
            running = running[alive]
    finally:
        for environment in environments:
            environment.close()
    return returns, lengths
