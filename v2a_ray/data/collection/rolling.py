"""Rolling out a behaviour policy into episodes, several side by side. `orchestration.collect` parallelises it with Ray.

An episode depends only on (domain, policy, seed, index), not on the process that ran it or on other episodes. This
holds to the last bit for three reasons: each episode draws its noise from its own generator, simulations that are
stepped together do not affect each other, and a `BehaviorPolicy` computes each action from one row.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.table.episodes import EpisodeTable, concatenate
from v2a_ray.domains import Domain
from v2a_ray.domains.batch import make_batch
from v2a_ray.domains.behaviors import BehaviorPolicy, load_behavior
from v2a_ray.settings.environment_names import without_folders

SIDE_BY_SIDE = 16
"""Episodes that run together in one collector. With this many, the cost of Python per batched step is negligible."""


def collect_episodes(
    domain: Domain,
    component: str,
    episode_indices: Sequence[int],
    seed: int = 0,
    noise_std: float = 0.1,
    policy_domain: Domain | None = None,
) -> EpisodeTable:
    """Roll out whole episodes, labelled with the domain and the component.

    Args:
        component: a single policy that `load_behavior` knows; `random` is uniform and takes no noise.
        episode_indices: which episodes; an episode does not depend on the others in the list.
        noise_std: standard deviation of Gaussian noise on the action, which is clipped to [-1, 1] afterwards.
        policy_domain: domain whose policy acts; by default `domain`.

    Raises:
        DomainError: there is no such policy for the domain.
    """
    return EpisodeCollector(domain, component, seed, noise_std, policy_domain).collect(episode_indices)


class EpisodeCollector:
    """Simulations and one policy, kept between calls because creating them takes longer than a short episode."""

    def __init__(
        self,
        domain: Domain,
        component: str,
        seed: int = 0,
        noise_std: float = 0.1,
        policy_domain: Domain | None = None,
        num_side_by_side: int = SIDE_BY_SIDE,
    ) -> None:
        self.domain = domain
        self.label = without_folders(component)
        self.seed = seed
        self.noise_std = noise_std
        self.policy: BehaviorPolicy | None = None
        if component != "random":
            self.policy = load_behavior(policy_domain or domain, component)
        self.environment = make_batch(domain, num_side_by_side)
        # Of the episodes that run, one row per simulation: how far each is, its noise, and what it has recorded.
        robot = domain.robot_spec
        rows, max_steps = num_side_by_side, robot.max_episode_steps
        self._index = [0] * rows
        self._num_steps = np.zeros(rows, dtype=np.int64)
        self._observation = np.empty((rows, robot.observation_dim))
        self._noise = np.empty((rows, max_steps, robot.action_dim))
        self._observations = np.empty((rows, max_steps + 1, robot.observation_dim), np.float32)
        self._actions = np.empty((rows, max_steps, robot.action_dim), np.float32)
        self._rewards = np.empty((rows, max_steps), np.float32)

    def collect(self, episode_indices: Sequence[int]) -> EpisodeTable:
        """The episodes of these indices, in this order."""
        waiting, idle = deque(episode_indices), list(range(len(self._index)))
        running: list[int] = []
        done: dict[int, EpisodeTable] = {}
        while waiting or running:
            while waiting and idle:
                running.append(idle.pop())
                self._start(running[-1], waiting.popleft())
            rows = np.asarray(running)
            terminated, ended = self._step(rows)
            for row, is_terminal in zip(rows[ended].tolist(), terminated[ended].tolist(), strict=True):
                done[self._index[row]] = self._episode(row, is_terminal)
            idle += rows[ended].tolist()
            running = rows[~ended].tolist()
        return concatenate([done[index] for index in episode_indices])

    def close(self) -> None:
        """Free the simulations."""
        self.environment.close()

    def _start(self, row: int, index: int) -> None:
        """Begin episode `index` in simulation `row`."""
        # crc32, because Python's hash() of a string differs between processes.
        names = (zlib.crc32(name.encode()) for name in (without_folders(self.domain.name), self.label))
        reset_sequence, noise_sequence = np.random.SeedSequence([self.seed, *names, index]).spawn(2)
        generator, shape = np.random.default_rng(noise_sequence), self._noise.shape[1:]
        # Drawing the whole episode's noise at once is faster and gives the same numbers as drawing step by step.
        uniform = self.policy is None
        self._noise[row] = generator.uniform(-1.0, 1.0, shape) if uniform else generator.standard_normal(shape)
        self._observation[row] = self.environment.reset([int(reset_sequence.generate_state(1)[0])], [row])[0]
        self._observations[row, 0] = self._observation[row]
        self._index[row], self._num_steps[row] = index, 0

    def _step(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """One step of the running episodes (B,). Returns flags (B,): terminated, and ended for any reason."""
        steps, actions = self._num_steps[rows], self._act(rows)
        observations, rewards, terminated, truncated = self.environment.step(actions, rows)
        self._actions[rows, steps], self._rewards[rows, steps] = actions, rewards
        self._observations[rows, steps + 1] = self._observation[rows] = observations
        self._num_steps[rows] += 1
        return terminated, terminated | truncated

    def _act(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Actions (B, A) float32 of the running episodes."""
        noise = self._noise[rows, self._num_steps[rows]]
        if self.policy is None:
            return noise.astype(np.float32)
        mean = self.policy.act(self._observation[rows])
        return np.clip(mean + self.noise_std * noise, -1.0, 1.0).astype(np.float32)

    def _episode(self, row: int, terminated: bool) -> EpisodeTable:
        """The episode that simulation `row` has recorded."""
        length, index = int(self._num_steps[row]), self._index[row]
        states = self._observations[row, : length + 1].copy()
        return EpisodeTable(
            observation=states[:-1],
            action=self._actions[row, :length].copy(),
            reward=self._rewards[row, :length].copy(),
            next_observation=states[1:],
            offsets=np.asarray([0, length], dtype=np.int64),
            terminated=np.asarray([terminated], dtype=bool),
            truncated=np.asarray([not terminated], dtype=bool),
            episode_id=(f"{self.domain.slug}/{self.label}/{self.seed}/{index:06d}",),
            source=(self.label,),
            domain=(self.domain.name,),
            behavior=(self.label,),
        )
