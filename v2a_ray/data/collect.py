"""Rolling a behaviour out into episodes. No Ray here; `orchestration.collect` runs this in parallel.

An episode depends on (domain, policy, seed, index) alone, never on which process ran it or what ran before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.table import EpisodeTable, concatenate
from v2a_ray.domains import Domain, make_environment
from v2a_ray.domains.behaviors import BehaviorPolicy, load_behavior


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
        episode_indices: which episodes; each is the same whatever else is asked for.
        noise_std: standard deviation of Gaussian noise on the action, which is clipped to [-1, 1] afterwards.
        policy_domain: whose policy acts; by default `domain`.

    Raises:
        DomainError: there is no such policy for the domain.
    """
    return EpisodeCollector(domain, component, seed, noise_std, policy_domain).collect(episode_indices)


class EpisodeCollector:
    """One environment and one policy, kept between calls because making them takes longer than a short episode."""

    def __init__(
        self,
        domain: Domain,
        component: str,
        seed: int = 0,
        noise_std: float = 0.1,
        policy_domain: Domain | None = None,
    ) -> None:
        self.domain = domain
        self.component = component
        self.seed = seed
        self.noise_std = noise_std
        self.environment: gymnasium.Env[Any, Any] = make_environment(domain)
        self.policy: BehaviorPolicy | None = None
        if component != "random":
            self.policy = load_behavior(policy_domain or domain, component)

    def collect(self, episode_indices: Sequence[int]) -> EpisodeTable:
        """The episodes of these indices, in this order."""
        return concatenate([self._episode(index) for index in episode_indices])

    def close(self) -> None:
        """Free the simulation."""
        self.environment.close()

    def _episode(self, index: int) -> EpisodeTable:
        # crc32, because Python's hash() of a string differs between processes.
        names = (zlib.crc32(name.encode()) for name in (self.domain.name, self.component))
        reset_sequence, noise_sequence = np.random.SeedSequence([self.seed, *names, index]).spawn(2)
        generator = np.random.default_rng(noise_sequence)
        observation, _ = self.environment.reset(seed=int(reset_sequence.generate_state(1)[0]))
        observations, actions, rewards = [observation], [], []
        terminated = truncated = False
        while not (terminated or truncated):
            action = self._act(observation, generator)
            observation, reward, terminated, truncated, _ = self.environment.step(action)
            observations.append(observation)
            actions.append(action)
            rewards.append(float(reward))
        states = np.asarray(observations, dtype=np.float32)
        return EpisodeTable(
            observation=states[:-1],
            action=np.asarray(actions, dtype=np.float32),
            reward=np.asarray(rewards, dtype=np.float32),
            next_observation=states[1:],
            offsets=np.asarray([0, len(actions)], dtype=np.int64),
            terminated=np.asarray([terminated], dtype=bool),
            truncated=np.asarray([not terminated], dtype=bool),
            episode_id=(f"{self.domain.slug}/{self.component}/{self.seed}/{index:06d}",),
            source=(self.component,),
            domain=(self.domain.name,),
            behavior=(self.component,),
        )

    def _act(self, observation: NDArray[Any], generator: np.random.Generator) -> NDArray[np.float32]:
        """One action (A,) float32. A batch of one: a matrix product of another batch size rounds differently."""
        num_actions = self.domain.robot_spec.action_dim
        if self.policy is None:
            action = generator.uniform(-1.0, 1.0, num_actions)
        else:
            mean = self.policy.act(observation[None])[0]
            action = np.clip(mean + self.noise_std * generator.standard_normal(num_actions), -1.0, 1.0)
        return action.astype(np.float32)
