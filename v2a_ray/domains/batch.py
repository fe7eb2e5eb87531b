"""Many simulations of one domain, stepped together; bit-identical to separate environments.

MuJoCo steps each simulation in C without Python's lock, so threads share the work; observations, rewards and
terminations are computed over the batch. Every simulation keeps its own `MjData`. `mujoco.rollout` would move states in
and out of shared ones, but it does not return the warm start of the constraint solver. Without the warm start, contact
forces differ in their last bits.

Shape suffixes: B simulations stepped, O observation dimension, A action dimension.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from v2a_ray.domains.base import Domain
from v2a_ray.domains.domain import parse_domain, require_robot
from v2a_ray.domains.environments import make_environment
from v2a_ray.domains.own.batch import EnvironmentLoop
from v2a_ray.domains.own.domain import GymDomain
from v2a_ray.domains.recorded import require_simulator
from v2a_ray.domains.shifts.execution import ActionChannel

Step = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]
"""Observations (B, O), rewards (B,), terminated (B,), truncated (B,)."""

# Positions, velocities, warm start and everything else that the next step depends on.
_STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


class BatchedEnvironment:
    """Simulations 0 .. num_simulations - 1 of a domain; each runs its own episode.

    For a given seed and actions, simulation i yields exactly the observations, rewards and flags of
    `make_environment(domain)`, whichever simulations are stepped beside it and whatever the number of threads. There is
    no automatic reset.
    """

    def __init__(self, domain: Domain | str, num_simulations: int, num_threads: int | None = None) -> None:
        """`num_threads` is `available_threads()` by default, and at most the number of simulations.

        Raises DomainError as `make_environment` does.
        """
        self.domain = require_robot(
            parse_domain(domain) if isinstance(domain, str) else domain, "a batch of simulations"
        )
        self.robot = self.domain.robot_spec
        self.task = self.robot.task
        # This environment owns the model and draws the initial states; it is never stepped.
        self._environment: Any = make_environment(self.domain).unwrapped
        model = self._environment.model
        self._model, self._num_substeps = model, self._environment.frame_skip
        self._data = [mujoco.MjData(model) for _ in range(num_simulations)]
        # Views into MuJoCo's memory, created once, because creating them takes longer than reading them.
        self._controls = [data.ctrl for data in self._data]
        self._positions = [data.qpos for data in self._data]
        self._velocities = [data.qvel for data in self._data]
        execution = self.domain.execution
        self._executes_exactly = execution.is_exact
        self._channels = [ActionChannel(execution, self.robot.action_dim) for _ in self._data]
        self._generators: list[np.random.Generator] = [self._environment.np_random] * num_simulations
        self._tracked = [self._tracked_position(data) for data in self._data]
        self._progress = np.zeros(num_simulations)
        self._num_steps = np.zeros(num_simulations, dtype=np.int64)
        self._num_threads = min(available_threads() if num_threads is None else num_threads, num_simulations)
        self._threads = ThreadPoolExecutor(self._num_threads - 1) if self._num_threads > 1 else None

    def reset(
        self, seeds: Sequence[int], simulations: Sequence[int] | NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Start an episode, with its own seed, in each of `simulations` (by default all); observations (B, O)."""
        rows = range(len(self._data)) if simulations is None else simulations
        observations = []
        for seed, simulation in zip(seeds, rows, strict=True):
            observations.append(self._environment.reset(seed=int(seed))[0])
            mujoco.mj_copyState(self._model, self._environment.data, self._data[simulation], _STATE)
            # A seeded reset makes a new generator. The episode keeps it, because executed actions may be noisy.
            self._generators[simulation] = self._environment.np_random
            self._channels[simulation].reset()
            self._progress[simulation] = self._tracked_position(self._environment.data)[0]
            self._num_steps[simulation] = 0
        return np.stack(observations)

    def step(self, actions_BA: NDArray[Any], simulations: NDArray[np.int64] | None = None) -> Step:
        """One environment step of each of `simulations` (by default all), with actions (B, A) in [-1, 1]."""
        rows = np.arange(len(self._data)) if simulations is None else simulations
        if np.shape(actions_BA) != (len(rows), self.robot.action_dim):
            raise ValueError(f"actions of shape {np.shape(actions_BA)}, expected {(len(rows), self.robot.action_dim)}")
        positions, velocities, progress_B = self._simulate(self._executed(actions_BA, rows), rows.tolist())
        self._num_steps[rows] += 1
        rewards_B = self.task.reward(progress_B - self._progress[rows], actions_BA, self._environment.dt)
        self._progress[rows] = progress_B
        terminated_B = ~self.task.is_healthy(positions, velocities)
        truncated_B = self._num_steps[rows] >= self.robot.max_episode_steps
        return self._observe(positions, velocities), rewards_B, terminated_B, truncated_B

    def close(self) -> None:
        """End the threads."""
        if self._threads:
            self._threads.shutdown()
        self._environment.close()

    def __enter__(self) -> BatchedEnvironment:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _executed(self, actions_BA: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
        """Actions that reach the actuators (B, A)."""
        if self._executes_exactly:
            return actions_BA
        pairs = zip(rows, actions_BA, strict=True)
        return np.stack([self._channels[row].execute(action, self._generators[row]) for row, action in pairs])

    def _simulate(
        self, actions_BA: NDArray[Any], rows: list[int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Step the rows on all threads; joint positions and velocities, one row each, and tracked positions (B,)."""
        positions = np.empty((len(rows), self._model.nq))
        velocities = np.empty((len(rows), self._model.nv))
        progress_B = np.empty(len(rows))

        def work(shared: Iterator[tuple[int, int]]) -> None:
            for index, row in shared:
                self._controls[row][:] = actions_BA[index]
                mujoco.mj_step(self._model, self._data[row], self._num_substeps)
                positions[index] = self._positions[row]
                velocities[index] = self._velocities[row]
                progress_B[index] = self._tracked[row][0]

        # One list iterator for all threads: each takes the next simulation when it has finished one, so that a thread
        # that other processes slow down does not delay the rest.
        shared = iter(list(enumerate(rows)))
        num_helpers = min(self._num_threads, len(rows)) - 1
        helpers = [self._threads.submit(work, shared) for _ in range(num_helpers)] if self._threads else []
        work(shared)
        for helper in helpers:
            helper.result()
        return positions, velocities, progress_B

    def _observe(self, positions: NDArray[np.float64], velocities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Observations (B, O): positions without the leading ones, clipped velocities, and zeros to fill O."""
        limit, num_positions = self.robot.velocity_limit, self.robot.num_positions
        observations_BO = np.zeros((len(positions), self.robot.observation_dim))
        observations_BO[:, :num_positions] = positions[:, self.robot.num_unobserved_positions :]
        observations_BO[:, num_positions : num_positions + self.robot.num_velocities] = (
            velocities if limit is None else np.clip(velocities, -limit, limit)
        )
        return observations_BO

    def _tracked_position(self, data: mujoco.MjData) -> NDArray[np.float64]:
        """A view whose first entry is the position along the track that rewards measure."""
        body = self.task.tracked_body
        view: NDArray[np.float64] = data.body(body).xpos if body else data.qpos
        return view


def make_batch(
    domain: Domain | str, num_simulations: int, num_threads: int | None = None
) -> BatchedEnvironment | EnvironmentLoop:
    """So many simulations of a domain, stepped together as far as its kind allows. Raises DomainError."""
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    require_simulator(domain)
    if isinstance(domain, GymDomain):
        return EnvironmentLoop(domain, num_simulations)
    return BatchedEnvironment(domain, num_simulations, num_threads)


def available_threads() -> int:
    """The CPUs of this process: OMP_NUM_THREADS if set, as in Ray's workers, else the CPUs that it may run on."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told) > 0:
        return int(told)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
