"""Re-simulation: does a domain reproduce recorded data? Every transition is predicted from its own observation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.table import EpisodeTable
from v2a_ray.domains.domain import Domain, parse_domain
from v2a_ray.domains.environments import make_environment
from v2a_ray.domains.robots import RobotSpec
from v2a_ray.errors import DomainError

Float = NDArray[np.float64]
Transition = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class FidelityReport:
    """How well one domain predicts the transitions of a table.

    Attributes:
        domain: canonical name.
        rows: transitions predicted.
        rows_excluded: transitions whose observation or next observation holds a clipped velocity, or whose values are
            not finite: their state is unknown.
        median_error, p95_error: L-infinity distance of predicted and recorded next observation over the rows.
        reward_median_error: median absolute difference of rewards.
    """

    domain: str
    rows: int
    rows_excluded: int
    median_error: float
    p95_error: float
    reward_median_error: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def resimulate(table: EpisodeTable, domain: Domain | str, max_rows: int | None = None) -> FidelityReport:
    """Predict every transition of `table` in `domain` and compare with what was recorded.

    The root's horizontal position is not observed and set to zero, which changes neither dynamics nor rewards.
    `max_rows` spreads that many rows evenly over the table. Raises DomainError if the dimensions do not fit.
    """
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    spec = domain.robot_spec
    if (table.observation_dim, table.action_dim) != (spec.observation_dim, spec.action_dim):
        raise DomainError(
            f"data have {table.observation_dim} observations and {table.action_dim} actions, "
            f"{domain.robot} has {spec.observation_dim} and {spec.action_dim}",
            where=domain.name,
            remedy="the robot that the data were recorded with",
        )
    usable = np.flatnonzero(_usable(table, spec))
    rows = usable
    if max_rows is not None and len(usable) > max_rows:
        rows = usable[np.linspace(0, len(usable) - 1, max_rows).astype(int)]
    if not len(rows):
        raise DomainError(
            "no transition has a known state", where=domain.name, remedy="data with unclipped, finite velocities"
        )
    previous = _previous(table, rows) if spec.reward_lags else ()
    predicted, rewards = predict(domain, table.observation[rows], table.action[rows], previous)
    errors = np.abs(predicted - table.next_observation[rows]).max(axis=1)
    return FidelityReport(
        domain=domain.name,
        rows=len(rows),
        rows_excluded=table.num_transitions - len(usable),
        median_error=float(np.median(errors)),
        p95_error=float(np.quantile(errors, 0.95)),
        reward_median_error=float(np.median(np.abs(rewards - table.reward[rows]))),
    )


def predict(
    domain: Domain, observation: NDArray[Any], action: NDArray[Any], previous: Sequence[Transition | None] = ()
) -> tuple[Float, Float]:
    """Next observations (N, O) and rewards (N,) of `action` (N, A) taken in the states of `observation` (N, O).

    Where `previous` has the (observation, action) one step earlier, that step is replayed first, so that quantities
    which lag behind the state (`RobotSpec.reward_lags`) are what they were in the recording.
    """
    environment: Any = make_environment(domain).unwrapped
    spec = domain.robot_spec
    next_observations, rewards = np.empty(observation.shape), np.empty(len(observation))
    for index in range(len(observation)):
        before = previous[index] if previous else None
        position, velocity = _state(observation[index], spec)
        if before is None:
            _restart(environment, position, velocity)
        else:
            _restart(environment, *_state(before[0], spec))
            environment.step(before[1])
            # The rounding of that step is undone, what lags stays; the unobserved position goes on from there.
            hidden = spec.num_unobserved_positions
            environment.data.qpos[hidden:], environment.data.qvel[:] = position[hidden:], velocity
        next_observation, reward, *_ = environment.step(action[index])
        next_observations[index], rewards[index] = next_observation, float(reward)
    return next_observations, rewards


def _restart(environment: Any, position: Float, velocity: Float) -> None:
    # A reset clears the constraint solver's warm start, which would carry digits over from an unrelated row.
    mujoco.mj_resetData(environment.model, environment.data)
    environment.set_state(position, velocity)


def _state(observation: NDArray[Any], spec: RobotSpec) -> tuple[Float, Float]:
    """Joint positions (nq,) and velocities (nv,) of an observation (O,), unobserved positions zero."""
    split = spec.num_positions
    position = np.concatenate([np.zeros(spec.num_unobserved_positions), observation[:split]])
    return position, observation[split : split + spec.num_velocities].astype(np.float64)


def _previous(table: EpisodeTable, rows: NDArray[np.int64]) -> list[Transition | None]:
    """Per row the transition before it in the same episode, None for an episode's first."""
    first = set(table.offsets[:-1].tolist())
    return [None if row in first else (table.observation[row - 1], table.action[row - 1]) for row in rows.tolist()]


def _usable(table: EpisodeTable, spec: RobotSpec) -> NDArray[np.bool_]:
    """(N,) whether the state before and after is known: finite, and no velocity at its clipping limit."""
    both = np.stack([table.observation, table.next_observation])
    usable: NDArray[np.bool_] = np.asarray(np.isfinite(both).all(axis=(0, 2)))
    if spec.velocity_limit is not None:
        velocities = np.abs(both[:, :, spec.num_positions : spec.num_positions + spec.num_velocities])
        usable = usable & (velocities < spec.velocity_limit).all(axis=(0, 2))
    return usable
