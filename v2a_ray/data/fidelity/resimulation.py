"""Re-simulation: does a domain reproduce recorded data? Every transition is predicted from its own observation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from v2a_ray.data.checks.rewards import Paid
from v2a_ray.data.table.episodes import EpisodeTable
from v2a_ray.domains.base import Domain
from v2a_ray.domains.domain import parse_domain, require_robot
from v2a_ray.domains.environments import make_environment
from v2a_ray.domains.robot_spec import RobotSpec
from v2a_ray.errors import DomainError

Float = NDArray[np.float64]
# Error of a step recorded in float32; in another domain the median is above 1e-3.
STEP_REPRODUCED = 1e-4
Transition = tuple[NDArray[Any], NDArray[Any]]


@dataclass(frozen=True)
class FidelityReport:
    """How well one domain predicts the transitions of a table.

    Attributes:
        domain: canonical name.
        rows: transitions predicted.
        rows_excluded: transitions whose state before or after is unknown: a velocity at its clipping limit, a value
            that is not finite, or a last step whose next observation was not recorded (it repeats the observation).
        median_error, p95_error: L-infinity distance of predicted and recorded next observation over the rows.
        reward_median_error: median absolute difference of rewards.
        reward_problem: in words, how rewards differ from the domain's; empty if they do not.
    """

    domain: str
    rows: int
    rows_excluded: int
    median_error: float
    p95_error: float
    reward_median_error: float
    reward_problem: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Predictions:
    """Transitions of a table, predicted in one domain; N rows, O observation dimension.

    Attributes:
        rows: (N,) indices of the transitions in the table.
        num_excluded: transitions that cannot be predicted, see `FidelityReport.rows_excluded`.
        next_observation: (N, O), reward: (N,).
        knows_reward: (N,) bool, false if the reward depends on the previous step and that step is unknown.
    """

    rows: NDArray[np.int64]
    num_excluded: int
    next_observation: Float
    reward: Float
    knows_reward: NDArray[np.bool_]

    def paid(self, table: EpisodeTable) -> Paid:
        """The domain's and the recorded rewards, for steps that the domain reproduces and whose reward is known."""
        told = self.knows_reward & (self.errors(table) < STEP_REPRODUCED)
        return Paid.of(table, self.rows[told], self.reward[told])

    def errors(self, table: EpisodeTable) -> Float:
        """(N,) L-infinity distances to the next observations that `table` recorded."""
        distances: Float = np.abs(self.next_observation - table.next_observation[self.rows]).max(axis=1)
        return distances


def resimulate(table: EpisodeTable, domain: Domain | str, max_rows: int | None = None) -> FidelityReport:
    """Predict every transition of `table` in `domain` and compare it with the recording; see `predict_table`."""
    domain = parse_domain(domain) if isinstance(domain, str) else domain
    predictions = predict_table(table, domain, max_rows)
    errors = predictions.errors(table)
    problem = predictions.paid(table).problem("it")
    return FidelityReport(
        domain=domain.name,
        rows=len(errors),
        rows_excluded=predictions.num_excluded,
        median_error=float(np.median(errors)),
        p95_error=float(np.quantile(errors, 0.95)),
        reward_median_error=float(np.median(np.abs(predictions.reward - table.reward[predictions.rows]))),
        reward_problem=problem.message if problem else "",
    )


def predict_table(
    table: EpisodeTable, domain: Domain, max_rows: int | None = None, rows: NDArray[np.int64] | None = None
) -> Predictions:
    """Predict the transitions of `table` in `domain`, each from its own recorded observation.

    The root's horizontal position is not observed and set to zero, which changes neither dynamics nor rewards.
    `max_rows` spreads that many rows evenly over the table; `rows` names them. Raises DomainError if the dimensions do
    not fit, for a domain with action noise (what was executed is not in the table), and for an environment that is not
    one of ours.
    """
    domain = require_robot(domain, "re-simulation")
    spec = domain.robot_spec
    check_dimensions(table, domain, domain.name)
    require_exact(domain)
    known = known_states(table, spec)
    usable = np.flatnonzero(known)
    if rows is None:
        rows = usable[spread(len(usable), max_rows)]
    if not len(rows):
        raise DomainError(
            "no transition has a known state", where=domain.name, remedy="data with unclipped, finite velocities"
        )
    executed = _executed(table, domain.execution.delay_steps)
    previous = _previous(table, rows, known, executed) if spec.reward_lags else ()
    predicted, rewards = predict(domain, table.observation[rows], table.action[rows], previous, executed[rows])
    knows_reward = np.asarray([step is not None for step in previous] or [True] * len(rows), dtype=bool)
    if previous and domain.execution.delay_steps:
        # The actions that an episode's first steps executed are known only if the episode is complete.
        step = rows - table.offsets[table.episode_of_row[rows]]
        knows_reward &= step > domain.execution.delay_steps
    return Predictions(rows, table.num_transitions - len(usable), predicted, rewards, knows_reward)


def spread(count: int, max_rows: int | None) -> NDArray[np.int64]:
    """At most `max_rows` of the numbers from 0 to before `count`, evenly spread."""
    if max_rows is None or count <= max_rows:
        return np.arange(count)
    return np.linspace(0, count - 1, max_rows).astype(np.int64)


def check_dimensions(table: EpisodeTable, domain: Domain, where: str) -> None:
    """Raise DomainError, naming `where`, if the table was recorded with a robot of other dimensions."""
    spec = domain.robot_spec
    if (table.observation_dim, table.action_dim) != (spec.observation_dim, spec.action_dim):
        raise DomainError(
            f"data have {table.observation_dim} observations and {table.action_dim} actions, "
            f"{domain.robot} has {spec.observation_dim} and {spec.action_dim}",
            where=where,
            remedy=spec.remedy_for(table.observation_dim, table.action_dim),
        )


def predict(
    domain: Domain,
    observation: NDArray[Any],
    action: NDArray[Any],
    previous: Sequence[Transition | None] = (),
    executed: NDArray[Any] | None = None,
) -> tuple[Float, Float]:
    """Next observations (N, O) and rewards (N,) of `action` (N, A) commanded in the states of `observation` (N, O).

    If `previous` has the observation and executed action one step earlier, that step is replayed first, so that
    quantities that lag behind the state (`RobotSpec.reward_lags`) have their recorded values. `executed` (N, A) goes to
    the actuators in place of the action that the domain would execute after a reset.
    """
    domain = require_robot(domain, "re-simulation")
    environment: Any = make_environment(domain).unwrapped
    channel = None
    if executed is not None and not domain.execution.is_exact:
        environment.action_channel = channel = _Recorded()
    spec = domain.robot_spec
    next_observations, rewards = np.empty(observation.shape), np.empty(len(observation))
    for index in range(len(observation)):
        before = previous[index] if previous else None
        position, velocity = _state(observation[index], spec)
        if before is None:
            _restart(environment, position, velocity, spec.reward_lags)
        else:
            _restart(environment, *_state(before[0], spec), spec.reward_lags)
            if channel:
                channel.executed = before[1]
            environment.step(before[1])
            # Restore the recorded state exactly, but keep the lagging quantities and the unobserved position.
            hidden = spec.num_unobserved_positions
            environment.data.qpos[hidden:], environment.data.qvel[:] = position[hidden:], velocity
        if channel and executed is not None:
            channel.executed = executed[index]
        next_observation, reward, *_ = environment.step(action[index])
        next_observations[index], rewards[index] = next_observation, float(reward)
    return next_observations, rewards


def replay(domain: Domain, observation: NDArray[Any], action: NDArray[Any]) -> Float:
    """(N, H, O): the observations that H actions in a row (N, H, A) lead to from the states of `observation` (N, O).

    A delay begins with its usual zeros, because the actions before are not given. See `predict` for positions that are
    not observed. Raises DomainError for a domain with action noise, or an environment that is not one of ours.
    """
    domain = require_robot(domain, "a replay")
    require_exact(domain)
    environment: Any = make_environment(domain).unwrapped
    observations = np.empty((*action.shape[:2], observation.shape[1]))
    for index, actions in enumerate(action):
        environment.reset(seed=0)
        _restart(environment, *_state(observation[index], domain.robot_spec), domain.robot_spec.reward_lags)
        for step, executed in enumerate(actions):
            observations[index, step], *_ = environment.step(executed)
    return observations


def require_exact(domain: Domain) -> None:
    """Raise DomainError for a domain that adds noise to actions."""
    if domain.execution.noise_std:
        raise DomainError(
            "no transition can be re-simulated, because the noise on its action was not recorded",
            where=domain.name,
            remedy="the domain without action_noise, to see how far the noise moves the robot",
        )


class _Recorded:
    """Replaces an environment's `ActionChannel`: executes the action that the recording gives."""

    executed: NDArray[Any]

    def execute(self, commanded: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
        return self.executed


def _restart(environment: Any, position: Float, velocity: Float, lags: bool) -> None:
    # A reset clears the constraint solver's warm start, which would carry rounding over from an unrelated row.
    mujoco.mj_resetData(environment.model, environment.data)
    environment.data.qpos[:], environment.data.qvel[:] = position, velocity
    if lags:
        # The reward reads body positions before the first step computes them.
        mujoco.mj_forward(environment.model, environment.data)


def _state(observation: NDArray[Any], spec: RobotSpec) -> tuple[Float, Float]:
    """Joint positions (nq,) and velocities (nv,) of an observation (O,), unobserved positions zero."""
    split = spec.num_positions
    position = np.concatenate([np.zeros(spec.num_unobserved_positions), observation[:split]])
    return position, observation[split : split + spec.num_velocities].astype(np.float64)


def _executed(table: EpisodeTable, delay_steps: int) -> NDArray[np.float32]:
    """(N, A) executed actions: the action commanded `delay_steps` earlier, zeros before an episode's start."""
    executed = table.action
    for _ in range(delay_steps):
        executed = np.roll(executed, 1, axis=0)
        executed[table.offsets[:-1]] = 0.0
    return executed


def _previous(
    table: EpisodeTable, rows: NDArray[np.int64], known: NDArray[np.bool_], executed: NDArray[np.float32]
) -> list[Transition | None]:
    """Per row the previous transition of its episode; None for the first one or if the previous state is unknown."""
    followed = np.append(False, known[:-1])
    followed[table.offsets[:-1]] = False
    return [(table.observation[row - 1], executed[row - 1]) if followed[row] else None for row in rows.tolist()]


def known_states(table: EpisodeTable, spec: RobotSpec) -> NDArray[np.bool_]:
    """(N,) whether the states before and after are known; see `FidelityReport.rows_excluded`."""
    both = np.stack([table.observation, table.next_observation])
    known: NDArray[np.bool_] = np.asarray(np.isfinite(both).all(axis=(0, 2)))
    if spec.velocity_limit is not None:
        velocities = np.abs(both[:, :, spec.num_positions : spec.num_positions + spec.num_velocities])
        known &= (velocities < spec.velocity_limit).all(axis=(0, 2))
    return known & table.arrival_recorded
